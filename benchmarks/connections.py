"""Connections per second through a pod's policy, against no filter, conntrack alone, and linear chains.

    python -m benchmarks.connections [--rounds 150] [--sizes 1 10 100 1000 5000] [--only tortie]

Each variant has three namespaces of its own: a client, a node that forwards, a server behind the node's pod link. The
table on the node is made by the agent's own model and driver. N rules apply to the pod, and only the last of them lets
the client in: the worst order there is.

    selectors     N policies, each allows a port from a group of its own, of ten members
    same port     N policies, each allows port 80 from a group of its own, of ten members
    blocks        N policies, each allows a port from a network without a part of it
    one policy    the N rules of `selectors` in one policy
    others        one policy governs the pod, and N other policies other pods of the node
    linear sets   the N decisions of `selectors` as a chain of nft rules with two lookups each, as rules with ipsets are
    iptables      the same N decisions as a linear chain of iptables-legacy, with plain addresses
    both ends     the client is a pod, too: N policies for what it sends, N policies of `selectors` for the server

A round is a moment of connecting (handshake, then reset) in every variant, in an order that changes. What counts is the
processor's time: the kernel carries each packet all its way in the context of the client's thread, whose time grows
with every rule and not with what else runs on the machine. The ratio is the median over rounds of conntrack's time to
the variant's in the same round, with the standard error that drawing the rounds anew tells; the second copy of the
baseline tells whether it says the truth. Conntrack alone is a forward chain that accepts what is established, without
which nothing would be tracked at all. Needs root.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.figures import p50, show
from benchmarks.nft_member import NODE, members, policy
from benchmarks.nft_member import pod as plug
from bus_schemas.ids import GroupId, PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, Group, Match, PortRange, Rule, Rules, TierRules
from bus_schemas.subjects import ATTACHMENT, GROUP, RULES, Fact
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import PolicyTable
from tests.support.netns import Namespace, namespaces, veth, wait_for

SIZES = (1, 10, 100, 1000, 5000)
MEMBERS = 10
CONNECTIONS = 60
"""Of a variant in one round."""
_DRAWS = 200
PORT = 80
LINK = "tor00000000aaa"
SERVER = "10.200.2.2"
UPLINK, CLIENT_LINK = "up0", "tor00000000bbb"
CLIENT = "10.200.0.7"
"""In the last policy's group and network alone."""
CONNTRACK = "conntrack alone"
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Variant:
    name: str
    policies: int | None
    prepare: Callable[[Namespace], None]
    pods: bool = False
    """The client is a pod, too."""
    times: list[float] = field(default_factory=list)
    """Microseconds of a connection, one of each round."""


def nothing(_: Namespace) -> None:
    pass


def conntrack(node: Namespace) -> None:
    chain = "chain f { type filter hook forward priority 0; policy accept; ct state established,related accept; }\n"
    node.run("nft", "-f", "-", text=f"table inet t {{\n{chain}}}\n")


def address_translation(node: Namespace) -> None:
    """Conntrack, and a rule that masquerades nothing that comes by here."""
    conntrack(node)
    chain = "chain n { type nat hook postrouting priority srcnat; ip saddr 10.99.0.0/16 masquerade; }\n"
    node.run("nft", "-f", "-", text=f"table inet t {{\n{chain}}}\n")


Shape = Callable[[int], tuple[list[Rules], list[Group]]]
"""Number of rules -> policies, and the groups that their rules name."""


def sending(size: int) -> tuple[list[Rules], list[Group]]:
    """What the client may send, in the form of `selectors`."""
    rules, groups = [], []
    for n in range(size):
        ports = (PortRange(first=_port(n, size), last=_port(n, size)),)
        there = Match(groups=(GroupId(f"d:{n}"),), ports=ports)
        allow = Rule(action="allow", protocol=6, destination=there)
        rules.append(Rules(policy=f"NetworkPolicy/bench/sending-{n}", egress=(allow,)))
        member = SERVER if n == size - 1 else f"10.{220 + (n >> 8)}.{n & 255}.1"
        groups.append(Group(v4=socket.inet_aton(member), selector=f"to == '{n}'"))
    return rules, groups


