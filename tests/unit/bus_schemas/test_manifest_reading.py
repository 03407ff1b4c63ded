"""What holds for manifests of every kind: groups, lists, names, unknown fields, positions, how Calico stores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus_schemas.manifests import Accepted, Fault, Rejected, read, read_object, to_manifest
from bus_schemas.resources import (
    KINDS,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    EndpointSlice,
    GlobalNetworkPolicy,
    HostEndpoint,
    IPAMConfiguration,
    IPPool,
    Namespace,
    NetworkPolicy,
    Pod,
    Resource,
)
from tests.support.manifests import accepted, calico_rule, faults, global_policy, manifest, pool, warnings


def test_one_bad_document_hides_no_other() -> None:
    text = f"{pool('{cidr: 10.0.0.0/16}')}---\n[\n---\n{pool('{cidr: 10.0.0.1/16}')}---\n{global_policy('{}')}"
    good, broken, wrong, last = read(text, "pools.yaml")
    assert isinstance(good, Accepted)
    assert isinstance(good.resource, IPPool)
    assert isinstance(broken, Rejected)
    assert (broken.document, broken.faults[0].path) == (1, "")
    assert wrong == Rejected(
        (Fault(2, "spec.cidr", "has bits set behind the mask: did you mean 10.0.0.0/16?", 8, "pools.yaml"),),
        2,
        "IPPool/x",
    )
    assert isinstance(last, Accepted)
    assert (last.document, last.resource.KIND) == (3, "GlobalNetworkPolicy")


def test_all_faults_are_told_at_once() -> None:
    assert faults(global_policy("{ordr: 1, selector: 'a =', ingress: [{action: allow}, {source: {nets: [x]}}]}")) == [
        "spec.ingress[0].action: must be one of Allow, Deny, Log, Pass, not 'allow'",
        "spec.ingress[1].action: is required",
        "spec.ingress[1].source.nets[0]: must be a CIDR (like 10.0.0.0/8 or 10.0.0.1), not 'x'",
        "spec.selector: not a selector: expected '==' at position 2 of 'a ='",
        "spec.ordr: unknown field, did you mean 'order'?",
    ]


def test_a_fault_reads_like_a_compiler_message() -> None:
    (outcome,) = read("\n\n" + pool("{}"), "a.yaml")
    assert isinstance(outcome, Rejected)
    assert list(map(str, outcome.faults)) == ["a.yaml:3: spec.cidr: is required"]


LIST = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- {apiVersion: v1, kind: Namespace, metadata: {name: B}}
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.0.0.0/24}}
"""


def test_lists_are_their_items() -> None:
    a, b, p = read(LIST)
    assert isinstance(a, Accepted)
    assert a.resource == accepted("{apiVersion: v1, kind: Namespace, metadata: {name: a}}")
    assert isinstance(b, Rejected)
    assert [fault.path for fault in b.faults] == ["items[1].metadata.name"]
    assert isinstance(p, Accepted)
    assert p.document == 2


def test_items_of_a_typed_list_need_not_say_what_they_are() -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}]})
    assert accepted(text) == accepted("{apiVersion: v1, kind: Pod, metadata: {name: a}}")
    assert read('{"apiVersion": "v1", "kind": "PodList", "items": null}') == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[1]", ": must be an object with apiVersion, kind and metadata, not a list"),
        ("text", ": must be an object with apiVersion, kind and metadata, not 'text'"),
        ("{kind: Pod, metadata: {name: a}}", "apiVersion: is required"),
        ("{apiVersion: v1, metadata: {name: a}}", "kind: is required"),
        ("{apiVersion: 1, kind: Pod}", "apiVersion: must be text, not 1 (a number in YAML: put it in quotes)"),
        (
            "{apiVersion: v1, kind: IPPool}",
            "kind: IPPool is known with the apiVersion crd.projectcalico.org/v1 or projectcalico.org/v3, not 'v1'",
        ),
        ("{apiVersion: projectcalico.org/v3, kind: BlockAffinity}", "kind: BlockAffinity is not supported yet"),
    ],
)
def test_objects_that_are_none(text: str, fault: str) -> None:
    assert fault in faults(text)


def test_an_unknown_kind_is_told_what_is_known() -> None:
    (fault,) = faults("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}")
    assert fault.startswith("kind: Deployment of 'apps/v1' is no kind known here (Namespace, ")


