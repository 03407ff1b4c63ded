"""Connections per second through a pod's policy, against no filter, conntrack alone, and linear iptables.

    python -m benchmarks.connections [--rounds 80]

Each variant has three namespaces of its own: a client, a node that forwards, a server behind the node's pod link. The
table on the node is made by the agent's own model and driver. All policies allow one port from a group of addresses:

    others, N    the pod has one policy; N others exist on the node and govern other pods
    selects, N   N policies govern the pod, and only the last of them lets the client in: the worst order there is
    iptables, N  the same N decisions as a linear chain of iptables-legacy, established connections accepted first

A round is a fraction of a second of connecting (handshake, then reset) in every variant, in an order that changes. The
ratio is the median over rounds of the variant's rate over that of conntrack alone in the same round; "at its best"
compares the 90th percentiles of the rates, which other work on the machine disturbs least. Needs root.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.figures import p50, show
from benchmarks.nft_member import NODE, members, policy
from benchmarks.nft_member import pod as plug
from bus_schemas.ids import PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, TierRules
from bus_schemas.subjects import ATTACHMENT, Fact
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import PolicyTable
from tests.support.netns import Namespace, namespaces, veth, wait_for

SIZES = (1, 100, 1000)
MEMBERS = 100
SLICE_S = 0.06
PORT = 80
LINK = "tor00000000aaa"
SERVER = "10.200.2.2"
CLIENT = "10.200.0.7"
"""The seventh member of every group of `nft_member`; `stranger` groups leave it out."""
CONNTRACK = "conntrack alone"
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Variant:
    name: str
    policies: int | None
    prepare: Callable[[Namespace], None]
    rates: list[float] = field(default_factory=list)


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


def table(others: int, selecting: int) -> Callable[[Namespace], None]:
    """The pod under `selecting` policies, and that many others elsewhere."""

    def prepare(node: Namespace) -> None:
        model = PolicyTable()
        for n in range(selecting):
            last = n == selecting - 1
            model.apply(policy(n))
            model.apply(members(n, range(MEMBERS) if last else range(1000, 1000 + MEMBERS)))
        pod = PodKey("bench", "server")
        model.set_endpoint(pod, LINK, (SERVER,), "container")
        tier = TierRules(tier="default", rules=tuple(RulesId(f"policy-{n}") for n in range(selecting)))
        message = Attachment(
            node=NODE,
            namespace=pod.namespace,
            name=pod.name,
            container="container",
            ingress=Direction(tiers=(tier,), default="allow"),
            egress=Direction(default="allow"),
        )
        model.apply(Fact(ATTACHMENT, (NODE, *pod), message))
        for n in range(selecting, selecting + others):
            model.apply(policy(n))
            model.apply(members(n, range(MEMBERS)))
            plug(model, n, n)
        transaction = model.whole()
        with node.inside(), NftDriver() as driver:
            driver.commit(transaction)

    return prepare


def iptables(rules: int) -> Callable[[Namespace], None]:
    def prepare(node: Namespace) -> None:
        lines = ["-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", f"-A FORWARD -o {LINK} -j pod"]
        lines += [
            f"-A pod -s 10.{201 + (n >> 8)}.{n & 255}.0/28 -p tcp -m tcp --dport {PORT} -j ACCEPT"
            for n in range(rules - 1)
        ]
        lines += [f"-A pod -s {CLIENT}/32 -p tcp -m tcp --dport {PORT} -j ACCEPT", "-A pod -j DROP"]
        text = "\n".join(["*filter", ":FORWARD ACCEPT [0:0]", ":pod - [0:0]", *lines, "COMMIT", ""])
        node.run("iptables-legacy-restore", text=text)

    return prepare


def variants() -> list[Variant]:
    made = [Variant("no rules, no conntrack", None, nothing), Variant(CONNTRACK, None, conntrack)]
    made.append(Variant("conntrack and a masquerade rule", None, address_translation))
    made += [Variant("tortie, others", n, table(n, 1)) for n in SIZES]
    made += [Variant("tortie, selects", n, table(0, n)) for n in SIZES]
    if shutil.which("iptables-legacy-restore"):
        made += [Variant("iptables-legacy, selects", n, iptables(n)) for n in SIZES]
    return made


def build(variant: Variant, stack: ExitStack) -> tuple[Namespace, socket.socket]:
    """The client's namespace and the server's listener."""
    client, node, server = stack.enter_context(namespaces(3))
    veth(client, "eth0", node, "up0", addresses=(f"{CLIENT}/24", "10.200.0.1/24"))
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


def rate(client: Namespace, seconds: float) -> float:
    """Connections per second."""
    with client.inside():
        began = time.perf_counter()
        number = 0
        while (spent := time.perf_counter() - began) < seconds:
            connect()
            number += 1
    return number / spent


def reachable(client: Namespace) -> bool:
    try:
        client.call(connect)
    except OSError:
        return False
    return True


def best(rates: list[float]) -> float:
    """The 90th percentile."""
    return sorted(rates)[len(rates) * 9 // 10]


def run(rounds: int) -> None:
    with ExitStack() as stack:
        todo = variants()
        built = [build(variant, stack) for variant in todo]
        stack.enter_context(accepting([listener for _, listener in built]))
        for client, _ in built:
            wait_for(lambda client=client: reachable(client), "a first connection", 10.0)  # type: ignore[misc]
        order = random.Random(1)
        pairs = list(zip(todo, built, strict=True))
        for turn in range(rounds):
            for variant, (client, _) in order.sample(pairs, len(pairs)):
                variant.rates.append(rate(client, SLICE_S))
            if turn % 20 == 19:
                print(f"  {turn + 1} of {rounds} rounds", flush=True)
    base = next(variant.rates for variant in todo if variant.name == CONNTRACK)
    rows = []
    for variant in todo:
        ratios = sorted(rate / of for rate, of in zip(variant.rates, base, strict=True))
        added = p50(1e6 / rate - 1e6 / of for rate, of in zip(variant.rates, base, strict=True))
        rows.append(
            {
                "what": variant.name,
                "policies": "" if variant.policies is None else variant.policies,
                "connections/s": round(p50(variant.rates)),
                "of conntrack alone": f"{p50(ratios):.2f}x",
                "quartiles": f"{ratios[len(ratios) // 4]:.2f} - {ratios[len(ratios) * 3 // 4]:.2f}",
                "at its best": f"{best(variant.rates) / best(base):.2f}x",
                "us more per connection": round(added, 1),
            }
        )
    show("Connections through a pod's policy", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--accept", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.accept:
        accept(options.accept)
    assert os.geteuid() == 0, "network namespaces need root"
    run(options.rounds)


if __name__ == "__main__":
    main()
