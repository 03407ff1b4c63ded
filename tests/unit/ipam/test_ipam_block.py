"""A block's arithmetic, row by row."""

from __future__ import annotations

import msgspec
import pytest

from bus_schemas.ids import BlockCidr, HandleId, NodeName
from bus_schemas.ipam import Allocation, Block
from services.ipam.block import OpenBlock, adopted, disowned, fault, fresh
from services.ipam.cidr import parse, parse_address
from tests.support.ipam import START

NODE, OTHER = NodeName("n1"), NodeName("n2")
H1, H2 = HandleId("h1"), HandleId("h2")


def new(cidr: str) -> Block:
    return fresh(parse(cidr), "pool", NODE, START)


@pytest.mark.parametrize(
    ("cidr", "size", "first", "last"),
    [
        ("10.0.0.0/20", 4096, "10.0.0.0", "10.0.15.255"),
        ("10.0.0.0/24", 256, "10.0.0.0", "10.0.0.255"),
        ("10.0.0.64/26", 64, "10.0.0.64", "10.0.0.127"),
        ("10.0.0.2/31", 2, "10.0.0.2", "10.0.0.3"),
        ("255.255.255.255/32", 1, "255.255.255.255", "255.255.255.255"),
        ("fd00::/116", 4096, "fd00::", "fd00::fff"),
        ("fd00::40/122", 64, "fd00::40", "fd00::7f"),
        ("fd00::7/128", 1, "fd00::7", "fd00::7"),
    ],
)
def test_every_address_of_a_block_is_given_once_first_and_last_included(
    cidr: str, size: int, first: str, last: str
) -> None:
    open_ = OpenBlock(new(cidr))
    given = [str(open_.cidr.address(open_.take(HandleId(f"h{i}")).ordinal)) for i in range(size)]
    assert (given[0], given[-1], len(set(given))) == (first, last, size)
    assert open_.free == 0
    assert fault(open_.close()) is None


def test_released_addresses_are_given_last() -> None:
    open_ = OpenBlock(new("10.0.0.0/30"))
    first = open_.take(H1)
    open_.take(H2)
    assert open_.release(first.ordinal, H1, first.sequence)
    assert open_.close().free == (2, 3, 0)


def test_one_change_is_one_sequence_and_no_change_is_the_same_block() -> None:
    block = new("10.0.0.0/30")
    assert OpenBlock(block).close() is block
    open_ = OpenBlock(block)
    given = [open_.take(H1), open_.take(H2)]
    assert [a.sequence for a in given] == [block.sequence, block.sequence]
    assert open_.close().sequence == block.sequence + 1


@pytest.mark.parametrize(
    ("ordinal", "handle", "later"),
    [(1, H1, 0), (0, H2, 0), (0, H1, 1), (0, H1, -1)],
    ids=["free", "another's", "a later sequence", "an earlier sequence"],
)
def test_a_late_release_is_void(ordinal: int, handle: HandleId, later: int) -> None:
    open_ = OpenBlock(new("10.0.0.0/30"))
    given = open_.take(H1)
    block = open_.close()
    again = OpenBlock(block)
    assert not again.release(ordinal, handle, given.sequence + later)
    assert again.close() is block


def test_a_release_of_a_former_life_is_void() -> None:
    """The block went and came again: its sequences are not those from before."""
    former = OpenBlock(new("10.0.0.0/32")).take(H1)
    open_ = OpenBlock(fresh(parse("10.0.0.0/32"), "pool", NODE, START + 1))
    open_.take(H1)
    assert not open_.release(former.ordinal, H1, former.sequence)


def test_a_requested_address() -> None:
    open_ = OpenBlock(new("10.0.0.0/30"))
    assert open_.take(H1, ordinal=2).ordinal == 2
    assert open_.close().free == (0, 1, 3)


def test_a_block_that_is_left_and_taken_over_by_its_node_is_as_before() -> None:
    open_ = OpenBlock(new("10.0.0.0/30"))
    open_.take(H1)
    open_.take(H2, borrower=OTHER)
    block = open_.close()
    left = disowned(block)
    assert left.node is None
    assert [a.borrower for a in left.allocations] == [NODE, OTHER]
    back = adopted(left, NODE, START)
    assert back == msgspec.structs.replace(block, sequence=back.sequence)
    assert [a.borrower for a in adopted(left, OTHER, START).allocations] == [NODE, None]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cidr": BlockCidr("10.0.0.1/30")}, "host bits"),
        ({"cidr": BlockCidr("10.0.0.0/19")}, "no block size"),
        ({"free": (0, 1, 2)}, "do not make up the 4"),
        ({"free": (0, 1, 2, 4)}, "do not make up the 4"),
        ({"free": (0, 1, 2, 2)}, "free twice"),
        ({"allocations": (Allocation(ordinal=0, handle=H1, sequence=0),)}, "free and given"),
        (
            {
                "free": (2, 3),
                "allocations": (
                    Allocation(ordinal=1, handle=H1, sequence=0),
                    Allocation(ordinal=0, handle=H1, sequence=0),
                ),
            },
            "not in order",
        ),
    ],
)
def test_a_senseless_block_is_found_out(change: dict[str, object], says: str) -> None:
    block = new("10.0.0.0/30")
    assert fault(block) is None
    assert says in str(fault(msgspec.structs.replace(block, **change)))


def test_cidrs_order_by_place() -> None:
    texts = ["10.0.0.0/24", "10.0.0.0/26", "10.0.0.64/26", "10.0.1.0/24", "fd00::/122"]
    assert sorted(parse(text) for text in reversed(texts)) == [parse(text) for text in texts]
    assert parse("10.0.0.0/24").holds(parse("10.0.0.64/26"))
    assert not parse("10.0.0.64/26").holds(parse("10.0.0.0/24"))
    assert parse("::/0").holds(parse_address("fd00::1"))
    assert not parse("0.0.0.0/0").holds(parse_address("::1"))
    assert parse("10.0.0.0/8").around(parse_address("10.1.2.3"), 26).text == "10.1.2.0/26"
