"""One pool into several: all of them or none, the parts before the pool goes."""

from __future__ import annotations

import pytest

from bus_schemas.resources import IPPool
from services.api.requests import Planned, Refused, Split
from services.api.split import CannotSplit, split
from tests.support.api import POOL, Bench, resource

NAME = "default-ipv4-ippool"
ASKING = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {cni.projectcalico.org/ipv4pools: '["default-ipv4-ippool"]'}}
"""


def pool_of(text: str = POOL) -> IPPool:
    found = resource(text)
    assert isinstance(found, IPPool)
    return found


def test_the_parts_make_up_the_pool() -> None:
    parts = split(pool_of(), 4)
    assert [(part.metadata.name, part.spec.cidr) for part in parts] == [
        (f"split-{NAME}-0", "10.244.0.0/18"),
        (f"split-{NAME}-1", "10.244.64.0/18"),
        (f"split-{NAME}-2", "10.244.128.0/18"),
        (f"split-{NAME}-3", "10.244.192.0/18"),
    ]
    assert all(part.spec.nat_outgoing and part.block_size == 26 for part in parts)


@pytest.mark.parametrize("count", [-2, 0, 1, 3, 6, 1024])
def test_counts_that_are_no_power_of_two(count: int) -> None:
    with pytest.raises(CannotSplit, match="2, 4, 8"):
        split(pool_of(), count)


def test_a_part_holds_a_block() -> None:
    small = pool_of(POOL.replace("/16", "/25"))
    assert len(split(small, 2)) == 2
    with pytest.raises(CannotSplit, match="holds 2 blocks of /26"):
        split(small, 4)


def test_names_have_an_end() -> None:
    with pytest.raises(CannotSplit, match="longer than 253"):
        split(pool_of(POOL.replace(NAME, "x" * 250)), 2)


def test_one_batch_makes_the_parts_and_then_removes_the_pool() -> None:
    bench = Bench(POOL, ASKING)
    decision = bench.do(Split(NAME, 2))
    assert isinstance(decision, Planned)
    assert [(write.key[1], write.resource is None) for write in decision.writes] == [
        (f"split-{NAME}-0", False),
        (f"split-{NAME}-1", False),
        (NAME, True),
    ]
    assert [(result.key[1], result.outcome) for result in decision.results] == [
        (f"split-{NAME}-0", "created"),
        (f"split-{NAME}-1", "created"),
        (NAME, "deleted"),
    ]
    assert decision.results[-1].warnings == (
        f"Namespace/shop asks for pool {NAME} by name (cni.projectcalico.org/ipv4pools): name the parts instead",
    )
    assert {stored.resource.metadata.name for stored in bench.core.resources(IPPool)} == {
        f"split-{NAME}-0",
        f"split-{NAME}-1",
    }
    uids = {stored.resource.metadata.uid for stored in bench.core.resources(IPPool)}
    assert len(uids) == 2


def test_a_part_takes_nobodys_name() -> None:
    bench = Bench(POOL, POOL.replace(NAME, f"split-{NAME}-1").replace("10.244", "10.9"))
    decision = bench.do(Split(NAME, 2))
    assert isinstance(decision, Refused)
    assert decision.error.startswith(f"IPPool/split-{NAME}-1 exists already")


def test_a_pool_that_is_not_there() -> None:
    assert Bench().do(Split("absent", 2)) == Refused("missing", "IPPool/absent does not exist")
