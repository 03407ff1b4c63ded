"""Cluster-wide policies, staged policies, tiers, network sets, host endpoints, profiles, services: each in and out."""

from __future__ import annotations

import pytest

from bus_schemas.manifests import Accepted, read_object, to_manifest
from bus_schemas.resources import ClusterNetworkPolicy, EndpointSlice, NetworkPolicy, Tier
from bus_schemas.resources.cluster_policy import ClusterPolicyPort
from tests.support.manifests import accepted, faults, manifest

CALICO = "projectcalico.org/v3"
STORED = "crd.projectcalico.org/v1"
CLUSTER = "policy.networking.k8s.io/v1alpha2"
OLDER = "policy.networking.k8s.io/v1alpha1"

SUBJECT = "subject: {namespaces: {}}"
PEER = "[{namespaces: {}}]"
BY_NAME = "{name: a}"


def cluster(rules: str) -> str:
    return manifest(CLUSTER, "ClusterNetworkPolicy", f"{{tier: Admin, priority: 1, {SUBJECT}, {rules}}}")


def egress(rule: str) -> str:
    return cluster(f"egress: [{{action: Deny, {rule}}}]")


GOOD = [
    cluster("ingress: []"),
    egress("to: [{networks: [10.0.0.0/8, 'fd00::/8']}, {nodes: {matchLabels: {a: b}}}]"),
    egress("to: [{pods: {namespaceSelector: {}, podSelector: {matchExpressions: [{key: a, operator: Exists}]}}}]"),
    egress("to: [{pods: {podSelector: {}}}]"),
    egress(
        f"to: {PEER}, name: some rule, protocols: [{{tcp: {{destinationPort: {{number: 80}}}}}}, "
        "{udp: {destinationPort: {range: {start: 1, end: 2}}}}, {sctp: {}}, {destinationNamedPort: web}]"
    ),
    manifest(CLUSTER, "ClusterNetworkPolicy", f"{{tier: Baseline, priority: 1000, {SUBJECT}}}"),
    manifest(
        OLDER,
        "AdminNetworkPolicy",
        f"{{priority: 0, {SUBJECT}, ingress: [{{action: Allow, from: {PEER}, ports: [{{portNumber: {{port: 1}}}}, "
        "{portRange: {protocol: UDP, start: 1, end: 9}}, {namedPort: web}]}]}",
    ),
    manifest(
        OLDER,
        "BaselineAdminNetworkPolicy",
        f"{{{SUBJECT}, egress: [{{action: Deny, to: {PEER}}}]}}",
        "{name: default}",
    ),
    *(
        manifest(version, kind, spec, "{name: x}")
        for version in (CALICO, STORED)
        for kind, spec in (
            ("Tier", "{order: 10.5, defaultAction: Pass}"),
            ("Tier", "{}"),
            ("NetworkSet", "{nets: [10.0.0.1, 10.0.0.0/8, 'fd00::/8']}"),
            ("GlobalNetworkSet", "{}"),
            ("HostEndpoint", "{node: n1, interfaceName: eth0, profiles: [kns.default]}"),
            ("HostEndpoint", "{node: n1, interfaceName: '*'}"),
            (
                "HostEndpoint",
                "{node: n1, expectedIPs: [10.0.0.1, 'fd00::1'], ports: [{name: a, protocol: TCP, port: 1}]}",
            ),
            ("Profile", "{ingress: [{action: Allow}], egress: [{action: Deny}], labelsToApply: {a: b}}"),
            ("StagedNetworkPolicy", "{stagedAction: Delete, tier: other}"),
            ("StagedNetworkPolicy", "{ingress: [{action: Allow, source: {services: {name: a}}}]}"),
            ("StagedGlobalNetworkPolicy", "{stagedAction: Ignore, doNotTrack: true, applyOnForward: true}"),
            ("StagedKubernetesNetworkPolicy", "{stagedAction: Delete}"),
            ("StagedKubernetesNetworkPolicy", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"),
            ("GlobalNetworkPolicy", "{tier: other, preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]}"),
            (
                "GlobalNetworkPolicy",
                "{egress: [{action: Allow, destination: {services: {name: a, namespace: b}}}]}",
            ),
        )
    ),
    manifest(
        "v1",
        "Service",
        "{clusterIPs: [10.96.0.1], type: NodePort, ports: [{port: 80, name: a, nodePort: 30000}], selector: {a: b}}",
    ),
    manifest("v1", "Service", "{clusterIP: None}"),
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_written_reads_back_the_same(text: str) -> None:
    resource = accepted(text)
    assert read_object(to_manifest(resource)) == Accepted(resource, (), 0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (manifest(CLUSTER, "ClusterNetworkPolicy", f"{{priority: 1, {SUBJECT}}}"), "spec.tier: is required"),
        (manifest(CLUSTER, "ClusterNetworkPolicy", f"{{tier: Admin, {SUBJECT}}}"), "spec.priority: is required"),
        (
            manifest(CLUSTER, "ClusterNetworkPolicy", f"{{tier: Admin, priority: 1001, {SUBJECT}}}"),
            "spec.priority: must be from 0 to 1000",
        ),
        (manifest(CLUSTER, "ClusterNetworkPolicy", "{tier: Admin, priority: 1}"), "spec.subject: is required"),
        (
            manifest(CLUSTER, "ClusterNetworkPolicy", "{tier: Admin, priority: 1, subject: {}}"),
            "spec.subject: must have exactly one of namespaces, pods, not none",
        ),
        (cluster("ingress: [{action: Allow, from: [{namespaces: {}}]}]"), "action: must be one of Accept, Deny, Pass"),
        (cluster("ingress: [{action: Deny, from: []}]"), "spec.ingress[0].from: must name at least one peer"),
        (cluster("ingress: [{action: Deny}]"), "spec.ingress[0].from: must name at least one peer"),
        (cluster("ingress: [{action: Deny, from: [{networks: [10.0.0.0/8]}]}]"), "from[0].networks: unknown field"),
        (cluster("ingress: [{action: Deny, from: [{nodes: {}}]}]"), "from[0].nodes: unknown field"),
        (cluster("ingres: []"), "spec.ingres: unknown field, did you mean 'ingress'?"),
        (egress("to: [{networks: []}]"), "networks: must name at least one network"),
        (egress("to: [{networks: [10.0.0.1]}]"), "networks[0]: must be a CIDR"),
        (egress("to: [{domainNames: ['*.example.com']}]"), "domainNames: is not supported"),
        (egress("to: [{namespaces: {}, nodes: {}}]"), "must have exactly one of namespaces, pods, nodes"),
        (egress("to: [{pods: {namespaceSelector: {}}}]"), "pods.podSelector: is required"),
        (egress(f"to: [{'{namespaces: {}}, ' * 26}]"), "to: must have at most 25 items, not 26"),
        (cluster(f"egress: [{'{}, ' * 26}]"), "spec.egress: must have at most 25 items, not 26"),
        (
            egress("to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]"),
            "spec.egress[0].to[0]: cannot be used together with a named port",
        ),
        (
            manifest(OLDER, "AdminNetworkPolicy", "{priority: 0, subject: {pods: {podSelector: {}}}}"),
            "spec.subject.pods.namespaceSelector: is required",
        ),
        (egress(f"to: {PEER}, protocols: []"), "protocols: must name at least one protocol"),
        (egress(f"to: {PEER}, protocols: [{{tcp: {{}}, udp: {{}}}}]"), "protocols[0]: must have exactly one of"),
        (egress(f"to: {PEER}, protocols: [{{tcp: {{destinationPort: {{}}}}}}]"), "must have exactly one of number"),
        (
            egress(f"to: {PEER}, protocols: [{{tcp: {{destinationPort: {{range: {{start: 9, end: 1}}}}}}}}]"),
            "range.end: must be greater than the start, 9",
        ),
        (
            manifest(OLDER, "BaselineAdminNetworkPolicy", f"{{{SUBJECT}}}", "{name: other}"),
            "metadata.name: must be 'default'",
        ),
        (
            manifest(
                OLDER,
                "BaselineAdminNetworkPolicy",
                f"{{{SUBJECT}, ingress: [{{action: Pass, from: {PEER}}}]}}",
                "{name: default}",
            ),
            "action: must be one of Allow, Deny",
        ),
        (manifest(CALICO, "Tier", "{order: 1}", "{name: a.b}"), "metadata.name: must be lower-case letters"),
        (manifest(CALICO, "Tier", "{order: 1}", "{name: default}"), "spec.order: is 1000000 in the tier default"),
        (manifest(CALICO, "Tier", "{defaultAction: Deny}", "{name: kube-admin}"), "spec.defaultAction: is Pass"),
        (
            manifest(CALICO, "NetworkSet", "{}", "{name: a, labels: {projectcalico.org/namespace: b}}"),
            "metadata.labels[projectcalico.org/namespace]: is set by the namespace",
        ),
        (manifest(CALICO, "NetworkSet", "{net: [10.0.0.0/8]}"), "spec.net: unknown field, did you mean 'nets'?"),
        (manifest(CALICO, "HostEndpoint", "{node: n1}"), "spec.interfaceName: is required where there are no"),
        (manifest(CALICO, "HostEndpoint", "{interfaceName: eth0}"), "spec.node: is required"),
        (
            manifest(CALICO, "HostEndpoint", "{node: n1, interfaceName: a-name-too-long-for-it}"),
            "spec.interfaceName: must be a device's name",
        ),
        (
            manifest(
                CALICO, "HostEndpoint", "{node: n1, interfaceName: a, ports: [{name: a, protocol: ICMP, port: 1}]}"
            ),
            "spec.ports[0].protocol: must be a protocol that has ports: TCP, UDP, SCTP",
        ),
        (manifest(CALICO, "Profile", "{}", "{name: kns.default}"), "metadata.name: 'kns.default' is made of"),
        (
            manifest(CALICO, "StagedNetworkPolicy", "{stagedAction: Delete, selector: has(a)}"),
            "spec.selector: must not be given where stagedAction is Delete",
        ),
        (
            manifest(
                CALICO, "StagedKubernetesNetworkPolicy", "{stagedAction: Delete, podSelector: {matchLabels: {a: b}}}"
            ),
            "spec.podSelector: must not be given where stagedAction is Delete",
        ),
        (
            manifest(CALICO, "NetworkPolicy", "{}", "{name: a, annotations: {tortie.io/existing-connections: maybe}}"),
            "metadata.annotations[tortie.io/existing-connections]: must be 'cut' or 'keep', not 'maybe'",
        ),
        (
            manifest(CALICO, "NetworkPolicy", "{ingress: [{action: Allow, http: {methods: [GET]}}]}"),
            "spec.ingress[0].http: matching of HTTP requests is not supported",
        ),
    ],
)
def test_what_is_refused_is_named(text: str, fault: str) -> None:
    assert any(fault in found for found in faults(text)), faults(text)


def test_both_groups_of_administrators_policies_come_to_the_same_rules() -> None:
    newer = accepted(
        cluster(
            f"ingress: [{{action: Accept, from: {PEER}, protocols: [{{tcp: {{destinationPort: {{number: 80}}}}}}]}}]"
        )
    )
    assert isinstance(newer, ClusterNetworkPolicy)
    older = accepted(
        manifest(
            OLDER,
            "AdminNetworkPolicy",
            f"{{priority: 1, {SUBJECT}, ingress: "
            f"[{{action: Allow, from: {PEER}, ports: [{{portNumber: {{port: 80}}}}]}}]}}",
        )
    )
    assert older.spec == newer.spec  # type: ignore[attr-defined]
    assert newer.spec.ingress[0].ports == (ClusterPolicyPort(protocol="TCP", first=80, last=80),)


def test_the_fixed_tiers_are_what_they_are() -> None:
    tier = accepted(manifest(CALICO, "Tier", "{}", "{name: kube-admin}"))
    assert isinstance(tier, Tier)
    assert (tier.spec.order, tier.spec.default_action) == (1000.0, "Pass")


def test_an_endpoint_slice_has_its_fields_at_the_top() -> None:
    slice_ = accepted(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, "
        "metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, "
        "endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}, nodeName: node1}], ports: [{port: 80}]}"
    )
    assert isinstance(slice_, EndpointSlice)
    assert slice_.service == "web"
    assert not slice_.spec.endpoints[0].ready
    assert read_object(to_manifest(slice_)) == Accepted(slice_, (), 0)


def test_a_stored_policy_of_another_tier_keeps_its_name() -> None:
    policy = accepted(manifest(STORED, "NetworkPolicy", "{tier: security}", "{name: security.a}"))
    assert isinstance(policy, NetworkPolicy)
    assert (policy.metadata.name, policy.spec.tier) == ("security.a", "security")
