"""Both ends on one node, where one base chain asks the sender's egress rules and then the receiver's ingress rules:
random worlds with tiers, passes, profiles and previews, and a host endpoint of all devices that governs what is
forwarded. What arrives is what the naive verdicts of all directions together say.

pod a --- tora [ node ] torb --- pod b
"""

from __future__ import annotations

import itertools
import random
import select
import socket
from collections.abc import Collection, Iterator
from contextlib import ExitStack

import msgspec
import pytest

from bus_schemas.ids import RulesId
from bus_schemas.policy import Direction, Match, Rule, TierRules
from bus_schemas.subjects import Fact
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import PolicyTable
from tests.support.compiled_policy import CompiledPolicy, Packet, Way
from tests.support.host_worlds import host, hosted
from tests.support.netns import Namespace, bind_udp, namespaces, veth
from tests.support.nft_worlds import NODE, OPEN, UDP, attach, direction, group, groups, link, plug, ports, rules, tier

pytestmark = pytest.mark.root

ADDRESSES = {"a": ("10.244.0.1", "fd00::1"), "b": ("10.244.0.2", "fd00::2")}
MAC = "ee:ee:ee:ee:ee:ee"
PORTS = (5000, 5001, 5002)
STEPS = 40
ARRIVED_S = 0.02
POLICIES = tuple(f"p{number}" for number in range(10))
GROUPS = ("s:a", "s:b", "s:both", "s:moving")
NETS = ("10.244.0.1/32", "10.244.0.2/32", "10.244.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd00::/64", "fd00::1/128")
HOLES = ("10.244.0.1/32", "10.244.0.0/30")


class History:
    def __init__(self, seed: int) -> None:
        self._pick = random.Random(seed)

    def begin(self) -> Iterator[Fact]:
        yield from (group("s:a", *ADDRESSES["a"]), group("s:b", *ADDRESSES["b"]), self._moving())
        yield group("s:both", *ADDRESSES["a"], *ADDRESSES["b"])
        yield from map(self._rules, POLICIES)
        yield from map(self._attachment, ADDRESSES)
        yield self._host()

    def change(self) -> Fact:
        number = self._pick.random()
        if number < 0.5:
            return self._rules(self._pick.choice(POLICIES))
        if number < 0.75:
            return self._attachment(self._pick.choice("ab"))
        return self._host() if number < 0.85 else self._moving()

    def _moving(self) -> Fact:
        return group("s:moving", *self._pick.sample([*ADDRESSES["a"], *ADDRESSES["b"], "192.0.2.1"], 2))

    def _rules(self, id_: str) -> Fact:
        return rules(id_, self._several("ingress"), self._several("egress"))

    def _several(self, way: Way) -> list[Rule]:
        actions = self._pick.choice((("allow",), ("deny",), ("allow", "deny"), ("allow", "deny", "pass", "log")))
        return [self._rule(way, self._pick.choice(actions)) for _ in range(self._pick.choice((0, 1, 2, 3, 6, 12)))]

    def _rule(self, way: Way, action: str) -> Rule:
        peer = self._peer()
        source, destination = (peer, Match()) if way == "ingress" else (Match(), peer)
        listed = self._pick.choice(
            ((), ports(self._pick.choice(PORTS)), ports(*PORTS[:2]), ports((4900, 5000 + self._pick.randint(0, 2))))
        )
        return Rule(
            action=action,  # type: ignore[arg-type]
            protocol=UDP if listed or self._pick.random() < 0.5 else None,
            source=source,
            destination=msgspec.structs.replace(destination, ports=listed),
        )

    def _peer(self) -> Match:
        number = self._pick.random()
        if number < 0.2:
            return Match()
        if number < 0.6:
            return Match(groups=groups(self._pick.choice(GROUPS)))
        if number < 0.7:
            return Match(not_groups=groups(self._pick.choice(GROUPS)))
        nets = self._pick.sample(NETS, self._pick.randint(1, 3))
        return Match(nets=tuple(nets), not_nets=tuple(self._pick.sample(HOLES, self._pick.choice((0, 0, 1)))))

    def _attachment(self, name: str) -> Fact:
        return attach(name, self._direction(), self._direction())

    def _direction(self) -> Direction:
        return Direction(
            tiers=self._tiers(),
            default=self._pick.choice(("allow", "allow", "deny")),
            profiles=tuple(map(RulesId, self._pick.sample(POLICIES, self._pick.choice((0, 0, 2))))),
            preview=self._tiers() if self._pick.random() < 0.3 else None,
        )

    def _tiers(self) -> tuple[TierRules, ...]:
        chosen = self._pick.sample(POLICIES, self._pick.randint(0, 6))
        return tuple(
            tier(*chosen[at : at + 2], name=f"t{at}", default=self._pick.choice(("deny", "pass")))
            for at in range(0, len(chosen), 2)
        )

    def _host(self) -> Fact:
        enters, leaves = (self._direction() if self._pick.random() < 0.3 else direction() for _ in range(2))
        return hosted(host("all", "*", ingress=OPEN, egress=OPEN, forward_ingress=enters, forward_egress=leaves))