def _rule(port: int, source: Match) -> Rule:
    return Rule(action="allow", protocol=6, source=source, destination=Match(ports=(PortRange(first=port, last=port),)))


def _policy(n: int, *rules: Rule) -> Rules:
    return Rules(policy=f"NetworkPolicy/bench/policy-{n}", ingress=rules)


def _port(n: int, size: int) -> int:
    """Port 80 is the last one's."""
    return PORT if n == size - 1 else 1000 + n


def _group(n: int, size: int) -> Group:
    numbers = range(n * MEMBERS, n * MEMBERS + MEMBERS)
    packed = {bytes((10, 201 + (i >> 16), i >> 8 & 255, i & 255)) for i in numbers}
    if n == size - 1:
        packed.add(socket.inet_aton(CLIENT))
    return Group(v4=b"".join(sorted(packed)), selector=f"app == '{n}'")


def _selector(n: int) -> Match:
    return Match(groups=(GroupId(f"s:{n}"),))


def selectors(size: int) -> tuple[list[Rules], list[Group]]:
    rules = [_policy(n, _rule(_port(n, size), _selector(n))) for n in range(size)]
    return rules, [_group(n, size) for n in range(size)]


def same_port(size: int) -> tuple[list[Rules], list[Group]]:
    return [_policy(n, _rule(PORT, _selector(n))) for n in range(size)], [_group(n, size) for n in range(size)]


def blocks(size: int) -> tuple[list[Rules], list[Group]]:
    def source(n: int) -> Match:
        if n == size - 1:
            return Match(nets=("10.200.0.0/24",), not_nets=("10.200.0.128/25",))
        return Match(nets=(f"10.{201 + (n >> 8)}.{n & 255}.0/24",), not_nets=(f"10.{201 + (n >> 8)}.{n & 255}.64/26",))

    return [_policy(n, _rule(_port(n, size), source(n))) for n in range(size)], []


def one_policy(size: int) -> tuple[list[Rules], list[Group]]:
    rules = [_rule(_port(n, size), _selector(n)) for n in range(size)]
    return [_policy(0, *rules)], [_group(n, size) for n in range(size)]


SHAPES: dict[str, Shape] = {
    "selectors": selectors,
    "same port": same_port,
    "blocks": blocks,
    "one policy": one_policy,
}


def _plug(model: PolicyTable, pod: PodKey, link: str, address: str, ingress: Direction, egress: Direction) -> None:
    model.set_endpoint(pod, link, (address,), "container")
    message = Attachment(
        node=NODE, namespace=pod.namespace, name=pod.name, container="container", ingress=ingress, egress=egress
    )
    model.apply(Fact(ATTACHMENT, (NODE, *pod), message))


def _tell(model: PolicyTable, prefix: str, named: tuple[list[Rules], list[Group]]) -> Direction:
    """The direction of these policies, whose groups are called by the prefix."""
    policies, groups = named
    ids = [RulesId(f"{prefix}-{n}") for n in range(len(policies))]
    for id_, rules in zip(ids, policies, strict=True):
        model.apply(Fact(RULES, (id_,), rules))
    for n, group in enumerate(groups):
        model.apply(Fact(GROUP, (f"{prefix}:{n}", "0"), group))
    return Direction(tiers=(TierRules(tier="default", rules=tuple(ids)),), default="allow")


def table(shape: Shape, size: int, others: int, *, both: bool = False) -> Callable[[Namespace], None]:
    """The server's pod under the policies of a shape, and that many others elsewhere; `both`: the client's, too."""
    free = Direction(default="allow")

    def prepare(node: Namespace) -> None:
        model = PolicyTable()
        _plug(model, PodKey("bench", "server"), LINK, SERVER, _tell(model, "s", shape(size)), free)
        if both:
            _plug(model, PodKey("bench", "client"), CLIENT_LINK, CLIENT, free, _tell(model, "d", sending(size)))
        for n in range(size, size + others):
            model.apply(policy(n))
            model.apply(members(n, range(MEMBERS)))
            plug(model, n, n)
        transaction = model.whole()
        with node.inside(), NftDriver() as driver:
            driver.commit(transaction)

    return prepare


