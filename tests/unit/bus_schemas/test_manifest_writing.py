"""Writing: what Calico shows, in an order people know, and the same resource when it is read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.manifests import Accepted, read, to_manifest, to_yaml
from bus_schemas.resources import IPPool, Metadata, Namespace, Resource
from bus_schemas.resources.pools import IPPoolSpec
from tests.support.manifests import accepted, calico_rule, global_policy, kubernetes_policy, manifest, pool

TEXTS = [
    pool("{cidr: 10.244.0.0/16}"),
    pool("{cidr: 'fd00::/48', vxlanMode: Always, disabled: true, namespaceSelector: has(a), allowedUses: [Workload]}"),
    global_policy("{order: 1.5, types: [Egress], namespaceSelector: has(a), egress: [{action: Pass}]}"),
    calico_rule(
        "{action: Allow, protocol: ICMP, ipVersion: 4, notICMP: {type: 0, code: 0}, "
        "source: {nets: [10.0.0.1], serviceAccounts: {names: [a]}}}"
    ),
    calico_rule("{action: Allow, protocol: TCP, destination: {ports: [80, '1:2', http]}, notProtocol: 17}"),
    manifest("projectcalico.org/v3", "NetworkPolicy", "{selector: a == 'b'}", "{name: a, namespace: b}"),
    kubernetes_policy("{ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}"),
    kubernetes_policy("{policyTypes: [Egress], egress: [{}, {ports: [{port: 80, endPort: 90}, {protocol: UDP}]}]}"),
    kubernetes_policy("{podSelector: {matchExpressions: [{key: a, operator: In, values: ['on', '1e3']}]}}"),
    "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {b: c}}}",
    "{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, uid: u, annotations: {b: 'c\n\nd'}}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: m, containers: [{ports: [{containerPort: 1}]}]}"
    ", status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: '::1'}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: LoadBalancer, clusterIP: 10.0.0.9, "
    "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90}}, healthCheckNodePort: 32000, "
    "externalTrafficPolicy: Local, internalTrafficPolicy: Local, publishNotReadyAddresses: true, "
    "loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 80, nodePort: 30080}]}, "
    "status: {loadBalancer: {ingress: [{ip: 198.51.100.1, ipMode: Proxy}, {hostname: a.example}]}}}",
    "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, namespace: b}, addressType: IPv4, "
    "ports: [{port: 80}], endpoints: [{addresses: [10.1.0.1], nodeName: node1, "
    "conditions: {ready: false, serving: true, terminating: true}}]}",
    manifest("projectcalico.org/v3", "Node", "{bgp: {ipv4Address: 10.0.0.15/24, asNumber: 1}}"),
    "{apiVersion: v1, kind: Node, metadata: {name: a}, spec: {podCIDR: 10.0.0.0/24}, "
    "status: {addresses: [{address: 10.0.0.1, type: InternalIP}]}}",
    manifest("projectcalico.org/v3", "FelixConfiguration", "{vxlanPort: 1, logPrefix: 'on', vxlanMTU: 0}"),
    manifest("projectcalico.org/v3", "BGPConfiguration", "{nodeToNodeMeshEnabled: false}", "{name: default}"),
    manifest("projectcalico.org/v3", "BGPPeer", "{peerIP: '10.0.0.1:180', asNumber: 65001, filters: [one]}"),
    manifest(
        "projectcalico.org/v3",
        "BGPFilter",
        "{importV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, operations: [{setPriority: {value: 1}}]}]}",
    ),
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_was_written_reads_the_same(text: str) -> None:
    resource = accepted(text)
    assert accepted(to_yaml(resource)) == resource


def test_many_are_written_as_many_documents() -> None:
    resources = [accepted(text) for text in TEXTS]
    assert read(to_yaml(resources)) == [Accepted(resource, (), i) for i, resource in enumerate(resources)]


def test_a_pool_shows_its_defaults() -> None:
    bare = IPPool(metadata=Metadata(name="a"), spec=IPPoolSpec(cidr="10.244.0.0/16"))
    assert to_yaml(bare) == (
        "apiVersion: projectcalico.org/v3\n"
        "kind: IPPool\n"
        "metadata:\n"
        "  name: a\n"
        "spec:\n"
        "  allowedUses:\n"
        "  - Workload\n"
        "  - Tunnel\n"
        "  assignmentMode: Automatic\n"
        "  blockSize: 26\n"
        "  cidr: 10.244.0.0/16\n"
        "  ipipMode: Never\n"
        "  natOutgoing: false\n"
        "  nodeSelector: all()\n"
        "  vxlanMode: Never\n"
    )


def test_a_policy_shows_its_tier_and_types() -> None:
    assert to_manifest(accepted(global_policy("{order: 1e3, ingress: [{action: Allow}]}")))["spec"] == {
        "ingress": [{"action": "Allow", "source": {}, "destination": {}}],
        "order": 1000,
        "tier": "default",
        "types": ["Ingress"],
    }


def test_an_objects_identity_comes_first() -> None:
    written = to_manifest(accepted(TEXTS[0]))
    assert list(written) == ["apiVersion", "kind", "metadata", "spec"]


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(alphabet="0123456789abcdefox._+-:eE~nyNO", max_size=8),
    )
)
def test_any_text_survives(text: str) -> None:
    resource: Resource = Namespace(
        metadata=Metadata(name="a", labels={"kubernetes.io/metadata.name": "a"}, annotations={"note": text})
    )
    assert accepted(to_yaml(resource)) == resource