def connect(node: Namespace, pods: dict[str, Namespace]) -> None:
    node.forward()
    for name, pod in pods.items():
        (other,) = pods.keys() - {name}
        veth(node, link(name), pod, "eth0")
        node.ip("link", "set", link(name), "address", MAC)
        for own, far in zip(ADDRESSES[name], ADDRESSES[other], strict=True):
            node.ip("route", "add", own, "dev", link(name))
            pod.ip("address", "add", own, "dev", "eth0", *(("nodad",) if ":" in own else ()))
            pod.ip("route", "add", far, "dev", "eth0")
            pod.ip("neighbour", "add", far, "lladdr", MAC, "dev", "eth0")


def allowed(said: CompiledPolicy, source: str, destination: str, packet: Packet) -> bool:
    return (
        said.allows("egress", (NODE, "default", source), packet)
        and said.allows("ingress", (NODE, "default", destination), packet)
        and said.host_allows("forward_ingress", (NODE, "all"), packet)
        and said.host_allows("forward_egress", (NODE, "all"), packet)
    )


@pytest.mark.parametrize("seed", range(2))
def test_every_direction_is_asked(seed: int) -> None:
    history, said, table = History(seed), CompiledPolicy(), PolicyTable()
    with namespaces(3) as (node, a, b), ExitStack() as stack:
        pods = {"a": a, "b": b}
        connect(node, pods)
        driver = stack.enter_context(node.call(NftDriver))
        sockets = {
            (name, address, port): stack.enter_context(bind_udp(pods[name], address, port))
            for name in pods
            for address in ADDRESSES[name]
            for port in PORTS
        }
        for name in pods:
            plug(table, name, *ADDRESSES[name])
        for step in range(STEPS):
            for fact in history.begin() if step == 0 else [history.change() for _ in range(2)]:
                table.apply(fact)
                said.learn(fact)
            transaction = table.flush().transaction
            if transaction is not None:
                driver.commit(transaction)
                table.committed(transaction)
            ways = [
                (source, destination, family, port)
                for source, destination in itertools.permutations(pods)
                for family in range(2)
                for port in PORTS
            ]
            with ExitStack() as senders:
                expected = set()
                for number, (source, destination, family, port) in enumerate(ways):
                    near, far = ADDRESSES[source][family], ADDRESSES[destination][family]
                    sender = senders.enter_context(bind_udp(pods[source], near, 0))
                    sender.sendto(bytes((step, number)), (far, port))
                    packet = Packet(near, far, UDP, port, sender.getsockname()[1])
                    if allowed(said, source, destination, packet):
                        expected.add(number)
                seen = arrived(sockets.values(), step, expected)
            assert {ways[number] for number in seen} == {ways[number] for number in expected}, (seed, step)


def arrived(sockets: Collection[socket.socket], step: int, expected: set[int]) -> set[int]:
    """The numbers of this step's packets; those that should not come have a moment more to come."""
    seen: set[int] = set()
    while ready := select.select(list(sockets), [], [], ARRIVED_S if expected <= seen else 1.0)[0]:
        for each in ready:
            of_step, number = each.recv(2)
            if of_step == step:
                seen.add(number)
    return seen
