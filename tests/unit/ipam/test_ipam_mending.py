"""Records that cannot be read any more are told from the others, and nothing is given twice meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.ipam import Assigned, Block, Busy, Handle
from bus_schemas.subjects import AFFINITY, BLOCK, HANDLE, Fact, Family, Key
from tests.support.ipam import START, Replica, Store, affinities, ask, check_store, cluster, node, pool

FOUR = pool("p", "10.0.0.0/24", block_size=28)
FAMILIES = [BLOCK, AFFINITY, HANDLE]


def assigned(ipam: Replica, *handles: str, on: str = "n1") -> list[str]:
    replies = ipam.answer(*(ask(handle, on) for handle in handles))
    return [address for reply in replies if isinstance(reply, Assigned) for address in reply.addresses]


def garble(store: Store, replica: Replica, family: Family[Any], key: Key) -> None:
    """Bytes that are no message take the place of the record, and the replica hears of it."""
    replica.catch_up()
    store.put(Fact(family, key, "garbage"))
    hear(store, replica, family, key)


def hear(store: Store, replica: Replica, family: Family[Any], key: Key) -> None:
    replica.skip()
    replica.core.cannot_read(family, key, store.get(family, key).sequence, "it is garbage")


def keys(store: Store, family: Family[Any]) -> list[Key]:
    return [key for found, key in store.existing() if found is family]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_is_mended_to_what_it_was(family: Family[Any]) -> None:
    store, [ipam] = cluster(FOUR, node("n1"), node("n2"))
    assigned(ipam, "a", "b", "c")
    assigned(ipam, "d", on="n2")
    before = {(f, k): store.get(f, k).value for f, k in store.existing() if f in FAMILIES}
    for key in keys(store, family):
        garble(store, ipam, family, key)
        assert ipam.core.faults
        ipam.repair()
        assert not ipam.core.faults
    assert {(f, k): store.get(f, k).value for f, k in store.existing() if f in FAMILIES} == before


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_restarted_replica_tells_it_from_the_others(family: Family[Any]) -> None:
    store, [ipam] = cluster(FOUR, node("n1"), node("n2"))
    assigned(ipam, "a", "b", "c")
    assigned(ipam, "d", on="n2")
    before = check_store(store), affinities(store)
    key = keys(store, family)[0]
    good = store.get(family, key).value
    store.put(Fact(family, key, "garbage"))
    fresh = Replica(Store())
    for known, at in store.existing():
        if (known, at) != (family, key):
            fresh.core.apply(store.get(known, at))
    fresh.store = store
    hear(store, fresh, family, key)
    fresh.repair(START + 1.0)
    assert (check_store(store), affinities(store)) == before
    now = store.get(family, key).value
    if isinstance(good, Block):
        assert (now.node, now.pool, now.allocations) == (good.node, good.pool, good.allocations)
        assert now.sequence > good.sequence
    elif isinstance(good, Handle):
        assert (now.node, now.use, now.addresses, now.sequences) == (
            good.node,
            good.use,
            good.addresses,
            good.sequences,
        )
    given = assigned(fresh, "e")
    assert not set(given) & set(before[0])


def test_nothing_is_mended_from_what_cannot_be_read_either() -> None:
    store, [ipam] = cluster(FOUR, node("n1"))
    [address] = assigned(ipam, "a")
    [block], [handle] = keys(store, BLOCK), keys(store, HANDLE)
    garble(store, ipam, BLOCK, block)
    garble(store, ipam, HANDLE, handle)
    ipam.repair()
    assert {family for family, _ in ipam.core.faults} == {BLOCK, HANDLE}
    assert assigned(ipam, "b") != [address]
    assert isinstance(ipam.core.decide([ask("a")], START).replies[0], Busy)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        (BLOCK, ("10.0.0.240/28",)),
        (BLOCK, ("nonsense",)),
        (AFFINITY, ("n1", "10.0.0.240/28")),
        (AFFINITY, ("n1", "nonsense")),
        (HANDLE, ("nobody",)),
    ],
)
def test_what_never_was_is_removed(family: Family[Any], key: Key) -> None:
    store, [ipam] = cluster(FOUR, node("n1"))
    assigned(ipam, "a")
    garble(store, ipam, family, key)
    ipam.repair()
    assert store.get(family, key).value is None
    assert not ipam.core.faults


def test_another_writer_may_have_mended_it() -> None:
    store, [ipam, other] = cluster(FOUR, node("n1"), replicas=2)
    assigned(ipam, "a")
    [key] = keys(store, BLOCK)
    other.catch_up()
    garble(store, ipam, BLOCK, key)
    hear(store, other, BLOCK, key)
    ipam.repair()
    other.catch_up()
    other.repair()
    assert not other.core.faults
    check_store(store)
