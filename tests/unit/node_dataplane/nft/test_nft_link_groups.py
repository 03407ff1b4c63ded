"""The numbers by which the table tells pods' links."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from bus_schemas.ids import PodKey
from services.node_dataplane.nft import link_groups
from services.node_dataplane.nft.link_groups import DOOMED, LinkGroups, first_choice, is_pods
from services.node_dataplane.nft.names import LINK_GROUP
from services.node_dataplane.nft.table import PolicyTable
from tests.support.nft_evaluator import Nftables
from tests.support.nft_worlds import settle

A, B, C = "tor0000000000a", "tor0000000000b", "tor0000000000c"


def collide(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(link_groups, "first_choice", lambda link: number)


def sources(table: PolicyTable, kernel: Nftables) -> set[tuple[object, ...]]:
    settle(table, kernel)
    return set(kernel.sets["pod_sources4"].elements)


def test_each_link_has_a_number_of_its_own_in_the_range_of_pods() -> None:
    groups = LinkGroups()
    numbers = {groups.of(f"tor{n:011x}") for n in range(2000)}
    assert len(numbers) == 2000
    assert all(is_pods(number) and number not in (LINK_GROUP, DOOMED) for number in numbers)
    assert groups.of(A) == groups.of(A) == LinkGroups().of(A) == first_choice(A)


@pytest.mark.parametrize("number", [LINK_GROUP + 7, 0x7FFFFFFF], ids=["next", "around the end"])
def test_links_with_one_hash_get_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    collide(monkeypatch, number)
    groups = LinkGroups()
    numbers = [groups.of(link) for link in (A, B, C)]
    assert len(set(numbers)) == 3
    assert all(is_pods(each) and each not in (LINK_GROUP, DOOMED) for each in numbers)
    groups.release(A)
    assert (groups.of(B), groups.of(C)) == tuple(numbers[1:])
    groups.release(A)


def test_a_restarted_agent_keeps_what_links_have(monkeypatch: pytest.MonkeyPatch) -> None:
    collide(monkeypatch, LINK_GROUP + 7)
    first = LinkGroups()
    given = {link: first.of(link) for link in (A, B, C)}
    again = LinkGroups()
    again.adopt(given)
    assert {link: again.of(link) for link in (C, B, A)} == given


@pytest.mark.parametrize("group", [0, 5, LINK_GROUP, DOOMED, 0x80000007])
def test_what_is_no_number_of_a_link_is_not_adopted(group: int) -> None:
    groups = LinkGroups()
    groups.adopt({A: group})
    assert groups.of(A) == first_choice(A)


def test_of_two_links_in_one_group_one_moves() -> None:
    groups = LinkGroups()
    groups.adopt({A: LINK_GROUP + 7, B: LINK_GROUP + 7})
    assert groups.of(A) == LINK_GROUP + 7
    assert groups.right(B, LINK_GROUP + 7) == LINK_GROUP
    assert groups.right(B, LINK_GROUP + 7) != groups.of(B) == first_choice(B)


@pytest.mark.parametrize(
    ("group", "right"),
    [
        pytest.param(lambda g: 0, LINK_GROUP, id="born elsewhere"),
        pytest.param(lambda g: g.of(A), LINK_GROUP, id="in another pod's group"),
        pytest.param(lambda g: DOOMED, DOOMED, id="about to be deleted"),
        pytest.param(lambda g: first_choice(B), first_choice(B), id="its pod has just gone"),
    ],
)
def test_a_link_that_nobody_knows_is_where_it_is_closed(group: Callable[[LinkGroups], int], right: int) -> None:
    groups = LinkGroups()
    groups.of(A)
    assert groups.right(B, group(groups)) == right
    assert groups.right(A, group(groups)) == groups.of(A)


def test_pods_whose_links_have_one_hash_are_two_pods_to_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    collide(monkeypatch, LINK_GROUP + 7)
    table, kernel = PolicyTable(), Nftables()
    for name, link, address in (("a", A, "10.244.0.1"), ("b", B, "10.244.0.2")):
        table.set_endpoint(PodKey("default", name), link, (address,), "c1")
    a, b = table.link_groups.of(A), table.link_groups.of(B)
    assert a != b
    assert sources(table, kernel) == {(a, IPv4Address("10.244.0.1")), (b, IPv4Address("10.244.0.2"))}

    table.remove_endpoint(PodKey("default", "a"))
    table.set_endpoint(PodKey("default", "b"), B, ("10.244.0.3",), "c1")
    assert sources(table, kernel) == {(b, IPv4Address("10.244.0.3"))}, "it keeps the number that its link has"
