"""The core depends on current facts only: however a history is told, the same questions have the same answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus_schemas.ids import BlockCidr
from bus_schemas.ipam import Assigned
from bus_schemas.subjects import BLOCK, Fact
from services.ipam import desired, ledger
from services.ipam.core import Core, Request
from services.ipam.limits import Limits
from tests.support.expanders import EXPANDERS, Batches, Expander, World, world
from tests.support.ipam import START, Replica, Store, ask, cluster, give_back, namespace, node, pool, without

LIMITS = Limits(max_blocks_per_node=3)
A = pool("a", "10.0.0.0/28", block_size=30)
B = pool("b", "10.1.0.0/29", block_size=30, node_selector="zone == 'x'", vxlan_mode="Always")
SIX = pool("six", "fd00::/120", block_size=126)
N1, N2 = node("n1", zone="x"), node("n2")


def stored(store: Store) -> list[Fact]:
    """Everything that is there now."""
    latest = {(fact.family, fact.key): fact for fact in store.log}
    return [fact for fact in latest.values() if fact.value is not None]


def grown() -> list[World]:
    """A cluster's life: resources, then pods, then half of them gone, then a node and a pool gone."""
    store, [ipam] = cluster(A, B, SIX, N1, N2, namespace("web"), limits=LIMITS)
    worlds: list[World] = [stored(store)]
    ipam.answer(*(ask(f"h{i}", "n1") for i in range(6)), *(ask(f"i{i}", "n2", families=(4,)) for i in range(3)))
    worlds.append(stored(store))
    ipam.answer(*(give_back(f"h{i}") for i in range(0, 6, 2)))
    worlds.append(stored(store))
    ipam.commit(ipam.core.decide([ask("begun", "n2", addresses=("10.1.0.1",))], START))
    worlds.append(stored(store))
    for fact in (without(N1), without(B), node("n2", zone="x")):
        store.put(fact)
    worlds.append(stored(store))
    return worlds


HISTORY = grown()
BROKEN = [
    Fact(f.family, f.key, msgspec.structs.replace(f.value, cidr=BlockCidr("10.0.0.0/8")), 1)
    for f in HISTORY[-1]
    if f.family is BLOCK
][:1]


def told(batches: Batches) -> Core:
    """The core after the batches. Sequences rise as the bus would have it; a fact that is told twice keeps its own."""
    core = Core(LIMITS)
    sequence = 0
    last: dict[Any, tuple[Any, int]] = {}
    for batch in batches:
        for fact in batch:
            where = (fact.family, fact.key)
            value, known = last.get(where, (fact, 0))
            if value is not fact.value:
                sequence += 1
                known = sequence
            last[where] = (fact.value, known)
            core.apply(fact._replace(sequence=known))
        core.repairs(START)
    return core


def answers(core: Core) -> list[Any]:
    questions: list[list[Request]] = [
        [ask("h1", "n1"), ask("h0", "n1")],
        [ask(f"new{i}", "n2", families=(4,)) for i in range(20)],
        [ask("new", "n2", addresses=("10.0.0.3", "fd00::9"))],
        [give_back(f"h{i}") for i in range(6)],
        [ask("begun", "n2", addresses=("10.1.0.1",))],
    ]
    decisions = [core.decide(requests, START + 1000) for requests in questions] + [core.repairs(START)]
    return [
        (
            decision.replies,
            [(write.family.name, write.key, write.message) for write in decision.writes],
            {index: [fact.value for fact in facts] for index, facts in decision.rests_on.items()},
        )
        for decision in decisions
    ] + [dict(core.ledger.used), sorted(core.faults.values())]


@pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
@pytest.mark.parametrize("length", range(1, len(HISTORY) + 1))
def test_answers_depend_on_current_facts_only(tell: Expander, length: int) -> None:
    history = HISTORY[:length]
    assert answers(told(tell(history))) == answers(told(EXPANDERS["plain"](history)))


@pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
def test_a_senseless_block_is_left_alone_whenever_it_is_told(tell: Expander) -> None:
    history = [HISTORY[1], world(HISTORY[1], BROKEN)]
    core = told(tell(history))
    assert answers(core) == answers(told(EXPANDERS["plain"](history)))
    assert core.faults
    [key] = [fact.key[0] for fact in BROKEN]
    writes = core.decide([ask(f"x{i}", "n2", families=(4,)) for i in range(20)], START + 1000).writes
    assert key not in [token for write in writes for token in write.key]


def test_what_the_feed_tells_late_does_not_undo_our_own_writes() -> None:
    store, [ipam] = cluster(A, N1)
    first = ipam.answer(ask("one"))
    late = list(store.log)
    second = ipam.answer(ask("two"))
    for fact in late:
        ipam.core.apply(fact)
    assert ipam.answer(ask("one"), ask("two")) == [
        Assigned(addresses=reply.addresses, repeated=True) for reply in (*first, *second) if isinstance(reply, Assigned)
    ]


def test_a_restarted_replica_knows_what_the_first_knew() -> None:
    store, [ipam] = cluster(A, B, SIX, N1, N2, limits=LIMITS)
    ipam.answer(*(ask(f"h{i}") for i in range(6)))
    again = Replica(store, LIMITS)
    assert answers(again.core) == answers(ipam.core)


def test_what_is_gone_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "TOMBSTONES", 5)
    monkeypatch.setattr(desired, "REMEMBERED", 5)
    store, [ipam] = cluster(pool("all", "10.2.0.0/24", block_size=28))
    for i in range(20):
        store.put(node(f"gone-{i}"))
        ipam.catch_up()
        assert isinstance(ipam.answer(ask("h", f"gone-{i}"))[0], Assigned)
        ipam.answer(give_back("h"))
        store.put(without(node(f"gone-{i}")))
        ipam.catch_up()
        ipam.repair()
    known = {where for where in ((f.family, f.key) for f in store.log) if ipam.core.ledger.knows(*where)}
    assert len(known) == 5
    assert list(ipam.core.desired.gone_nodes) == [f"gone-{i}" for i in range(15, 20)]
    assert not store.values(BLOCK)
