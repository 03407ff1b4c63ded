"""What is said of services that are odd, and what the node answers load balancers; node ports; stale connections."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from bus_schemas.resources.services import LoadBalancerIngress, SlicePort
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.service_proxy import node_ports
from services.node_dataplane.service_proxy.core import Frontend, HealthPort, ServiceProxy, Target
from services.node_dataplane.service_proxy.endpoints import Backend, Pool
from services.node_dataplane.service_proxy.stale import concerned, stale
from tests.support.service_worlds import NODE, endpoint, given, gone, port, service, slice_of, tell


def packed(text: str) -> bytes:
    return ip_address(text).packed


def frontend(address: str, number: int = 80, protocol: int = 6) -> Frontend:
    return Frontend(packed(address), protocol, number)


@pytest.fixture
def proxy() -> ServiceProxy:
    return ServiceProxy(NODE)


def served(proxy: ServiceProxy) -> set[str]:
    proxy.flush()
    return set(map(str, proxy.frontends))


def test_addresses_of_a_load_balancer_come_from_the_status_and_from_the_address_service(proxy: ServiceProxy) -> None:
    behind = LoadBalancerIngress(ip="198.51.100.9", ip_mode="Proxy")
    tell(proxy, service("web", "10.96.0.1", type="LoadBalancer", balanced=("198.51.100.1", behind)))
    tell(proxy, given("web", "198.51.100.1", "198.51.100.2"), given("nobody", "198.51.100.3"))
    assert served(proxy) == {"10.96.0.1 tcp/80", "198.51.100.1 tcp/80", "198.51.100.2 tcp/80"}
    tell(proxy, gone(given("web")))
    assert served(proxy) == {"10.96.0.1 tcp/80", "198.51.100.1 tcp/80"}


def test_node_ports_follow_the_nodes_addresses(proxy: ServiceProxy) -> None:
    tell(proxy, service("web", "10.96.0.1", ports=(port("tcp/80", 30080),)), service("plain", "10.96.0.2"))
    assert not proxy.set_node_addresses(()), "as before"
    assert proxy.set_node_addresses([packed("192.168.0.1"), packed("fd01::1")]) is False, "nothing was worked out yet"
    assert served(proxy) == {"10.96.0.1 tcp/80", "10.96.0.2 tcp/80", "192.168.0.1 tcp/30080"}
    assert proxy.set_node_addresses([packed("192.168.0.2")])
    changes = proxy.flush()
    assert {str(f): target is not None for f, target in changes.frontends.items()} == {
        "192.168.0.1 tcp/30080": False,
        "192.168.0.2 tcp/30080": True,
    }


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ((service("web", ports=(port("tcp/80", 30080),)),), "it has no clusterIP"),
        ((service("web", "10.96.0.x"),), "'10.96.0.x' is no address"),
        ((service("web", "10.96.0.1", ports=("tcp/0",)),), "port 0 TCP cannot be served"),
        ((service("web", "10.96.0.1"), slice_of("web", "127.0.0.1")), "'127.0.0.1' is no endpoint's address"),
        (
            (service("web", "10.96.0.1", session_affinity="ClientIP", session_affinity_timeout_s=-1),),
            "10.96.0.1 tcp/80 is closed: sessionAffinity",
        ),
        (
            (
                service(
                    "web",
                    "10.96.0.1",
                    type="LoadBalancer",
                    balanced=("198.51.100.1",),
                    load_balancer_source_ranges=("10.0.0.0/33",),
                ),
            ),
            "198.51.100.1 tcp/80 is closed: loadBalancerSourceRanges",
        ),
    ],
)
def test_what_cannot_be_served_is_said(proxy: ServiceProxy, facts: tuple[Any, ...], told: str) -> None:
    tell(proxy, *facts)
    proxy.flush()
    (fault,) = proxy.faults()
    assert fault.startswith("Service shop/web: ")
    assert told in fault
    assert "closed" not in told or any(target.closed for target in proxy.frontends.values())
    tell(proxy, *map(gone, facts))
    assert not served(proxy)
    assert proxy.faults() == ()


def test_of_two_services_with_one_address_the_first_by_name_has_it(proxy: ServiceProxy) -> None:
    second = service("b", "10.96.0.2", external_ips=("198.51.100.1",))
    tell(proxy, second, service("a", "10.96.0.1", external_ips=("198.51.100.1",)))
    proxy.flush()
    assert proxy.frontends[frontend("198.51.100.1")].port == "shop/a tcp/80"
    assert proxy.faults() == ("198.51.100.1 tcp/80 is claimed by several Services: shop/a has it, shop/b has not",)
    tell(proxy, gone(service("a")))
    proxy.flush()
    assert proxy.frontends[frontend("198.51.100.1")].port == "shop/b tcp/80"
    assert proxy.faults() == ()


def test_a_slice_that_changes_its_service_leaves_the_old_one(proxy: ServiceProxy) -> None:
    tell(proxy, service("a", "10.96.0.1"), service("b", "10.96.0.2"), slice_of("a", "10.244.0.1"))
    proxy.flush()
    moved = slice_of("b", "10.244.0.1")
    tell(proxy, moved._replace(key=slice_of("a").key))
    proxy.flush()
    assert not proxy.frontends[frontend("10.96.0.1")].pool.backends
    assert proxy.frontends[frontend("10.96.0.2")].pool.backends == (Backend(packed("10.244.0.1"), 8080),)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "127.9.0.1",
        "169.254.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "x",
    ],
)
def test_an_endpoint_has_an_address_of_its_own(proxy: ServiceProxy, address: str) -> None:
    family, ip = ("IPv6", "fd96::1") if ":" in address else ("IPv4", "10.96.0.1")
    tell(proxy, service("a", ip), slice_of("a", address, family=family))
    proxy.flush()
    assert not proxy.frontends[frontend(ip)].pool.backends
    assert "no endpoint's address" in " ".join(proxy.faults())


def test_a_slice_port_without_a_number_is_none(proxy: ServiceProxy) -> None:
    tell(proxy, service("a", "10.96.0.1"), slice_of("a", "10.244.0.1", ports=(SlicePort(),)))
    proxy.flush()
    assert not proxy.frontends[frontend("10.96.0.1")].pool.backends


def test_a_load_balancer_asks_whether_there_is_an_endpoint_here(proxy: ServiceProxy) -> None:
    web = service(
        "web",
        "10.96.0.1",
        type="LoadBalancer",
        external_traffic_policy="Local",
        health_check_node_port=32000,
        ports=("a:tcp/80", "b:tcp/81"),
    )
    tell(proxy, web, slice_of("web", "10.244.0.1", endpoint("10.244.9.1", "node2"), ports=("a:tcp/80", "b:tcp/81")))
    proxy.flush()
    assert proxy.health_ports() == {32000: HealthPort("shop", "web", 1)}
    tell(proxy, slice_of("web", endpoint("10.244.9.1", "node2"), ports=("a:tcp/80",)))
    proxy.flush()
    assert proxy.health_ports() == {32000: HealthPort("shop", "web", 0)}
    tell(proxy, gone(web))
    proxy.flush()
    assert not proxy.health_ports()


# --- node ports


DEVICES = {"lo": {"127.0.0.1", "::1"}, "eth0": {"192.168.0.1", "fe80::1", "fd01::1"}, "eth1": {"10.9.0.1"}}


@pytest.mark.parametrize(
    ("setting", "addresses"),
    [
        ("primary", {"192.168.0.1"}),
        ("0.0.0.0/0,::/0", {"192.168.0.1", "fd01::1", "10.9.0.1"}),
        (" 10.0.0.0/8 ", {"10.9.0.1"}),
    ],
)
def test_the_addresses_of_node_ports(setting: str, addresses: set[str]) -> None:
    found = node_ports.served(node_ports.read(setting), DEVICES, ["192.168.0.1"])
    assert {str(ip_address(each)) for each in found} == addresses


@pytest.mark.parametrize("setting", ["", "primary,10.0.0.0/8", "eth0", "10.0.0.0/99"])
def test_a_setting_that_says_nothing(setting: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        node_ports.read(setting)


# --- connections

DNS = frontend("10.96.0.10", 53, 17)
GOOD, BAD = Backend(packed("10.244.0.1"), 5353), Backend(packed("10.244.0.9"), 5353)
TARGET = Target("shop/dns udp/53", Pool((GOOD,), 1, 0))


def tracked(there: Backend, *, protocol: int = 17, asked: Frontend = DNS) -> Tracked:
    source = packed("10.244.0.7")
    entry = b"%b%d" % there
    return Tracked(source, there.address, protocol, 40000, there.port, None, None, entry, asked.address, asked.port)


def test_connections_to_an_endpoint_that_is_gone_are_stale() -> None:
    kept, lost = tracked(GOOD), tracked(BAD)
    unknown = tracked(Backend(DNS.address, DNS.port))
    other = replace_asked(lost)
    tcp = tracked(BAD, protocol=6)
    assert list(stale([kept, lost, unknown, other, tcp], {DNS: TARGET})) == [lost, unknown]


def test_of_a_service_that_is_gone_only_what_it_redirected_is_stale() -> None:
    assert list(stale([tracked(BAD), tracked(Backend(DNS.address, DNS.port))], {DNS: None})) == [tracked(BAD)]


def test_local_leads_nowhere_else() -> None:
    local = TARGET._replace(scope="local", pool=Pool((GOOD, BAD), 1, 0))
    assert list(stale([tracked(GOOD), tracked(BAD)], {DNS: local})) == [tracked(BAD)]
    assert list(stale([tracked(GOOD)], {DNS: TARGET._replace(closed="why")})) == [tracked(GOOD)]


def test_only_udp_is_looked_at() -> None:
    assert concerned([DNS, frontend("10.96.0.10", 53, 6)]) == {DNS}


def replace_asked(connection: Tracked) -> Tracked:
    return connection._replace(asked=packed("10.96.0.11"))
