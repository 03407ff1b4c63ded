"""What happens between two flushes, and long histories: the table must neither break nor stay what it was, and it must
be written as a restarted agent would write it, which else could not adopt it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from bus_schemas.ids import GroupId, NodeName
from bus_schemas.policy import Direction, Group, HostAttachment, Match, Rule, TierRules
from bus_schemas.subjects import GROUP, HOST_ATTACHMENT, Fact
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.nft.transaction import Command, Elements
from tests.support.compiled_policy import CompiledPolicy
from tests.support.compiled_policy import Packet as Naive
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.nft_worlds import (
    NODE,
    TCP,
    UDP,
    attach,
    detach,
    direction,
    group,
    groups,
    link,
    no_group,
    no_rules,
    plug,
    pod,
    ports,
    rules,
    settle,
    tell,
    tier,
)

PEERS = tuple(f"s:{name}" for name in "abcdef")


def from_group(id_: str, port: int = 80, action: str = "allow") -> Rule:
    return Rule(
        action=action,  # type: ignore[arg-type]
        protocol=TCP,
        source=Match(groups=groups(id_)),
        destination=Match(ports=ports(port)),
    )


def segment(fact: Fact, *nets4: tuple[int, ...]) -> Fact:
    """A segment of a group with networks as well."""
    value = fact.value
    assert isinstance(value, Group)
    packed = b"".join(sorted(map(bytes, nets4)))
    more = Group(v4=value.v4, v6=value.v6, nets4=packed, segments=value.segments, selector=value.selector)
    return Fact(GROUP, fact.key, more)


def afresh(*facts: Fact) -> Nftables:
    """What an agent that starts now would write."""
    table, kernel = PolicyTable(), Nftables()
    plug(table, "a", "10.9.9.9")
    tell(table, *facts)
    settle(table, kernel)
    return kernel


@pytest.fixture
def node() -> tuple[PolicyTable, Nftables]:
    table, kernel = PolicyTable(), Nftables()
    plug(table, "a", "10.9.9.9")
    settle(table, kernel)
    return table, kernel


def test_a_group_that_is_told_twice_before_it_is_written(node: tuple[PolicyTable, Nftables]) -> None:
    table, kernel = node
    given = [attach("a", ingress=direction(tier("p"))), rules("p", [from_group("s:a"), from_group("s:a", 81, "deny")])]
    tell(table, *given)
    settle(table, kernel)
    tell(table, group("s:a", "10.0.0.1"), group("s:a", "10.0.0.2"), group("s:a", "10.0.0.3"))
    settle(table, kernel)
    assert kernel.snapshot() == afresh(*given, group("s:a", "10.0.0.3")).snapshot()


def test_a_member_comes_with_the_first_network_and_goes_before_both_are_written(
    node: tuple[PolicyTable, Nftables],
) -> None:
    table, kernel = node
    given = [attach("a", ingress=direction(tier(*PEERS)))]
    given += [rules(id_, [from_group(id_)]) for id_ in PEERS]
    given += [group(id_, "10.0.0.7") for id_ in PEERS[1:]]
    tell(table, *given, group("s:a"))
    settle(table, kernel)
    tell(table, segment(group("s:a", "10.0.0.7"), (10, 1, 0, 0, 16)), segment(group("s:a"), (10, 1, 0, 0, 16)))
    settle(table, kernel)
    assert kernel.snapshot() == afresh(*given, segment(group("s:a"), (10, 1, 0, 0, 16))).snapshot()


@pytest.mark.parametrize("following", ["allow", "deny"])
def test_a_pass_that_was_closed_passes_once_its_group_is_known(
    following: str, node: tuple[PolicyTable, Nftables]
) -> None:
    table, kernel = node
    given = [
        attach("a", ingress=direction(tier("p", "q", name="first"), tier("r", name="second"))),
        rules("p", [from_group("s:a", action="pass")]),
        rules("q", [Rule(action=following)]),  # type: ignore[arg-type]
        rules("r", [Rule(action="deny" if following == "allow" else "allow")]),
    ]
    tell(table, *given)
    settle(table, kernel)
    tell(table, group("s:a", "10.0.0.1"))
    settle(table, kernel)
    seen = Packet("10.0.0.1", "10.9.9.9", TCP, 80, out_link=link("a"))
    assert kernel.send(seen).accepted is (following == "deny")
    assert kernel.snapshot() == afresh(*given, group("s:a", "10.0.0.1")).snapshot()


def test_merged_rules_that_begin_to_deny_are_another_map(node: tuple[PolicyTable, Nftables]) -> None:
    """A map's data are counters or chains from its first day to its last."""
    table, kernel = node
    tell(table, attach("a", ingress=direction(tier("p"))), *(group(id_, "10.0.0.1") for id_ in PEERS))
    seen: dict[str, set[str]] = {}
    for action in ("allow", "deny", "allow"):
        tell(table, rules("p", [from_group(id_, action=action) for id_ in PEERS]))
        settle(table, kernel)
        seen[action] = {name for name in kernel.sets if name.startswith("m_")}
    assert seen["allow"]
    assert not seen["allow"] & seen["deny"]


