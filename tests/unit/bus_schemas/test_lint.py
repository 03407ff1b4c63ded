"""Every check of lint: where it speaks, and right beside it where it must not."""

from __future__ import annotations

import pytest

from bus_schemas.lint import Landscape, lint
from bus_schemas.manifests import Accepted, read
from bus_schemas.resources import Pod, Resource

CLUSTER = """
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.244.0.0/16}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, spec: {bgp: {ipv4Address: 10.0.0.15/24}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: logs}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: agent, labels: {app: agent}}, spec: {hostNetwork: true}}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{port: 80}]}
"""


def resources(text: str) -> list[Resource]:
    found = []
    for outcome in read(text):
        assert isinstance(outcome, Accepted), outcome
        found.append(outcome.resource)
    return found


def findings(text: str, *, cluster: bool = True, beside: str = "") -> dict[str, str]:
    """Code -> path."""
    given = resources(text)
    landscape = Landscape.from_resources([*given, *resources(CLUSTER + beside)], cluster=cluster)
    return {finding.code: finding.path for finding in lint(given, landscape)}


METADATA = "metadata: {name: p, namespace: shop}"


def kubernetes(spec: str) -> str:
    return (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}"
    )


def calico(spec: str) -> str:
    return (
        f"apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}"
    )


def everywhere(spec: str) -> str:
    return f"apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}"


def host(labels: str = "{}", more: str = "") -> str:
    metadata = f"{{name: h, labels: {labels}}}"
    spec = f"{{node: n1, interfaceName: eth0{more}}}"
    return f"{{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {metadata}, spec: {spec}}}"


def peer(text: str) -> str:
    return kubernetes(f"{{podSelector: {{}}, ingress: [{{from: [{text}]}}]}}")


@pytest.mark.parametrize(
    ("code", "speaks", "silent"),
    [
        pytest.param(
            "selects-nothing",
            kubernetes("{podSelector: {matchLabels: {app: wbe}}}"),
            kubernetes("{podSelector: {matchLabels: {app: web}}}"),
            id="selects nothing",
        ),
        pytest.param(
            "selects-nothing",
            calico("{selector: app == 'wbe', ingress: [{action: Allow}]}"),
            calico("{selector: app == 'web', ingress: [{action: Allow}]}"),
            id="calico's selects nothing",
        ),
        pytest.param(
            "host-network",
            kubernetes("{podSelector: {matchLabels: {app: agent}}}"),
            kubernetes("{podSelector: {}}"),
            id="host network",
        ),
        pytest.param(
            "host-network",
            calico("{selector: app == 'agent', ingress: [{action: Allow}]}"),
            calico("{selector: has(app), ingress: [{action: Allow}]}"),
            id="calico's host network",
        ),
        pytest.param(
            "rules-without-type",
            kubernetes("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}"),
            kubernetes("{podSelector: {}, policyTypes: [Egress, Ingress], ingress: [{}]}"),
            id="rules without a type",
        ),
        pytest.param(
            "service-address",
            peer("{ipBlock: {cidr: 10.96.0.0/12}}"),
            peer("{ipBlock: {cidr: 10.97.0.0/16}}"),
            id="service address",
        ),
        pytest.param(
            "service-address",
            calico("{types: [Egress], egress: [{action: Allow, destination: {nets: [10.96.0.10/32]}}]}"),
            calico("{types: [Egress], egress: [{action: Allow, destination: {nets: [10.0.0.0/8]}}]}"),
            id="calico's service address",
        ),
        pytest.param(
            "block-of-pods",
            peer("{ipBlock: {cidr: 10.0.0.0/8}}"),
            peer("{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.0.0/16]}}"),
            id="block of pods",
        ),
        pytest.param(
            "block-of-pods",
            peer("{ipBlock: {cidr: 10.244.0.0/16}}"),
            peer("{ipBlock: {cidr: 0.0.0.0/0}}"),
            id="everybody is everybody",
        ),
        pytest.param(
            "namespace-label",
            peer("{namespaceSelector: {matchLabels: {name: logs}}}"),
            peer("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: logs}}}"),
            id="namespace label",
        ),
        pytest.param(
            "namespace-label",
            peer("{namespaceSelector: {matchExpressions: [{key: name, operator: In, values: [shop]}]}}"),
            peer("{namespaceSelector: {matchExpressions: [{key: name, operator: NotIn, values: [shop]}]}}"),
            id="namespace expression",
        ),
        pytest.param(
            "unknown-port",
            kubernetes("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: htpp}]}]}"),
            kubernetes("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}"),
            id="named port",
        ),
        pytest.param(
            "unknown-tier",
            calico("{tier: secrity, ingress: [{action: Allow}]}").replace("name: p,", "name: secrity.p,"),
            calico("{tier: default, ingress: [{action: Allow}]}"),
            id="tier",
        ),
        pytest.param(
            "log-only",
            calico("{ingress: [{action: Log}]}"),
            calico("{ingress: [{action: Log}, {action: Pass}]}"),
            id="log only",
        ),
        pytest.param(
            "shadowed",
            calico("{ingress: [{action: Allow}, {action: Deny, protocol: TCP}]}"),
            calico("{ingress: [{action: Log}, {action: Deny, protocol: TCP}, {action: Allow}]}"),
            id="shadowed",
        ),
        pytest.param(
            "one-way",
            everywhere("{doNotTrack: true, applyOnForward: true, selector: has(host), ingress: [{action: Allow}]}"),
            everywhere(
                "{doNotTrack: true, applyOnForward: true, selector: has(host), types: [Ingress, Egress], "
                "ingress: [{action: Allow}], egress: [{action: Allow}]}"
            ),
            id="one way",
        ),
        pytest.param("locked-out", host(), host(more=", profiles: [projectcalico-default-allow]"), id="locked out"),
        pytest.param("unknown-node", host().replace("node: n1", "node: n9"), host(), id="no such node"),
        pytest.param(
            "unknown-profile", host(more=", profiles: [p]"), host(more=", profiles: [kns.shop]"), id="no such profile"
        ),
        pytest.param(
            "ports-without-address",
            host(more=", ports: [{name: x, protocol: TCP, port: 1}]"),
            host(more=", expectedIPs: [10.0.0.15], ports: [{name: x, protocol: TCP, port: 1}]"),
            id="ports without addresses",
        ),
    ],
)
def test_each_check(code: str, speaks: str, silent: str) -> None:
    assert code in findings(speaks)
    assert code not in findings(silent)