REQUIRED: dict[type[Resource], dict[str, Any]] = {
    IPPool: {"spec": {"cidr": "10.0.0.0/24"}},
    EndpointSlice: {"addressType": "IPv4"},
    HostEndpoint: {"spec": {"node": "a", "interfaceName": "*"}},
    ClusterNetworkPolicy: {"spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}},
    AdminNetworkPolicy: {"spec": {"priority": 1, "subject": {"namespaces": {}}}},
    BaselineAdminNetworkPolicy: {"spec": {"subject": {"namespaces": {}}}},
}
"""What an object must have beside apiVersion, kind and a name."""


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_kind_has_a_reader(kind: type[Resource]) -> None:
    name = "default" if kind in (BaselineAdminNetworkPolicy, IPAMConfiguration) else "a"
    value = {"apiVersion": kind.API_VERSION, "kind": kind.KIND, "metadata": {"name": name}}
    outcome = read_object(value | REQUIRED.get(kind, {}))
    assert isinstance(outcome, Accepted)
    assert type(outcome.resource) is kind
    assert outcome.resource.key == ("default" if kind.NAMESPACED else "", name)
    assert read_object(to_manifest(outcome.resource)) == outcome


# --- metadata


@pytest.mark.parametrize("name", ["a", "a-b.c", "0", "x" * 253])
def test_names(name: str) -> None:
    assert accepted(manifest("projectcalico.org/v3", "IPPool", "{cidr: 10.0.0.0/24}", f"{{name: '{name}'}}"))


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", "x" * 254, "a/b", "a\n", "ä"])
def test_names_that_are_none(name: str) -> None:
    text = json.dumps({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name}})
    assert any(fault.startswith("metadata.name: ") for fault in faults(text))


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ("{}", "metadata.name: is required"),
        ("{generateName: a-}", "metadata.generateName: is not supported: give the object a name"),
        ("{name: a, namespace: b}", "metadata.namespace: must not be given: the object is cluster-wide"),
        ("{name: 5}", "metadata.name: must be text, not 5 (a number in YAML: put it in quotes)"),
        ("{name: a, labels: {on: x}}", "quote it"),
        ("{name: a, labels: {a: true}}", "metadata.labels[a]: must be text, not true (a boolean in YAML"),
        ("{name: a, labels: {a: 1.10}}", "metadata.labels[a]: must be text, not 1.1 (a number in YAML"),
        ("{name: a, labels: {'a b': x}}", "metadata.labels[a b]: the key 'a b' must be letters"),
        ("{name: a, labels: {'/a': x}}", "must have a DNS name before the '/'"),
        ("{name: a, labels: {'A/a': x}}", "must have a DNS name before the '/'"),
        ("{name: a, labels: {a: 'x y'}}", "metadata.labels[a]: must be letters, digits"),
        (f"{{name: a, labels: {{a: {'x' * 64}}}}}", "at most 63"),
        ("{name: a, labels: [a]}", "metadata.labels: must be a mapping, not a list"),
        ("{name: a, annotations: {'a b': x}}", "metadata.annotations[a b]"),
        (f"{{name: a, annotations: {{a: {'x' * 300_000}}}}}", "262144 bytes"),
        ("{name: a, lables: {a: x}}", "metadata.lables: unknown field, did you mean 'labels'?"),
        ("a", "metadata: must be a mapping, not 'a'"),
    ],
)
def test_metadata_that_is_refused(metadata: str, fault: str) -> None:
    found = faults(f"apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {metadata}\nspec: {{}}")
    assert any(fault in text for text in found), found


def test_what_the_api_server_adds_to_metadata_is_passed_over() -> None:
    resource = accepted(
        """
        apiVersion: projectcalico.org/v3
        kind: GlobalNetworkPolicy
        metadata:
          name: a
          uid: u-1
          creationTimestamp: 2024-01-02T03:04:05Z
          resourceVersion: "12"
          generation: 1
          managedFields: [{}]
          finalizers: null
          labels: null
          annotations: {ProjectCalico.org/Note: any text at all}
        spec: {}
        status: {conditions: []}
        """
    )
    assert resource.metadata.creation_timestamp == "2024-01-02T03:04:05Z"
    assert resource.metadata.uid == "u-1"
    assert resource.metadata.annotations == {"ProjectCalico.org/Note": "any text at all"}


# --- unknown fields