def linear_sets(size: int) -> Callable[[Namespace], None]:
    def prepare(node: Namespace) -> None:
        _, named = selectors(size)
        lines = ["table inet t {"]
        for n, group in enumerate(named):
            packed = [socket.inet_ntoa(group.v4[i : i + 4]) for i in range(0, len(group.v4), 4)]
            lines.append(f"set s{n} {{ type ipv4_addr; elements = {{ {', '.join(packed)} }}; }}")
            lines.append(f"set p{n} {{ type inet_service; elements = {{ {_port(n, size)} }}; }}")
        lines.append("chain pod {")
        lines += [f"ip saddr @s{n} tcp dport @p{n} accept" for n in range(size)]
        lines += ["drop", "}", "chain f { type filter hook forward priority 0; ct state established,related accept;"]
        lines += [f'oifname "{LINK}" jump pod; }}', "}", ""]
        node.run("nft", "-f", "-", text="\n".join(lines))

    return prepare


def iptables(size: int) -> Callable[[Namespace], None]:
    def prepare(node: Namespace) -> None:
        sources = [f"-s 10.{201 + (n >> 8)}.{n & 255}.0/28" for n in range(size - 1)]
        _iptables(node, [*sources, f"-s {CLIENT}/32"])

    return prepare


def ipsets(size: int) -> Callable[[Namespace], None]:
    """The members of each selector as a set, as Calico writes them."""

    def prepare(node: Namespace) -> None:
        _, named = selectors(size)
        lines = []
        for n, group in enumerate(named):
            lines.append(f"create s{n} hash:ip")
            lines += [f"add s{n} {socket.inet_ntoa(group.v4[i : i + 4])}" for i in range(0, len(group.v4), 4)]
        node.run("ipset", "restore", text="\n".join([*lines, ""]))
        _iptables(node, [f"-m set --match-set s{n} src" for n in range(size)])

    return prepare


def _iptables(node: Namespace, sources: Sequence[str]) -> None:
    """A linear chain, a rule a source, each with a port of its own."""
    lines = ["-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", f"-A FORWARD -o {LINK} -j pod"]
    lines += [
        f"-A pod {source} -p tcp -m tcp --dport {_port(n, len(sources))} -j ACCEPT" for n, source in enumerate(sources)
    ]
    text = "\n".join(["*filter", ":FORWARD ACCEPT [0:0]", ":pod - [0:0]", *lines, "-A pod -j DROP", "COMMIT", ""])
    node.run("iptables-legacy-restore", text=text)


def variants(sizes: Sequence[int]) -> list[Variant]:
    made = [Variant("no rules, no conntrack", None, nothing), Variant(CONNTRACK, None, conntrack)]
    made.append(Variant("conntrack alone, once more", None, conntrack))
    made.append(Variant("conntrack and a masquerade rule", None, address_translation))
    for name, shape in SHAPES.items():
        made += [Variant(f"tortie, {name}", n, table(shape, n, 0)) for n in sizes]
    made += [Variant("tortie, others", n, table(selectors, 1, n)) for n in sizes if n in (100, 1000)]
    made += [Variant("tortie, both ends", n, table(selectors, n, 0, both=True), pods=True) for n in sizes]
    made += [Variant("nft, linear sets", n, linear_sets(n)) for n in sizes]
    if shutil.which("iptables-legacy-restore"):
        made += [Variant("iptables-legacy, addresses", n, iptables(n)) for n in sizes]
        if shutil.which("ipset"):
            made += [Variant("iptables-legacy, ipsets", n, ipsets(n)) for n in sizes]
    return made


