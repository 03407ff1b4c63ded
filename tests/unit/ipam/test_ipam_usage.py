"""What /metrics shows of the ledger."""

from __future__ import annotations

from prometheus_client import REGISTRY, generate_latest

from bus_schemas.ipam import Block, Handle
from bus_schemas.reserved import Reserved
from bus_schemas.subjects import BLOCK, HANDLE, Fact
from services.ipam import metrics, pools
from services.ipam.ledger import Ledger
from services.ipam.usage import Meter, PoolUsage
from tests.support.ipam_records import block, handle, pool, reservation, with_address

POOLS = [pools.read(pool())]


def ledger(*records: Block | Handle) -> Ledger:
    made = Ledger()
    for at, record in enumerate(records, 1):
        told(made, record, at)
    return made


def told(ledger: Ledger, record: Block | Handle, sequence: int) -> None:
    family, key = (BLOCK, record.cidr) if isinstance(record, Block) else (HANDLE, record.handle)
    ledger.apply(Fact(family, (key,), record, sequence))


def sample() -> list[Block | Handle]:
    given = with_address(block(), 0, "cni.a")
    given = with_address(given, 3, "warm.1")
    return [
        with_address(given, 7, "cni.b", borrower="node2"),
        handle("cni.a", "10.244.0.64"),
        handle("warm.1", "10.244.0.67", pod="", use="warm"),
        handle("cni.b", "10.244.0.71", node="node2", pod="b"),
    ]


def test_by_pool_and_node() -> None:
    usage = Meter().read(ledger(*sample()), POOLS, Reserved([reservation("10.244.0.64/31")]))
    assert usage.in_use == {("default", "node1"): 1, ("default", "node2"): 1}
    assert usage.warm == {("default", "node1"): 1}
    assert usage.borrowed == {("default", "node2"): 1}
    assert usage.blocks == {("default", "node1"): 1}
    assert usage.pools == {"default": PoolUsage(65536, 1, 65533)}


def test_what_was_counted_follows_what_changed() -> None:
    meter, known = Meter(), ledger(*sample())
    before = meter.read(known, POOLS, Reserved())
    assert meter.read(known, POOLS, Reserved()) == before
    told(known, block(), 9)
    after = meter.read(known, POOLS, Reserved())
    assert (after.in_use, after.pools["default"].free) == ({}, 65536)


def test_a_handle_that_is_heard_of_later_counts_later() -> None:
    meter = Meter()
    given, *handles = sample()
    known = ledger(given)
    assert meter.read(known, POOLS, Reserved()).warm == {}
    for at, record in enumerate(handles, 2):
        told(known, record, at)
    assert meter.read(known, POOLS, Reserved()).warm == {("default", "node1"): 1}


def test_it_is_read_when_somebody_asks() -> None:
    meter, known = Meter(), ledger(*sample())
    with metrics.shown(lambda: meter.read(known, POOLS, Reserved())):
        text = generate_latest(REGISTRY).decode()
    assert 'tortie_ipam_allocations_in_use{node="node1",pool="default"} 1.0' in text
    assert 'tortie_ipam_allocations_borrowed{node="node2",pool="default"} 1.0' in text
    assert 'tortie_ipam_ippool_free{pool="default"} 65534.0' in text
    assert 'tortie_ipam_ippool_free{pool="default"}' not in generate_latest(REGISTRY).decode()