def test_a_misspelt_field_of_a_policy_is_refused() -> None:
    for wrong, right in [("selectr", "selector"), ("ingres", "ingress"), ("Egress", "egress"), ("type", "types")]:
        assert f"spec.{wrong}: unknown field, did you mean {right!r}?" in faults(global_policy(f"{{{wrong}: x}}"))
    assert "spce: unknown field, did you mean 'spec'?" in faults(global_policy("{}").replace("spec:", "spce:"))


def test_an_unknown_field_of_calico_is_a_warning() -> None:
    assert warnings(pool("{cidr: 10.0.0.0/8, colour: x}")) == ["spec.colour: not used here, ignored"]


def test_an_unknown_field_of_a_policy_is_refused() -> None:
    assert faults(global_policy("{policyTypes: [Egress]}")) == ["spec.policyTypes: unknown field"]
    assert faults(calico_rule("{action: Allow, from: [], source: {labels: {a: b}}}")) == [
        "spec.ingress[0].source.labels: unknown field",
        "spec.ingress[0].from: unknown field",
    ]


def test_core_kinds_have_fields_of_others() -> None:
    pod = accepted(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, lables: {}}, spec: {nodename: b, volumes: []}, x: 1}"
    )
    assert pod == accepted("{apiVersion: v1, kind: Pod, metadata: {name: a}}")


# --- as Calico stores


def test_a_stored_policy_loses_its_tier_prefix() -> None:
    stored = manifest("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "{order: 1}", "{name: default.a}")
    assert accepted(stored) == accepted(
        manifest("projectcalico.org/v3", "GlobalNetworkPolicy", "{order: 1}", "{name: a}")
    )
    assert isinstance(accepted(stored), GlobalNetworkPolicy)


def test_a_pools_name_may_begin_with_default() -> None:
    resource = accepted(manifest("crd.projectcalico.org/v1", "IPPool", "{cidr: 10.0.0.0/24}", "{name: default.a}"))
    assert resource.metadata.name == "default.a"


def test_the_metadata_of_a_stored_object_is_in_its_annotation() -> None:
    stored = {"name": "default.a", "labels": {"b": "c"}, "annotations": {"d": "e"}, "uid": "u"}
    text = json.dumps(
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": "default.default.a",
                "namespace": "n",
                "annotations": {"projectcalico.org/metadata": json.dumps(stored)},
            },
        }
    )
    policy = accepted(text)
    assert isinstance(policy, NetworkPolicy)
    assert policy.key == ("n", "default.a")
    assert (policy.metadata.labels, policy.metadata.annotations, policy.metadata.uid) == ({"b": "c"}, {"d": "e"}, "u")


@pytest.mark.parametrize("annotation", ["{", "[]", "5"])
def test_a_broken_metadata_annotation_is_refused(annotation: str) -> None:
    metadata = f"{{name: a, annotations: {{projectcalico.org/metadata: '{annotation}'}}}}"
    (fault,) = faults(manifest("crd.projectcalico.org/v1", "IPPool", "{cidr: 10.0.0.0/24}", metadata))
    assert fault.startswith("metadata.annotations[projectcalico.org/metadata]: must be the JSON")


# --- core kinds


def test_a_namespace_carries_its_name_as_a_label() -> None:
    namespace = accepted("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {b: c}}}")
    assert isinstance(namespace, Namespace)
    assert namespace.metadata.labels == {"b": "c", "kubernetes.io/metadata.name": "a"}


def test_a_pod() -> None:
    pod = accepted(
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: web, namespace: shop, labels: {app: web}}
        spec:
          nodeName: node1
          serviceAccount: robot
          initContainers: [{name: i, ports: [{containerPort: 1, name: first}]}]
          containers:
          - {name: a, image: x, ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP}]}
          - {name: b, ports: null}
        status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}, {ip: "FD00::07"}]}
        """
    )
    assert isinstance(pod, Pod)
    assert pod.key == ("shop", "web")
    assert (pod.spec.node_name, pod.spec.service_account_name, pod.spec.host_network) == ("node1", "robot", False)
    assert [(port.name, port.protocol, port.container_port) for port in pod.ports] == [
        ("http", "TCP", 80),
        ("", "UDP", 53),
        ("first", "TCP", 1),
    ]
    assert pod.status.pod_ips == ("10.0.0.7", "fd00::7")


def test_a_bare_pod_has_its_defaults() -> None:
    pod = accepted("{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {podIP: 10.0.0.7}}")
    assert isinstance(pod, Pod)
    assert (pod.metadata.namespace, pod.spec.service_account_name) == ("default", "default")
    assert pod.status.pod_ips == ("10.0.0.7",)