def test_a_host_endpoint_with_a_policy_is_not_locked_out() -> None:
    policy = everywhere("{selector: role == 'x', ingress: [{action: Allow}]}")
    assert "locked-out" not in findings(host("{role: x}"), beside=f"---\n{policy}")
    assert "locked-out" in findings(host("{role: z}"), beside=f"---\n{policy}")
    assert "selects-nothing" not in findings(policy, beside=f"---\n{host('{role: x}')}")


def test_no_failsafe_ports_matter_where_there_are_host_endpoints() -> None:
    felix = (
        "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, "
        "spec: {failsafeInboundHostPorts: []}}"
    )
    assert findings(felix) == {}
    found = findings(felix, beside=f"---\n{host()}")
    assert found == {"no-failsafe": "spec.failsafeInboundHostPorts", "locked-out": "spec"}


def test_without_the_cluster_nobody_is_missed() -> None:
    policy = kubernetes("{podSelector: {matchLabels: {app: wbe}}, ingress: [{ports: [{port: x}]}]}")
    assert findings(policy, cluster=False) == {}
    assert findings(host(), cluster=False) == {}


def test_paths_and_sentences() -> None:
    (finding,) = lint(
        resources(peer("{podSelector: {}}, {ipBlock: {cidr: 10.96.0.10/32}}")),
        Landscape.from_resources(resources(CLUSTER), cluster=True),
    )
    assert finding.object == "NetworkPolicy/shop/p"
    assert finding.text == (
        "spec.ingress[0].from[1].ipBlock.cidr: 10.96.0.10/32 is of Service shop/web, whose address nodes replace "
        "before policies are asked: never met: select the service's pods instead [service-address]"
    )


def test_the_pods_are_gone_through_once_for_however_many_policies() -> None:
    several = [policy for at in range(5) for policy in resources(kubernetes("{}").replace("name: p", f"name: p{at}"))]
    asked: list[type[Resource]] = []

    def of(kind: type[Resource]) -> list[Resource]:
        asked.append(kind)
        return []

    lint(several, Landscape(of, cluster=True))
    assert len(several) == 5
    assert asked.count(Pod) == 1
