"""One object of Kubernetes -> one resource of the bus, or what is wrong with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.manifests import Accepted
from bus_schemas.manifests.reading import read_object
from bus_schemas.resources import KubernetesNetworkPolicy, Pod
from services.kube_bridge.errors import KubeError
from services.kube_bridge.mirror import MARK, Reader, Seen
from services.kube_bridge.sources import CALICO_STORED, RULES, SOURCES, Source
from tests.support.kube_cluster import calico, policy, source_of

PODS = source_of("v1", "Pod")
POLICIES = source_of("networking.k8s.io/v1", "NetworkPolicy")


FIELDS = st.sampled_from(
    ["selector", "ingress", "egress", "action", "podSelector", "cidr", "from", "ports", "nets", "types", "peers", "x"]
)


def read(source: Source, body: dict[str, Any]) -> Seen:
    metadata = {"uid": "u1", "resourceVersion": "7", "generation": 3, **body.get("metadata", {})}
    return Reader(source, "cluster").read(msgspec.json.encode({**body, "metadata": metadata}))


def pod(**more: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "web"}, **more}


SERVICE: dict[str, Any] = {
    "metadata": {"namespace": "shop", "name": "web"},
    "spec": {
        "type": "LoadBalancer",
        "clusterIPs": ["10.96.0.1", "fd96::1"],
        "externalIPs": ["198.51.100.2"],
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90}},
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "publishNotReadyAddresses": True,
        "healthCheckNodePort": 32000,
        "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP", "targetPort": "web"}],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "Proxy"}, {"hostname": "a.example"}]}},
}
SLICE: dict[str, Any] = {
    "metadata": {"namespace": "shop", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    "endpoints": [
        {
            "addresses": ["10.244.0.1"],
            "nodeName": "node1",
            "conditions": {"ready": False, "serving": True, "terminating": True},
            "hints": {"forZones": [{"name": "z"}]},
        }
    ],
}


@pytest.mark.parametrize(
    ("version", "kind", "body"), [("v1", "Service", SERVICE), ("discovery.k8s.io/v1", "EndpointSlice", SLICE)]
)
def test_a_service_says_here_what_it_says_in_a_manifest(version: str, kind: str, body: dict[str, Any]) -> None:
    """Nothing that is read of it is lost with what is not decoded."""
    seen = read(source_of(version, kind), body).resource
    whole = read_object({"apiVersion": version, "kind": kind, **body})
    assert isinstance(whole, Accepted)
    assert (seen.spec, getattr(seen, "status", None)) == (whole.resource.spec, getattr(whole.resource, "status", None))  # type: ignore[union-attr]


def test_a_pod_is_what_a_network_needs_of_it() -> None:
    probes = {"name": "sidecar", "livenessProbe": {"exec": {"command": ["true"]}}, "ports": None}
    web = {"name": "web", "ports": [{"containerPort": 80, "name": "http"}]}
    annotations = {
        "cni.projectcalico.org/ipv4pools": '["a"]',
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "prometheus.io/scrape": "true",
        MARK: "somebody else's",
    }
    seen = read(
        PODS,
        {
            "metadata": {"namespace": "shop", "name": "web", "labels": {"a": "b"}, "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": [web, probes], "volumes": [{"name": "v"}], "initContainers": None},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": "nonsense"},
        },
    )
    assert (seen.name, seen.key, seen.uid, seen.version) == (("shop", "web"), ("shop", "web"), "u1", "7")
    resource = seen.resource
    assert isinstance(resource, Pod)
    assert resource.metadata.annotations == {"cni.projectcalico.org/ipv4pools": '["a"]', MARK: "cluster"}
    assert [port.container_port for port in resource.ports] == [80]
    assert [container.name for container in resource.spec.containers] == ["web"]
    assert (resource.spec.node_name, resource.status.pod_ips) == ("n1", ("10.0.0.1",))


@pytest.mark.parametrize("nothing", [{}, {"spec": None, "status": None}, {"spec": {"containers": []}}])
def test_a_pod_without_a_node_is_one(nothing: dict[str, Any]) -> None:
    seen = read(PODS, pod(**nothing))
    assert seen.resource is not None
    assert seen.faults == ()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (pod(status={"podIP": "not-an-address"}), "status.podIP"),
        (pod(spec={"nodeName": 7}), "nodeName"),
        (pod(spec={"containers": [{"ports": [{"containerPort": 700000}]}]}), "containerPort"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], fault: str) -> None:
    seen = read(PODS, body)
    assert seen.resource is None
    assert fault in "; ".join(seen.faults)
    assert seen.key == ("shop", "web")


def test_what_has_no_name_is_no_object() -> None:
    with pytest.raises(KubeError, match="an object that is none"):
        Reader(PODS, "c").read(b'{"metadata": {}}')


@pytest.mark.parametrize(
    ("spec", "types", "selects"),
    [
        ({"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{"wrong": 1}]}, ("Ingress",), {"a": "b"}),
        ({"podSelector": {}, "egress": [{"wrong": 1}]}, ("Ingress", "Egress"), {}),
        ({"podSelector": {"wrong": 1}, "policyTypes": ["Egress"]}, ("Egress",), {}),
    ],
)
def test_a_network_policy_that_is_not_understood_isolates(
    spec: dict[str, Any], types: tuple[str, ...], selects: dict[str, str]
) -> None:
    seen = read(POLICIES, policy("shop", "web", spec))
    assert seen.resource is None
    stand_in = seen.stand_in
    assert isinstance(stand_in, KubernetesNetworkPolicy)
    assert (stand_in.spec.policy_types, stand_in.spec.ingress, stand_in.spec.egress) == (types, (), ())
    assert stand_in.spec.pod_selector.match_labels == selects


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize(
    ("name", "annotations", "key"),
    [
        ("default.deny", {}, "deny"),
        ("deny", {}, "deny"),
        ("whatever", {"projectcalico.org/metadata": '{"name": "deny"}'}, "deny"),
        ("whatever", {"projectcalico.org/metadata": '{"annotations": {}}'}, "whatever"),
    ],
)
def test_stored_policies_have_the_key_of_what_they_stand_for(
    name: str, annotations: dict[str, str], key: str, good: bool
) -> None:
    body = calico("GlobalNetworkPolicy", name, {"selector": "all()" if good else "all("}, stored=True)
    body["metadata"]["annotations"] = annotations
    seen = read(source_of("crd.projectcalico.org/v1", "GlobalNetworkPolicy"), body)
    assert (seen.resource is not None) == good
    assert (seen.name, seen.key) == (("", name), ("", key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=6) | st.sampled_from(["Ingress", "all()"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(SOURCES), st.dictionaries(st.sampled_from(["spec", "status", "endpoints", "ports"]), JSON), JSON)
def test_whatever_an_object_says_it_is_read_or_named(source: Source, body: dict[str, Any], annotations: Any) -> None:
    metadata = {"namespace": "shop" if source.resource.NAMESPACED else "", "name": "x", "annotations": annotations}
    raw = msgspec.json.encode({**body, "metadata": metadata})
    try:
        seen = Reader(source, "cluster").read(raw)
    except KubeError:
        assert not isinstance(annotations, dict | None) or not all(
            isinstance(v, str) for v in (annotations or {}).values()
        )
    else:
        assert (seen.resource is None) == bool(seen.faults)


def test_a_depth_that_nobody_reads_is_no_crash() -> None:
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    raw = b'{"metadata": {"name": "x"}, "spec": ' + deep + b"}"
    with pytest.raises(KubeError, match="nested too deeply"):
        Reader(source_of("projectcalico.org/v3", "IPPool"), "c").read(raw)


def test_every_source_can_be_reported_on_as_the_rules_say() -> None:
    granted = {(rule.group, rule.resource) for rule in RULES if "patch" in rule.verbs}
    assert all((source.group, f"{source.plural}/status") in granted for source in SOURCES if source.reports)
    assert len({(source.group, source.plural) for source in SOURCES}) == len(SOURCES)
    assert any(source.group == CALICO_STORED for source in SOURCES)
