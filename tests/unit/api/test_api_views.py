from __future__ import annotations

from bus_schemas.ids import NodeName
from bus_schemas.status import Status
from bus_schemas.subjects import STATUS, Fact
from services.api import views
from tests.support.api import NODE, POOL, Bench


def test_a_node_is_ready_when_its_agent_says_so() -> None:
    bench = Bench(POOL, NODE)
    (node,) = views.status(bench.core)["nodes"]
    assert (node["name"], node["ready"], node["addresses"]) == ("node1", False, ["10.0.0.15/24"])
    agent = Status(component="node_dataplane", instance="node1", node=NodeName("node1"), started=0.0, ready=True)
    bench.core.apply(Fact(STATUS, ("node_dataplane", "node1"), agent, 4))
    report = views.status(bench.core)
    assert report["nodes"][0]["ready"]
    assert [component["component"] for component in report["components"]] == ["node_dataplane"]
    bench.core.apply(Fact(STATUS, ("node_dataplane", "node1"), None, 5))
    assert not views.status(bench.core)["nodes"][0]["ready"]
