"""Single addresses of services: who announces them, and when."""

from __future__ import annotations

import pytest

from bus_schemas.resources.bgp import ServiceBlock
from bus_schemas.subjects import Fact
from tests.support.expanders import gone
from tests.support.speakers import Told, balanced, configuration, endpoint_slice, service, speaking

A, B = speaking("a", "10.0.0.1/24", "fd00::1/64"), speaking("b", "10.0.0.2/24", "fd00::2/64")
CLUSTER, BALANCED = "10.96.0.0/16", "203.0.113.0/24"
LOCAL = service("web", cluster_ips=("10.96.0.7",), external_traffic_policy="Local")


def ranges(*load_balancer: str, external: tuple[str, ...] = (), aggregation: str | None = None) -> Fact:
    return configuration(
        service_cluster_ips=(ServiceBlock(cidr=CLUSTER), ServiceBlock(cidr="fd00:96::/112")),
        service_external_ips=tuple(ServiceBlock(cidr=cidr) for cidr in external),
        service_load_balancer_ips=tuple(ServiceBlock(cidr=cidr) for cidr in load_balancer),
        service_load_balancer_aggregation=aggregation,
    )


def single(told: Told) -> dict[str, list[str]]:
    """What each node announces besides whole ranges."""
    whole = {CLUSTER, "fd00:96::/112"}
    return {name: [cidr for cidr in told.speakers[name].services if cidr not in whole] for name in ("a", "b")}


def test_a_local_service_is_announced_where_it_has_a_ready_endpoint() -> None:
    told = Told(A, B, ranges(), LOCAL, endpoint_slice("x", "web", "a"))
    assert single(told) == {"a": ["10.96.0.7/32"], "b": []}
    assert told.tell(endpoint_slice("x", "web", "b")) == {"a", "b"}
    assert single(told) == {"a": [], "b": ["10.96.0.7/32"]}
    assert told.tell(endpoint_slice("x", "web", "b", ready=False)) == {"b"}
    assert single(told) == {"a": [], "b": []}


def test_a_service_of_the_whole_cluster_needs_no_single_address() -> None:
    told = Told(A, B, ranges(), service("web", cluster_ips=("10.96.0.7",)), endpoint_slice("x", "web", "a"))
    assert single(told) == {"a": [], "b": []}
    assert told.tell(endpoint_slice("x", "web", "b")) == set(), "endpoints come and go without a record anew"


def test_each_family_has_its_endpoints() -> None:
    both = service("web", cluster_ips=("10.96.0.7", "fd00:96::7"), external_traffic_policy="Local")
    told = Told(A, B, ranges(), both, endpoint_slice("x", "web", "a"), endpoint_slice("y", "web", "b", family="IPv6"))
    assert single(told) == {"a": ["10.96.0.7/32"], "b": ["fd00:96::7/128"]}


def test_only_addresses_inside_a_range_of_their_kind() -> None:
    odd = service("web", cluster_ips=("10.97.0.1",), external_ips=("10.96.0.9",), external_traffic_policy="Local")
    assert single(Told(A, B, ranges(), odd, endpoint_slice("x", "web", "a"))) == {"a": [], "b": []}


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_a_range_of_one_address_waits_for_an_endpoint(policy: str) -> None:
    web = service("web", external_ips=("198.51.100.1",), external_traffic_policy=policy)
    told = Told(A, B, ranges(external=("198.51.100.1/32",)), web)
    assert single(told) == {"a": [], "b": []}
    told.tell(endpoint_slice("x", "web", "a"))
    assert single(told) == {"a": ["198.51.100.1/32"], "b": ["198.51.100.1/32"] if policy == "Cluster" else []}


def test_load_balancers_one_by_one() -> None:
    web, given = service("web", type="LoadBalancer"), balanced("web", "203.0.113.5")
    told = Told(A, B, ranges(BALANCED, aggregation="Disabled"), web, given, endpoint_slice("x", "web", "a"))
    assert single(told) == {"a": ["203.0.113.5/32"], "b": ["203.0.113.5/32"]}
    told.tell(ranges(BALANCED))
    assert single(told) == {"a": [BALANCED], "b": [BALANCED]}
    told.tell(service("web", type="LoadBalancer", external_traffic_policy="Local"))
    assert single(told) == {"a": [BALANCED, "203.0.113.5/32"], "b": [BALANCED]}
    told.tell(gone(given))
    assert single(told) == {"a": [BALANCED], "b": [BALANCED]}


def test_a_shared_address_stays_until_the_last_has_gone() -> None:
    shared = {"external_ips": ("198.51.100.1",), "external_traffic_policy": "Local"}
    one, other = service("one", **shared), service("other", **shared)
    told = Told(A, B, ranges(external=("198.51.100.0/24",)))
    told.tell(one, other, endpoint_slice("x", "one", "a"), endpoint_slice("y", "other", "a"))
    assert told.tell(gone(one)) == set()
    assert "198.51.100.1/32" in single(told)["a"]
    assert told.tell(gone(endpoint_slice("y", "other", "a"))) == {"a"}
    assert "198.51.100.1/32" not in single(told)["a"]


def test_a_node_that_stays_out_of_load_balancing() -> None:
    out = speaking("a", "10.0.0.1/24", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""})
    told = Told(out, B, ranges(), LOCAL, endpoint_slice("x", "web", "a"))
    assert told.speakers["a"].services == ()
