"""Random clusters, edited at random: what the compiler wrote step by step is what it writes from scratch, however it is
told, it means what the manifests say, and so do the rules that the kernel would hold for it.

TORTIE_RANDOM_WORLDS says how many of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bus_schemas.ids import PodKey
from bus_schemas.subjects import ATTACHMENT, DIRECTION, GROUP, RULES, Fact
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from services.policy_compiler.core import Core
from services.policy_compiler.directions import LONGEST
from tests.support import nft_evaluator
from tests.support.broken_policies import BREAKABLE, broken
from tests.support.compiled_policy import CompiledPolicy, Packet, Way, facts_of
from tests.support.expanders import by_key
from tests.support.nft_evaluator import Nftables
from tests.support.nft_worlds import settle
from tests.support.oracle_world import Party
from tests.support.policy_oracle import STAGES, Oracle
from tests.support.random_worlds import NODES, OUTSIDE, edits


def packets(oracle: Oracle) -> list[Packet]:
    addresses = sorted({address for party in (*oracle.pods, *oracle.hosts) for address in party.addresses})
    found = []
    for version in (4, 6):
        family = [a for a in (*addresses, OUTSIDE[version]) if (":" in a) == (version == 6)]
        icmp = 1 if version == 4 else 58
        for source in family:
            for destination in family:
                if source != destination:
                    found += [Packet(source, destination, n, port) for n in (6, 17) for port in (53, 80)]
                    found += [Packet(source, destination, 6, 81), Packet(source, destination, 132, 80)]
                    found += [Packet(source, destination, icmp, 8), Packet(source, destination, icmp, 0, code=1)]
                    found.append(Packet(source, destination, 6, 9999, source_port=80))
    return found


EXAMPLES = int(os.environ.get("TORTIE_RANDOM_WORLDS", "100"))
"""How many worlds each test makes up."""
HARD = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


THRESHOLDS = st.sampled_from((LONGEST, 1, 0))
"""From how many rules on directions are shared: as it is, most of them, all that name any."""


def told(batches: list[list[Fact]], longest: int) -> tuple[Core, CompiledPolicy]:
    core, written = Core(longest_direction=longest), CompiledPolicy()
    for batch in batches:
        for fact in batch:
            core.apply(fact)
        written.take(core.flush())
        assert not written.complaints()
    return core, written


def last(batches: list[list[Fact]]) -> list[Fact]:
    return [fact for fact in by_key(fact for batch in batches for fact in batch).values() if fact.value is not None]


@HARD
@given(edits(), THRESHOLDS)
def test_edits(batches: list[list[Fact]], longest: int) -> None:
    """Step by step as from scratch, and both as the manifests say."""
    core, written = told(batches, longest)
    world = last(batches)
    fresh_core, fresh = told([list(reversed(world))], longest)
    assert written == fresh
    assert core.sizes == fresh_core.sizes
    assert core.faults == fresh_core.faults == []

    oracle = Oracle(world)
    assert {pod.key for pod in oracle.pods} == set(written.attachments)
    assert {host.key for host in oracle.hosts} == set(written.hosts)
    for packet in packets(oracle):
        for preview in (False, True):
            for way, pod_ in governed(oracle, packet):
                said = written.allows(way, pod_.key, packet, preview=preview)
                assert said == oracle.allows(way, pod_.key, packet, preview=preview), (
                    way,
                    packet,
                    pod_,
                    preview,
                    world,
                )
    for packet in packets(oracle)[::3]:
        for host in oracle.hosts:
            for stage in STAGES:
                said = written.host_allows(stage, host.key, packet)
                assert said == oracle.host_allows(stage, host.key, packet), (stage, packet, host, world)


def governed(oracle: Oracle, packet: Packet) -> Iterator[tuple[Way, Party]]:
    """Whose policy is asked about the packet, and which way."""
    for pod_ in oracle.pods:
        if packet.source in pod_.addresses:
            yield "egress", pod_
        if packet.destination in pod_.addresses:
            yield "ingress", pod_


@HARD
@given(edits(), THRESHOLDS, st.randoms(use_true_random=False))
def test_any_telling(batches: list[list[Fact]], longest: int, random: Random) -> None:
    """Repeated, shuffled, and split or squashed as it comes: the end is that of the last state."""
    _, expected = told([last(batches)], longest)
    latest = by_key(fact for batch in batches for fact in batch)
    facts = [fact for batch in batches for fact in batch]
    random.shuffle(facts)
    again = [*latest.values(), *latest.values()]
    random.shuffle(again)
    facts += again
    cuts = sorted(random.sample(range(len(facts)), k=min(5, len(facts))))
    pieces = [facts[a:b] for a, b in zip([0, *cuts], [*cuts, len(facts)], strict=True)]
    assert told(pieces, longest)[1] == expected


def kernel(batches: list[list[Fact]], longest: int) -> Nftables:
    """The first node's rules after these, which were there after each of them; without its host endpoints."""
    core = Core(longest_direction=longest)
    table, nft = PolicyTable(NodeRules(spoofing=True)), Nftables()
    for batch in batches:
        for fact in batch:
            core.apply(fact)
        for fact in facts_of(core.flush()):
            if fact.family in (GROUP, RULES, DIRECTION):
                table.apply(fact)
            if fact.family == ATTACHMENT and fact.key[0] == NODES[0]:
                table.apply(fact)
                key = PodKey(*fact.key[1:])
                if fact.value is None:
                    table.remove_endpoint(key)
                else:
                    link = f"tor{key.namespace}{key.name}"
                    table.set_endpoint(key, link, (), fact.value.container, sources=("0.0.0.0/0", "::/0"))
        settle(table, nft)
    return nft


