"""What a node says of itself, through the api's mirror."""

from __future__ import annotations

from bus_schemas.ids import NodeName
from bus_schemas.node_addresses import NodeAddresses, OwnAddress
from bus_schemas.node_facts import AddressFact, MtuFact, NodeFacts
from bus_schemas.subjects import NODE_ADDRESSES, NODE_FACTS, Fact
from services.api import node_facts, views
from services.api.explain import _node
from tests.support.api import Bench

BARE = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: node1}\nspec: {}\n"
SAID = NodeAddresses(node=NodeName("node1"), ipv4=OwnAddress(address="10.0.0.15/24", since=1.0))


def test_a_node_is_shown_with_the_address_that_its_agent_found() -> None:
    bench = Bench(BARE)
    assert views.status(bench.core)["nodes"][0]["addresses"] == []
    bench.core.apply(Fact(NODE_ADDRESSES, ("node1",), SAID, 4))
    assert views.status(bench.core)["nodes"][0]["addresses"] == ["10.0.0.15/24"]
    assert _node(bench.core, "node1").addresses == ("10.0.0.15",)


def test_facts_are_told_while_the_agent_tells_them() -> None:
    bench = Bench(BARE)
    assert node_facts.known(bench.core, "node1")
    assert not node_facts.known(bench.core, "node2")
    assert node_facts.facts_of(bench.core, "node1") == {"node": "node1", "agent": False, "facts": None}
    address = AddressFact(family=4, address="10.0.0.15/24", device="eth0", method="auto", source="by default")
    said = NodeFacts(node=NodeName("node1"), time=5.0, addresses=(address,), mtu=MtuFact(pods=1450))
    bench.core.apply(Fact(NODE_FACTS, ("node1",), said, 5))
    facts = node_facts.facts_of(bench.core, "node1")["facts"]
    assert (facts["mtu"]["pods"], facts["addresses"][0]["device"], facts["offload"]) == (1450, "eth0", [])
    assert "type" not in facts
    bench.core.apply(Fact(NODE_FACTS, ("node1",), None, 6))
    assert node_facts.facts_of(bench.core, "node1")["facts"] is None
