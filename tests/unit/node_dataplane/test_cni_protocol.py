"""The CNI's words, by the rows of its specification."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus_schemas.ids import NodeName, PodKey
from services.node_dataplane import cni_protocol as cni
from services.node_dataplane import identity, wishes
from services.node_dataplane.cni_protocol import CniError, Code

ENV = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0"}
POD_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web;K8S_POD_UID=u1"
CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "tortie"}


def parse(env: dict[str, str] | None = None, conf: object = None, **fields: object) -> cni.Call:
    return cni.parse({**ENV, **(env or {})}, json.dumps({**CONF, **fields} if conf is None else conf))


@pytest.mark.parametrize(
    ("env", "conf", "code"),
    [
        ({"CNI_COMMAND": ""}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_COMMAND": "add"}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_CONTAINERID": ""}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_CONTAINERID": "../c"}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_IFNAME": "much-too-long-name"}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_IFNAME": "a/b"}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_IFNAME": ".."}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_NETNS": ""}, {}, Code.INVALID_ENVIRONMENT),
        ({"CNI_ARGS": "nonsense"}, {}, Code.INVALID_ENVIRONMENT),
        ({}, {"cniVersion": "0.2.0"}, Code.INCOMPATIBLE_VERSION),
        ({}, {"cniVersion": "2.0.0"}, Code.INCOMPATIBLE_VERSION),
        ({"CNI_COMMAND": "CHECK"}, {"cniVersion": "0.3.1"}, Code.INCOMPATIBLE_VERSION),
        ({"CNI_COMMAND": "GC"}, {"cniVersion": "1.0.0"}, Code.INCOMPATIBLE_VERSION),
        ({"CNI_COMMAND": "STATUS"}, {"cniVersion": "1.0.0"}, Code.INCOMPATIBLE_VERSION),
        ({"CNI_COMMAND": "CHECK"}, {}, Code.INVALID_CONFIGURATION),
        ({"CNI_COMMAND": "GC"}, {"cniVersion": "1.1.0"}, Code.INVALID_CONFIGURATION),
        ({}, {"name": ""}, Code.INVALID_CONFIGURATION),
        ({}, {"name": "a/b"}, Code.INVALID_CONFIGURATION),
        ({}, {"mtu": "big"}, Code.INVALID_CONFIGURATION),
        ({}, {"ipam": []}, None),
        ({}, {"ipam": "x"}, Code.INVALID_CONFIGURATION),
        ({}, {"ipam": {"ipv4_pools": "x"}}, Code.INVALID_CONFIGURATION),
    ],
)
def test_refusals_have_the_specifications_code(env: dict[str, str], conf: dict[str, Any], code: Code | None) -> None:
    if code is None:
        parse(env, **conf)
        return
    with pytest.raises(CniError) as caught:
        parse(env, **conf)
    assert caught.value.code == code


@pytest.mark.parametrize("stdin", ["", "{", "[]", '"x"'])
def test_what_is_no_configuration(stdin: str) -> None:
    with pytest.raises(CniError) as caught:
        cni.parse(ENV, stdin)
    assert caught.value.code == Code.UNDECODABLE


def test_identity_with_and_without_a_pod_resource() -> None:
    described = parse({"CNI_ARGS": POD_ARGS})
    assert identity.pod_of(described) == PodKey("test", "web")
    assert (identity.has_resource(described), identity.uid_of(described)) == (True, "u1")
    assert identity.handle_of(described) == "k8s-pod-network.c1"
    plain = parse(args={"cni": {"labels": [{"key": "app", "value": "x"}]}})
    assert identity.pod_of(plain) == PodKey("default", "c1")
    assert plain.config.labels == {"app": "x"}
    assert not identity.has_resource(plain)


@pytest.mark.parametrize(
    ("pod", "namespace", "conf", "pools"),
    [
        ('["a"]', '["b"]', ["c"], ("a",)),
        ("", '["b"]', ["c"], ("b",)),
        ("", "", ["c"], ("c",)),
        ("", "", [], ()),
    ],
)
def test_pools_by_precedence(pod: str, namespace: str, conf: list[str], pools: tuple[str, ...]) -> None:
    key = "cni.projectcalico.org/ipv4pools"
    call = parse({"CNI_ARGS": POD_ARGS}, ipam={"ipv4_pools": conf})
    asked = wishes.wishes(call, {key: pod}, {key: namespace}, wishes.Allowed())
    assert wishes.request(call, NodeName("n"), asked).pools == pools


def test_requested_addresses() -> None:
    key = "cni.projectcalico.org/ipAddrs"
    call = parse({"CNI_ARGS": POD_ARGS}, ipam={"assign_ipv4": "true"})
    assert call.config.families == (4,)
    request = wishes.request(call, NodeName("n"), wishes.wishes(call, {key: '["10.244.0.9"]'}, {}, wishes.Allowed()))
    assert (request.addresses, request.families) == (("10.244.0.9",), ())
    for bad in ('"x"', '["x"]', "10.244.0.9"):
        with pytest.raises(CniError, match=key):
            wishes.wishes(call, {key: bad}, {}, wishes.Allowed())


def test_valid_attachments_and_prev_result() -> None:
    rows = [{"containerID": "c1", "ifname": "eth0"}]
    call = parse({"CNI_COMMAND": "GC"}, cniVersion="1.1.0", **{"cni.dev/valid-attachments": rows})
    assert call.config.attachments == {("c1", "eth0")}
    check = parse({"CNI_COMMAND": "CHECK"}, prevResult={"ips": [{"address": "10.244.0.5/32"}]})
    assert check.config.previous is not None
    assert check.config.previous.addresses("eth0") == ("10.244.0.5",)