def agrees(nft: Nftables, oracle: Oracle) -> None:
    for packet in packets(oracle):
        for way, pod_ in governed(oracle, packet):
            if pod_.key[0] == NODES[0]:
                outcome = nft.send(seen(packet, way, f"tor{pod_.key[1]}{pod_.key[2]}"))
                assert outcome.accepted == oracle.allows(way, pod_.key, packet), (way, packet, pod_, outcome)


@HARD
@given(edits(), THRESHOLDS)
def test_rendered(batches: list[list[Fact]], longest: int) -> None:
    """The rules in the kernel say what the manifests say, after every step of the history."""
    agrees(kernel(batches, longest), Oracle(last(batches)))


@HARD
@given(edits(), THRESHOLDS, st.data())
def test_broken(batches: list[list[Fact]], longest: int, data: st.DataObject) -> None:
    """What cannot be compiled is a drop of what it would have covered, in compiled policy and in the kernel's rules."""
    world = last(batches)
    places = [at for at, fact in enumerate(world) if isinstance(fact.value, BREAKABLE)]
    assume(places)
    at = data.draw(st.sampled_from(places))
    policy = data.draw(broken(world[at].value))
    oracle = Oracle([*world[:at], world[at]._replace(value=policy.meant), *world[at + 1 :]], policy.closed)
    history = [[*world[:at], world[at]._replace(value=policy.stored), *world[at + 1 :]]]
    core, written = told(history, longest)
    agrees(kernel(history, longest), oracle)
    assert core.faults or not policy.closed
    for packet in packets(oracle):
        for way, pod_ in governed(oracle, packet):
            said = written.allows(way, pod_.key, packet)
            assert said == oracle.allows(way, pod_.key, packet), (way, packet, pod_, policy)
    for packet in packets(oracle)[::3]:
        for host in oracle.hosts:
            for stage in STAGES:
                said = written.host_allows(stage, host.key, packet)
                assert said == oracle.host_allows(stage, host.key, packet), (stage, packet, host, policy)


def seen(packet: Packet, way: Way, link: str) -> nft_evaluator.Packet:
    return nft_evaluator.Packet(
        packet.source,
        packet.destination,
        packet.protocol,
        packet.port,
        packet.source_port,
        in_link=link if way == "egress" else "eth0",
        out_link=link if way == "ingress" else "eth0",
        icmp_type=packet.port,
        icmp_code=packet.code,
    )
