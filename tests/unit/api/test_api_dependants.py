"""What is said to who deletes an object that is still needed."""

from __future__ import annotations

from bus_schemas.resources import Resource
from services.api.dependants import Beside, dependants
from tests.support.api import NAMESPACE, NODE, resource
from tests.support.ipam_records import block, endpoint, node, pool, with_address


def told(leaving: Resource) -> list[str]:
    used = with_address(with_address(block(), 0, "cni.a"), 1, "cni.b")
    endpoints = [endpoint("a", "10.244.0.64"), endpoint("b", "10.244.0.65")]
    return list(dependants(leaving, Beside([], [used], endpoints)))


def test_a_pool_in_use() -> None:
    assert told(pool()) == ["2 addresses of pool default are in use: reached without a tunnel from now on"]
    assert told(pool("other")) == []


def test_a_node_with_pods() -> None:
    assert told(resource(NODE)) == [
        "2 pods are on node node1: other nodes lose their routes to it",
        "2 addresses are in use in the blocks of node node1",
    ]
    assert told(node("node9")) == []


def test_a_namespace_with_pods() -> None:
    default = resource(NAMESPACE.replace("develop", "default"))
    assert told(default) == ["2 pods of namespace default are still on the network: cut off from it"]
