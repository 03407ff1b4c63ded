"""The table of claims, row by row."""

from __future__ import annotations

import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import AffinityState, Block
from services.ipam.affinity import Step, Verdict, next_step
from services.ipam.block import OpenBlock, disowned, fresh
from services.ipam.cidr import parse
from tests.support.ipam import START

N1, N2 = NodeName("n1"), NodeName("n2")


def used(block: Block) -> Block:
    opened = OpenBlock(block)
    opened.take(HandleId("h"))
    return opened.close()


EMPTY = fresh(parse("10.0.0.0/30"), "p", N1, START)
USED = used(EMPTY)
OTHERS = fresh(parse("10.0.0.0/30"), "p", N2, START)
NOBODYS = disowned(USED)

PENDING, CONFIRMED, LEAVING = AffinityState.PENDING, AffinityState.CONFIRMED, AffinityState.PENDING_DELETION
KEEP, UNSELECTED, POOL_GONE, NODE_GONE = Verdict


@pytest.mark.parametrize(
    ("state", "block", "verdict", "step"),
    [
        (PENDING, None, KEEP, None),
        (PENDING, None, UNSELECTED, None),
        (PENDING, None, POOL_GONE, Step.FORGET),
        (PENDING, None, NODE_GONE, Step.FORGET),
        (PENDING, OTHERS, KEEP, Step.FORGET),
        (PENDING, EMPTY, KEEP, Step.CONFIRM),
        (CONFIRMED, None, KEEP, Step.FORGET),
        (CONFIRMED, OTHERS, KEEP, Step.FORGET),
        (CONFIRMED, NOBODYS, KEEP, Step.FORGET),
        (CONFIRMED, EMPTY, KEEP, None),
        (CONFIRMED, USED, KEEP, None),
        (CONFIRMED, USED, UNSELECTED, None),
        (CONFIRMED, USED, POOL_GONE, None),
        (CONFIRMED, USED, NODE_GONE, Step.DISOWN),
        (CONFIRMED, EMPTY, UNSELECTED, Step.RETIRE),
        (CONFIRMED, EMPTY, POOL_GONE, Step.RETIRE),
        (CONFIRMED, EMPTY, NODE_GONE, Step.RETIRE),
        (LEAVING, EMPTY, POOL_GONE, Step.REMOVE),
        (LEAVING, EMPTY, NODE_GONE, Step.REMOVE),
        (LEAVING, USED, POOL_GONE, Step.CONFIRM),
        (LEAVING, USED, NODE_GONE, Step.DISOWN),
        (LEAVING, EMPTY, KEEP, Step.CONFIRM),
        (LEAVING, None, POOL_GONE, Step.FORGET),
        (None, None, KEEP, None),
        (None, OTHERS, KEEP, None),
        (None, EMPTY, KEEP, Step.CONFIRM),
        (None, USED, POOL_GONE, Step.CONFIRM),
    ],
)
def test_next_step(state: AffinityState | None, block: Block | None, verdict: Verdict, step: Step | None) -> None:
    empty = block is None or not block.allocations
    assert next_step(state, block, N1, verdict, empty=empty) is step


@pytest.mark.parametrize(("verdict", "step"), [(POOL_GONE, None), (UNSELECTED, None), (NODE_GONE, Step.DISOWN)])
def test_a_block_whose_addresses_cool_down_is_not_empty(verdict: Verdict, step: Step | None) -> None:
    assert next_step(CONFIRMED, EMPTY, N1, verdict, empty=False) is step