def build(variant: Variant, stack: ExitStack) -> tuple[Namespace, socket.socket]:
    """The client's namespace and the server's listener."""
    client, node, server = stack.enter_context(namespaces(3))
    near = CLIENT_LINK if variant.pods else UPLINK
    veth(client, "eth0", node, near, addresses=(f"{CLIENT}/24", "10.200.0.1/24"))
    veth(server, "eth0", node, LINK, addresses=(f"{SERVER}/24", "10.200.2.1/24"))
    for pod, gateway in ((client, "10.200.0.1"), (server, "10.200.2.1")):
        pod.ip("route", "add", "default", "via", gateway)
    node.forward()
    variant.prepare(node)
    with server.inside():
        listener = stack.enter_context(socket.create_server((SERVER, PORT), backlog=4096))
    return client, listener


@contextmanager
def accepting(listeners: list[socket.socket]) -> Iterator[None]:
    """A process that accepts on all of them, and closes."""
    numbers = [listener.fileno() for listener in listeners]
    command = [sys.executable, "-m", "benchmarks.connections", "--accept", *map(str, numbers)]
    with subprocess.Popen(command, pass_fds=numbers) as process:
        try:
            yield
        finally:
            process.terminate()


def accept(numbers: list[int]) -> None:
    """For ever."""
    poll = select.epoll()
    listeners = {number: socket.socket(fileno=number) for number in numbers}
    for number, listener in listeners.items():
        listener.setblocking(False)
        poll.register(number, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            try:
                while True:
                    listeners[number].accept()[0].close()
            except BlockingIOError:
                continue
            except ConnectionAbortedError:
                continue


def connect() -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.settimeout(1.0)
        connection.connect((SERVER, PORT))


def time_of(client: Namespace) -> float:
    """Microseconds of the thread's time for a connection."""
    with client.inside():
        connect()
        before = time.thread_time()
        for _ in range(CONNECTIONS):
            connect()
        return (time.thread_time() - before) / CONNECTIONS * 1e6


def reachable(client: Namespace) -> bool:
    try:
        client.call(connect)
    except OSError:
        return False
    return True


def run(rounds: int, sizes: Sequence[int], only: str) -> None:
    with ExitStack() as stack:
        todo = [each for each in variants(sizes) if only in each.name or each.name.startswith(CONNTRACK)]
        built = [build(variant, stack) for variant in todo]
        stack.enter_context(accepting([listener for _, listener in built]))
        for client, _ in built:
            wait_for(lambda client=client: reachable(client), "a first connection", 10.0)  # type: ignore[misc]
        order = random.Random(1)
        pairs = list(zip(todo, built, strict=True))
        for turn in range(rounds):
            for variant, (client, _) in order.sample(pairs, len(pairs)):
                variant.times.append(time_of(client))
            if turn % 50 == 49:
                print(f"  {turn + 1} of {rounds} rounds", flush=True)
    base = next(variant.times for variant in todo if variant.name == CONNTRACK)
    draws = [[order.randrange(rounds) for _ in range(rounds)] for _ in range(_DRAWS)]
    rows = []
    for variant in todo:
        ratios = [of / time for of, time in zip(base, variant.times, strict=True)]
        added = [time - of for of, time in zip(base, variant.times, strict=True)]
        rows.append(
            {
                "what": variant.name,
                "rules": "" if variant.policies is None else variant.policies,
                "us": round(p50(variant.times), 1),
                "of conntrack alone": f"{p50(ratios):.3f}x",
                "+-": f"{_error(ratios, draws):.3f}",
                "us more": f"{p50(added):.2f} +- {_error(added, draws):.2f}",
            }
        )
    show("Connections through a pod's policy", rows)


def _error(values: Sequence[float], draws: Sequence[Sequence[int]]) -> float:
    """The standard error of their median."""
    return statistics.pstdev(p50([values[i] for i in draw]) for draw in draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--only", default="", help="variants with this in their name, and the baseline")
    parser.add_argument("--accept", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.accept:
        accept(options.accept)
    assert os.geteuid() == 0, "network namespaces need root"
    run(options.rounds, options.sizes, options.only)


if __name__ == "__main__":
    main()
