"""What pods ask for, row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus_schemas.ids import NodeName
from services.node_dataplane import cni_protocol as cni
from services.node_dataplane.cni_errors import CniError, Code
from services.node_dataplane.wishes import (
    Allowed,
    Wishes,
    asked_beside,
    floating_request,
    request,
    translated,
    wishes,
)

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/n",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "K8S_POD_NAMESPACE=test;K8S_POD_NAME=web",
}
FEATURES = {"feature_control": {"ip_addrs_no_ipam": True, "floating_ips": "true"}}
EVERYTHING = Allowed(floating=True, sources=True)
NODE = NodeName("n")


def call(**conf: Any) -> cni.Call:
    return cni.parse(ENV, json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "tortie", **conf}))


def said(**annotations: str) -> dict[str, str]:
    return {f"cni.projectcalico.org/{name}": text for name, text in annotations.items()}


def asked(conf: dict[str, Any] | None = None, namespace: dict[str, str] | None = None, **pod: str) -> Wishes:
    return wishes(call(**{**FEATURES, **(conf or {})}), said(**pod), namespace or {}, EVERYTHING)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, Wishes()),
        ({"ipAddrs": '["10.0.0.7", "fd00::0:7"]'}, Wishes(addresses=("10.0.0.7", "fd00::7"))),
        ({"ipAddrsNoIpam": '["10.0.0.7"]'}, Wishes(unassigned=("10.0.0.7",))),
        ({"ipFamilies": '["IPv6", "ipv4"]'}, Wishes(families=(4, 6))),
        ({"ipFamilies": '["IPv6"]'}, Wishes(families=(6,))),
        (
            {"ipv4pools": '["a", "10.0.0.0/8"]', "ipv6pools": '["b"]'},
            Wishes(pools=("a", "10.0.0.0/8", "b"), pools_of=(4, 4, 6)),
        ),
        ({"floatingIPs": '["10.9.0.1", "10.9.0.1"]'}, Wishes(floating=("10.9.0.1",))),
        ({"allowedSourcePrefixes": '["10.1.2.3/16"]'}, Wishes(sources=("10.1.0.0/16",))),
        ({"hwAddr": "02-00-00-00-00-0A"}, Wishes(mac="02:00:00:00:00:0a")),
        ({"ipAddrs": "", "hwAddr": " ", "floatingIPs": "[]"}, Wishes()),
    ],
)
def test_annotations(annotations: dict[str, str], expected: Wishes) -> None:
    assert asked(**annotations) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ipAddrs", "10.0.0.7"),
        ("ipAddrs", '["x"]'),
        ("ipAddrs", '["10.0.0.7", "10.0.0.8"]'),
        ("ipAddrs", '["0.0.0.0"]'),
        ("ipAddrs", '["127.0.0.1"]'),
        ("ipAddrs", '["224.0.0.1"]'),
        ("ipAddrs", '["fe80::1"]'),
        ("ipAddrsNoIpam", '{"a": 1}'),
        ("ipAddrsNoIpam", '["10.0.0.0/24"]'),
        ("ipFamilies", '["IPv5"]'),
        ("ipv4pools", '"a"'),
        ("ipv4pools", '["fd00::/64"]'),
        ("ipv6pools", '["10.0.0.0/8"]'),
        ("floatingIPs", '["nowhere"]'),
        ("allowedSourcePrefixes", '["10.0.0.0/40"]'),
        ("allowedSourcePrefixes", '["fe80::% accept; flush ruleset; #/64"]'),
        ("floatingIPs", '["2001:db8::1%eth0"]'),
        ("ipAddrs", '["2001:db8::1%eth0"]'),
        ("hwAddr", "02:00:00:00:00"),
        ("hwAddr", "03:00:00:00:00:01"),
        ("hwAddr", "00:00:00:00:00:00"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_annotation(name: str, text: str) -> None:
    with pytest.raises(CniError, match=f"annotation cni.projectcalico.org/{name}: ") as caught:
        asked(**{name: text})
    assert caught.value.code == Code.INVALID_CONFIGURATION


@pytest.mark.parametrize(
    ("name", "text", "conf", "allowed", "told"),
    [
        ("ipAddrsNoIpam", '["10.0.0.7"]', {}, EVERYTHING, "ip_addrs_no_ipam"),
        ("floatingIPs", '["10.0.0.7"]', {}, EVERYTHING, "floating_ips"),
        ("floatingIPs", '["10.0.0.7"]', FEATURES, Allowed(sources=True), "spec.floatingIPs: Enabled"),
        ("allowedSourcePrefixes", '["10.0.0.0/8"]', FEATURES, Allowed(floating=True), "workloadSourceSpoofing: Any"),
    ],
)
def test_what_is_not_allowed_says_what_would_allow_it(
    name: str, text: str, conf: dict[str, Any], allowed: Allowed, told: str
) -> None:
    with pytest.raises(CniError, match=told):
        wishes(call(**conf), said(**{name: text}), {}, allowed)


def test_one_way_of_asking_for_addresses() -> None:
    with pytest.raises(CniError, match="ipAddrsNoIpam"):
        asked(ipAddrs='["10.0.0.7"]', ipAddrsNoIpam='["10.0.0.8"]')
    with pytest.raises(CniError, match=r"floatingIPs: .*ipAddrsNoIpam"):
        asked(ipAddrsNoIpam='["10.0.0.7"]', floatingIPs='["10.9.0.1"]')
    host_local = {"ipam": {"type": "host-local", "subnet": "usePodCidr"}}
    for name, text in (("ipAddrs", '["10.0.0.7"]'), ("ipv4pools", '["a"]'), ("ipv6pools", '["a"]')):
        with pytest.raises(CniError, match=f"{name}: .*podCIDRs"):
            asked(host_local, **{name: text})
    assert asked(host_local, said(ipv4pools='["a"]')).pools == (), "the namespace's are not the pod's own wish"


@pytest.mark.parametrize("family", [4, 6])
def test_pools_and_families_by_precedence(family: int) -> None:
    name = f"ipv{family}pools"
    conf = {"ipam": {f"ipv{family}_pools": ["conf"], "assign_ipv4": "true"}}
    of_namespace = said(**{name: '["namespace"]', "ipFamilies": '["IPv6"]'})
    assert asked(conf, of_namespace, **{name: '["pod"]', "ipFamilies": '["IPv4", "IPv6"]'}) == Wishes(
        pools=("pod",), pools_of=(family,), families=(4, 6)
    )
    assert asked(conf, of_namespace) == Wishes(pools=("namespace",), pools_of=(family,), families=(6,))
    assert asked(conf) == Wishes(pools=("conf",), pools_of=(family,), families=(4,))


@pytest.mark.parametrize(
    ("wanting", "particular"),
    [
        (Wishes(), False),
        (Wishes(families=(4,), mac="02:00:00:00:00:01", floating=("10.0.0.1",), sources=("10.0.0.0/8",)), False),
        (Wishes(pools=("a",)), True),
        (Wishes(addresses=("10.0.0.1",)), True),
        (Wishes(unassigned=("10.0.0.1",)), True),
        (Wishes(from_pod_cidr=True), True),
        (Wishes(max_blocks=1), True),
    ],
)
def test_whom_any_address_suits(wanting: Wishes, *, particular: bool) -> None:
    assert wanting.particular is particular


def test_requests() -> None:
    conf = {"ipam": {"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]], "max_blocks_per_host": 3}}
    made = request(call(**conf), NODE, asked(conf))
    assert (made.handle, made.namespace, made.pod, made.from_pod_cidr) == ("net.c1", "test", "web", True)
    assert (made.families, made.max_blocks_per_node) == ((4,), 3)
    floating = floating_request(call(), NODE, asked(floatingIPs='["10.9.0.1"]'))
    assert (floating.handle, floating.use, floating.addresses) == ("net.c1.floating", "floating", ("10.9.0.1",))


def test_a_floating_address_is_translated_to_one_of_its_family() -> None:
    own = ("10.0.0.5", "fd00::5")
    assert translated(("fd09::1", "10.9.0.1"), own) == (("fd09::1", "fd00::5"), ("10.9.0.1", "10.0.0.5"))
    with pytest.raises(CniError, match="floatingIPs"):
        translated(("fd09::1",), ("10.0.0.5",))


@pytest.mark.parametrize(
    ("pod", "namespace", "found"),
    [
        ({}, {}, ()),
        ({"ipAddrs": '["10.0.0.7"]'}, {}, ("ipAddrs",)),
        ({"ipAddrsNoIpam": "x", "floatingIPs": "x"}, {}, ("ipAddrsNoIpam", "floatingIPs")),
        ({}, {"ipv4pools": '["a"]'}, ("ipv4pools",)),
        ({"hwAddr": "02:00:00:00:00:01"}, {}, ()),
        ({"hwAddr": "02:00:00:00:00:02"}, {}, ("hwAddr",)),
        ({"ipFamilies": '["IPv4"]'}, {}, ()),
        ({"ipFamilies": '["IPv6"]'}, {"ipFamilies": '["IPv4"]'}, ("ipFamilies",)),
        ({"ipFamilies": "nonsense"}, {}, ("ipFamilies",)),
    ],
)
def test_what_a_pod_asked_for_that_nobody_could_read(
    pod: dict[str, str], namespace: dict[str, str], found: tuple[str, ...]
) -> None:
    names = asked_beside(said(**pod), said(**namespace), ("10.0.0.5",), "02:00:00:00:00:01")
    assert names == tuple(f"cni.projectcalico.org/{name}" for name in found)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, Wishes(addresses=("10.0.0.9",), mac="02:00:00:00:00:09")),
        ({"ipAddrs": '["10.0.0.7"]'}, Wishes(addresses=("10.0.0.7",), mac="02:00:00:00:00:09")),
        ({"ipAddrsNoIpam": '["10.0.0.7"]'}, Wishes(unassigned=("10.0.0.7",), mac="02:00:00:00:00:09")),
        ({"hwAddr": "02:00:00:00:00:0a"}, Wishes(addresses=("10.0.0.9",), mac="02:00:00:00:00:0a")),
    ],
)
def test_what_the_runtime_asks_for_counts_where_annotations_say_nothing(
    annotations: dict[str, str], expected: Wishes
) -> None:
    runtime = {"runtimeConfig": {"ips": ["10.0.0.9/24"], "mac": "02:00:00:00:00:09"}}
    assert asked(runtime, **annotations) == expected


def test_an_address_that_the_runtime_asks_for_is_not_of_the_nodes_own() -> None:
    with pytest.raises(CniError, match=r"the runtime asks for 10\.0\.0\.9, and"):
        asked(
            {"ipam": {"type": "host-local", "subnet": "usePodCidr"}, "runtimeConfig": {"ips": ["10.0.0.9"]}},
        )