def test_the_last_host_endpoint_goes_while_a_device_comes() -> None:
    table, kernel = PolicyTable(), Nftables()
    settle(table, kernel)
    bare = kernel.snapshot()
    key = (NODE, "host")
    governed = HostAttachment(node=NODE, name="host", interface="eth0", ingress=direction(tier("p")))
    tell(table, Fact(HOST_ATTACHMENT, key, governed))
    settle(table, kernel)
    assert kernel.snapshot() != bare
    tell(table, Fact(HOST_ATTACHMENT, key, None))
    assert table.set_devices({"eth1": frozenset()})
    settle(table, kernel)
    assert kernel.snapshot() == bare


def test_what_was_never_written_leaves_nothing(node: tuple[PolicyTable, Nftables]) -> None:
    table, kernel = node
    empty = sizes(table)
    for number in range(20):
        id_ = f"s:{number}"
        tell(table, attach("a", ingress=direction(tier("p"))), rules("p", [from_group(id_)]), group(id_, "10.0.0.1"))
        table.wanted()
        tell(table, detach("a"))
        table.wanted()
        settle(table, kernel)
    tell(table, no_rules("p"), *(no_group(f"s:{number}") for number in range(20)))
    table.wanted()
    assert sizes(table) == empty


def sizes(table: PolicyTable) -> dict[str, int]:
    """Of every collection that it holds, at whatever depth."""
    found: dict[str, int] = {}

    def measure(where: str, thing: Any) -> None:
        if isinstance(thing, dict | set | frozenset):
            found[where] = len(thing)
        elif type(thing).__module__.startswith("services.node_dataplane.nft") and hasattr(thing, "__dict__"):
            for name, value in vars(thing).items():
                measure(f"{where}.{name}", value)

    measure("table", table)
    return {where: size for where, size in found.items() if not where.endswith((".denials", "_programmed"))}


# --- long histories

ADDRESSES4 = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2", "172.16.0.1")
ADDRESSES6 = ("fd00::1", "fd00::2", "fd01::1")
BLOCKS = (("10.0.0.0/24",), ("10.0.0.0/8", "172.16.0.0/12"), ("0.0.0.0/0",), ("fd00::/64",), ("::/0",), ())
NETWORKS = ((10, 0, 0, 0, 24), (10, 0, 0, 0, 8), (0, 0, 0, 0, 0), (172, 16, 0, 0, 12))
POLICIES = tuple(f"p{number}" for number in range(5))


