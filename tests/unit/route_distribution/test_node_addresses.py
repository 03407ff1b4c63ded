"""Where each node is reached, from its resource and its agent; two with one address."""

from __future__ import annotations

import itertools

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.node_addresses import NodeAddresses, OwnAddress
from bus_schemas.resources import Metadata, Node
from bus_schemas.resources.core import NodeAddress, NodeBgp, NodeSpec
from bus_schemas.subjects import DESIRED, NODE_ADDRESSES, Fact
from services.route_distribution.core import Withheld
from services.route_distribution.node_addresses import AddressesOfNodes


def node(name: str, bgp: str = "", internal: str = "", created: str = "") -> Fact:
    spec = NodeSpec(
        bgp=NodeBgp(ipv4_address=bgp) if bgp else None,
        addresses=(NodeAddress(address=internal, type="InternalIP"),) if internal else (),
    )
    return Fact(DESIRED[Node], ("", name), Node(metadata=Metadata(name=name, creation_timestamp=created), spec=spec))


def found(name: str, address: str = "", since: float = 100.0, without: tuple[int, ...] = ()) -> Fact:
    own = OwnAddress(address=address, since=since) if address else None
    return Fact(NODE_ADDRESSES, (name,), NodeAddresses(node=NodeName(name), ipv4=own, without=without))


class World:
    def __init__(self, *facts: Fact) -> None:
        self.core = AddressesOfNodes()
        self.addresses: dict[str, str] = {}
        self.troubles: set[Withheld] = set()
        self.hear(*facts)

    def hear(self, *facts: Fact) -> None:
        for fact in facts:
            assert self.core.apply(fact)
        clear = self.core.flush()
        for name, value in clear.nodes.items():
            if value is None:
                del self.addresses[name]
            else:
                self.addresses[name] = value.address(4)
        self.troubles = (self.troubles | set(clear.raised)) - set(clear.cleared)


@pytest.mark.parametrize(
    ("facts", "address"),
    [
        ([node("a")], ""),
        ([node("a", bgp="10.0.0.1/24")], "10.0.0.1/24"),
        ([node("a", internal="10.0.0.2")], "10.0.0.2/32"),
        ([node("a"), found("a", "10.0.0.3/24")], "10.0.0.3/24"),
        ([node("a", bgp="10.0.0.1/24"), found("a", "10.0.0.3/24")], "10.0.0.1/24"),
        ([node("a", internal="10.0.0.2"), found("a", "10.0.0.3/24")], "10.0.0.3/24"),
        ([node("a", internal="10.0.0.2"), found("a")], "10.0.0.2/32"),
        ([node("a", internal="10.0.0.2"), found("a", without=(4,))], ""),
        ([node("a", bgp="10.0.0.1/24"), found("a", without=(4,))], "10.0.0.1/24"),
    ],
)
def test_whose_word_counts(facts: list[Fact], address: str) -> None:
    for order in itertools.permutations(facts):
        assert World(*order).addresses == {"a": address}


def test_an_agent_without_its_node_is_nobody() -> None:
    world = World(found("a", "10.0.0.3/24"))
    assert world.addresses == {}
    world.hear(node("a"))
    assert world.addresses == {"a": "10.0.0.3/24"}


def test_of_two_with_one_address_the_older_keeps_it_and_both_are_named() -> None:
    facts = [node("a"), node("b"), found("a", "10.0.0.3/24", 200), found("b", "10.0.0.3/16", 100)]
    for order in itertools.permutations(facts):
        world = World(*order)
        assert world.addresses == {"a": "", "b": "10.0.0.3/16"}
        (trouble,) = world.troubles
        assert (trouble.what, trouble.object) == ("duplicate", "a")
        assert "node a says that its address is 10.0.0.3, which node b has had for longer" in trouble.message
    world.hear(found("a", "10.0.0.4/24", 300))
    assert (world.addresses, world.troubles) == ({"a": "10.0.0.4/24", "b": "10.0.0.3/16"}, set())


def test_when_the_older_goes_the_other_has_it() -> None:
    world = World(node("a"), node("b"), found("a", "10.0.0.3/24", 200), found("b", "10.0.0.3/24", 100))
    world.hear(Fact(DESIRED[Node], ("", "b"), None))
    assert (world.addresses, world.troubles) == ({"a": "10.0.0.3/24"}, set())


def test_what_the_administrator_says_is_older_than_what_was_found() -> None:
    world = World(node("a", bgp="10.0.0.3/24"), node("b"), found("b", "10.0.0.3/24", 1))
    assert world.addresses == {"a": "10.0.0.3/24", "b": ""}


EARLIER, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("of_a", "of_b", "keeper"),
    [(LATER, EARLIER, "b"), (EARLIER, LATER, "a"), (EARLIER, EARLIER, "a"), ("", LATER, "b"), ("", "", "a")],
)
def test_of_two_node_resources_the_one_that_was_created_first_keeps_it(of_a: str, of_b: str, keeper: str) -> None:
    facts = [node("a", bgp="10.0.0.3/24", created=of_a), node("b", bgp="10.0.0.3/26", created=of_b)]
    for order in itertools.permutations(facts):
        world = World(*order)
        assert {name for name, address in world.addresses.items() if address} == {keeper}


def test_a_living_node_with_a_stated_address_does_not_lose_it_to_a_younger_resource() -> None:
    older, younger = node("b", bgp="10.0.0.3/24", created=EARLIER), node("a", bgp="10.0.0.3/24", created=LATER)
    world = World(older, found("b", "10.0.0.3/24", since=500.0), younger)
    assert world.addresses == {"a": "", "b": "10.0.0.3/24"}


def test_spellings_of_one_address_are_one() -> None:
    world = World(node("a", bgp="10.0.0.3/24"), node("b", bgp="10.0.0.3"))
    assert world.addresses == {"a": "10.0.0.3/24", "b": ""}


def test_a_third_one_does_not_unseat_the_first() -> None:
    ages = {"a": 3, "b": 1, "c": 2}
    world = World(*map(node, ages), *(found(name, "10.0.0.3/24", age) for name, age in ages.items()))
    assert world.addresses == {"a": "", "b": "10.0.0.3/24", "c": ""}
    world.hear(found("b", "10.0.0.5/24", 9))
    assert world.addresses == {"a": "", "b": "10.0.0.5/24", "c": "10.0.0.3/24"}
    assert {trouble.object for trouble in world.troubles} == {"a"}