class History:
    """Random changes as the compiler tells them: groups are split and joined in its order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._segments = dict.fromkeys(PEERS, 1)
        self.begin: list[list[Fact]] = [[attach("a", self._direction(), self._direction())]]
        self.begin += [[rules(id_, self._rules(), self._rules())] for id_ in POLICIES]
        self.begin += [[self._segment(id_, 0, 1)] for id_ in PEERS]

    def change(self) -> list[Fact]:
        pick = self._random
        kind = pick.random()
        if kind < 0.6:
            return self._members(pick.choice(PEERS))
        if kind < 0.9:
            return [rules(pick.choice(POLICIES), self._rules(), self._rules())]
        return [no_rules(pick.choice(POLICIES))] if kind < 0.92 else [attach("a", self._direction(), self._direction())]

    def packet(self) -> Naive:
        pick = self._random
        addresses = pick.choice((ADDRESSES4, ADDRESSES6))
        return Naive(
            pick.choice(addresses), pick.choice(addresses), pick.choice((TCP, UDP, 132)), pick.choice((0, 80, 90, 7))
        )

    def _members(self, id_: str) -> list[Fact]:
        pick, before = self._random, self._segments[id_]
        if before == 0 or pick.random() < 0.8:
            self._segments[id_] = before or 1
            return [self._segment(id_, pick.randrange(before or 1), before or 1)]
        self._segments[id_] = after = pick.choice((0, 1, 2))
        if after == 2:
            return [self._segment(id_, 1, 2), self._segment(id_, 0, 2)]
        rest = [no_group(id_, 1)] if before == 2 else []
        return [self._segment(id_, 0, 1) if after else no_group(id_, 0), *rest]

    def _segment(self, id_: str, number: int, of: int) -> Fact:
        pick = self._random
        members = pick.sample(ADDRESSES4, pick.randint(0, 3)) + pick.sample(ADDRESSES6, pick.randint(0, 2))
        nets = pick.sample(NETWORKS, pick.choice((0, 0, 0, 1, 2)))
        return segment(group(id_, *members, segment=number, segments=of), *nets)

    def _direction(self) -> Direction:
        pick = self._random
        tiers = tuple(
            tier(*pick.sample(POLICIES, pick.randint(1, 4)), name=f"t{number}", default=pick.choice(("deny", "pass")))
            for number in range(pick.randint(1, 3))
        )
        preview: tuple[TierRules, ...] | None = tiers[:1] if pick.random() < 0.2 else None
        return Direction(tiers=tiers, default=pick.choice(("allow", "deny")), preview=preview)

    def _rules(self) -> list[Rule]:
        pick = self._random
        action = pick.choice(("allow", "allow", "deny", None))
        return [self._rule(action) for _ in range(pick.choice((1, 2, 3, 6, 8)))]

    def _rule(self, action: str | None) -> Rule:
        pick = self._random
        protocol = pick.choice((TCP, TCP, UDP, None))
        some = pick.choice(((), ports(80), ports(81), ports((80, 100)), ports(0, 65535))) if protocol else ()
        peer = pick.choice(
            (
                Match(groups=(GroupId(pick.choice(PEERS)),)),
                Match(groups=(GroupId(pick.choice(PEERS)),)),
                Match(nets=pick.choice(BLOCKS[:-1]), not_nets=pick.choice(BLOCKS)),
                Match(not_groups=(GroupId(pick.choice(PEERS)),)),
                Match(),
            )
        )
        return Rule(
            action=action or pick.choice(("allow", "deny", "pass", "log")),  # type: ignore[arg-type]
            ip_version=pick.choice((None, None, None, 4, 6)),
            protocol=protocol,
            source=peer,
            destination=Match(ports=some),
            index=pick.randrange(3),
        )


@pytest.mark.parametrize("seed", range(12))
def test_a_long_history_is_written_as_its_end_would_be_at_once(seed: int) -> None:
    history = History(seed)
    pick = random.Random(seed)
    table, kernel, naive = PolicyTable(), Nftables(), CompiledPolicy()
    plug(table, "a", "10.9.9.9")
    facts: dict[Any, Fact] = {}
    for step in range(100):
        changes = history.begin if step == 0 else [history.change() for _ in range(pick.randint(1, 3))]
        for fact in (fact for change in changes for fact in change):
            table.apply(fact)
            naive.learn(fact)
            facts[fact.family, fact.key] = fact
        packets = [history.packet() for _ in range(5)]
        before = [accepts(kernel, packet) for packet in packets]
        allowed = [naive.allows("ingress", (NodeName(NODE), *pod("a")), packet) for packet in packets]
        transaction = table.flush().transaction
        if transaction is not None:
            kernel.run(spelled(transaction.ahead))
            assert [accepts(kernel, packet) for packet in packets] == before, "nobody is led to what goes ahead"
            kernel.run(spelled(transaction.commands))
            between = [accepts(kernel, packet) for packet in packets]
            for was, now, may in zip(before, between, allowed, strict=True):
                assert now == may or not (was or now), "what goes behind can only deny what was denied"
            kernel.run(spelled(transaction.behind))
            table.committed(transaction)
        assert kernel.snapshot() == afresh(*facts.values()).snapshot()
        assert [accepts(kernel, packet) for packet in packets] == allowed


def spelled(commands: Sequence[Command]) -> str:
    return "".join(f"{command}\n" for command in commands)


def accepts(kernel: Nftables, packet: Naive) -> bool:
    seen = Packet(packet.source, packet.destination, packet.protocol, packet.port, out_link=link("a"))
    return kernel.send(seen).accepted


def test_a_new_map_with_intervals_is_whole_before_anybody_looks_into_it(node: tuple[PolicyTable, Nftables]) -> None:
    """The kernel fills it after it has switched to the rules of the same transaction."""
    table, kernel = node

    def blocks(more: str) -> Fact:
        denied = [Match(nets=(f"10.{n}.0.0/16",), not_nets=(f"10.{n}.{more}.0/24",)) for n in range(6)]
        high = Match(ports=ports((1024, 65535)))  # Too many for hash maps.
        return rules("p", [Rule(action="deny", protocol=TCP, source=match, destination=high) for match in denied])

    tell(table, attach("a", ingress=direction(tier("p"))), blocks("7"))
    settle(table, kernel)
    tell(table, blocks("8"))
    transaction = table.flush().transaction
    assert transaction is not None
    (chain,) = (name for name in kernel.chains if name.startswith("to_"))
    assert {command.set for command in transaction.ahead if isinstance(command, Elements)} == {
        *map_names(transaction.ahead)
    }
    assert not any(chain in str(command) for command in transaction.ahead)
    assert not any(isinstance(command, Elements) for command in transaction.commands)


def test_what_is_looked_up_no_more_stays_denied_until_its_own_rule_is_there(node: tuple[PolicyTable, Nftables]) -> None:
    """A packet on its way while the kernel switches sees the old rules, and the elements without the one that went."""
    table, kernel = node
    denied = [from_group(id_, action="deny") for id_ in PEERS]
    unlike = Rule(
        action="deny", protocol=TCP, source=Match(groups=groups(PEERS[-1])), destination=Match(not_ports=ports(7))
    )
    tell(table, *(group(id_, f"10.0.0.{number}") for number, id_ in enumerate(PEERS)))
    tell(table, rules("p", denied), attach("a", ingress=direction(tier("p"))))
    settle(table, kernel)
    tell(table, rules("p", [*denied[:-1], unlike]))
    transaction = table.flush().transaction
    assert transaction is not None
    assert not any(isinstance(command, Elements) and command.verb == "delete" for command in transaction.commands)
    (lifted,) = (command for command in transaction.behind if isinstance(command, Elements))
    assert lifted.verb == "delete"
    assert len(lifted.rows) == 1


def map_names(commands: Sequence[Command]) -> set[str]:
    return {str(command).split()[4] for command in commands if str(command).startswith("add map ")}


def test_a_map_leads_to_chains_that_are_there_and_goes_when_nobody_looks_into_it(
    node: tuple[PolicyTable, Nftables],
) -> None:
    """A packet on its way while the kernel switches sees the old rules and the new elements."""
    table, kernel = node
    tell(table, *(group(id_, "10.0.0.1") for id_ in PEERS), rules("p", [from_group(id_) for id_ in PEERS]))
    tell(
        table, rules("q", [from_group(id_, action="deny") for id_ in PEERS]), attach("a", ingress=direction(tier("p")))
    )
    settle(table, kernel)
    old = {name for name in (*kernel.chains, *kernel.sets) if name.startswith(("to_", "m_"))}
    tell(table, attach("a", ingress=direction(tier("q"))))
    transaction = table.flush().transaction
    assert transaction is not None
    made = {
        str(command).split()[4] for command in transaction.ahead if str(command).startswith(("add chain", "add map"))
    }
    gone = {str(command).split()[4] for command in transaction.behind if str(command).startswith("delete ")}
    assert {name[:2] for name in made} >= {"to", "m_"}
    assert old <= gone
    assert {command.set for command in transaction.commands if isinstance(command, Elements)} == {"pods_to"}
