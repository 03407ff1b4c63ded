"""Reading policies: Kubernetes' defaults and validation, Calico's, and what is refused as it is not carried out."""

from __future__ import annotations

import pytest

from bus_schemas.resources import GlobalNetworkPolicy, KubernetesNetworkPolicy, NetworkPolicy
from bus_schemas.resources.metadata import LabelSelector
from bus_schemas.resources.network_policy import IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule
from tests.support.manifests import (
    accepted,
    calico_rule,
    faults,
    global_policy,
    kubernetes_policy,
    manifest,
    warnings,
)


def knp(spec: str) -> KubernetesNetworkPolicy:
    policy = accepted(kubernetes_policy(spec))
    assert isinstance(policy, KubernetesNetworkPolicy)
    return policy


def gnp(spec: str) -> GlobalNetworkPolicy:
    policy = accepted(global_policy(spec))
    assert isinstance(policy, GlobalNetworkPolicy)
    return policy


# --- Kubernetes


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ("{}", ("Ingress",)),
        ("{policyTypes: []}", ("Ingress",)),
        ("{ingress: [{}]}", ("Ingress",)),
        ("{egress: [{}]}", ("Ingress", "Egress")),
        ("{egress: []}", ("Ingress",)),
        ("{policyTypes: [Egress]}", ("Egress",)),
        ("{policyTypes: [Egress, Ingress], ingress: , egress: }", ("Egress", "Ingress")),
        ("{policyTypes: [Ingress, Ingress]}", ("Ingress",)),
    ],
)
def test_policy_types(spec: str, types: tuple[str, ...]) -> None:
    assert knp(spec).spec.policy_types == types


def test_nulls_are_absent_fields() -> None:
    spec = knp("{podSelector: {matchLabels: , matchExpressions: }, ingress: , egress: [{to: , ports: }]}").spec
    assert spec.pod_selector == LabelSelector()
    assert spec.ingress == ()
    assert spec.egress == (NetworkPolicyEgressRule(),)
    assert knp("").spec == knp("{}").spec


def test_an_empty_rule_is_not_no_rule() -> None:
    assert knp("{ingress: [{}]}").spec.ingress == (NetworkPolicyIngressRule(),)
    assert knp("{ingress: []}").spec.ingress == ()


def test_an_empty_selector_is_not_no_selector() -> None:
    (peer,) = knp("{ingress: [{from: [{podSelector: {}, namespaceSelector: }]}]}").spec.ingress[0].from_
    assert peer.pod_selector == LabelSelector()
    assert peer.namespace_selector is None


def test_ports_have_their_defaults() -> None:
    ports = knp("{ingress: [{ports: [{}, {port: 80, endPort: 90}, {port: dns, protocol: UDP}]}]}").spec.ingress[0].ports
    assert [(port.protocol, port.port, port.end_port) for port in ports] == [
        ("TCP", None, None),
        ("TCP", 80, 90),
        ("UDP", "dns", None),
    ]


def test_networks_are_kept_masked() -> None:
    spec = knp("{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.2.3.4/16, 10.0.0.1/32]}}]}]}").spec
    assert spec.egress[0].to[0].ip_block == IPBlock(cidr="10.0.0.0/8", except_=("10.2.0.0/16", "10.0.0.1/32"))


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{podSelecter: {}}", "spec.podSelecter: unknown field, did you mean 'podSelector'?"),
        ("{anything: {}}", "spec.anything: unknown field"),
        ("{podSelector: {app: web}}", "spec.podSelector.app: unknown field"),
        ("{ingress: {}}", "spec.ingress: must be a list, not a mapping"),
        ("{ingress: [null]}", "spec.ingress[0]: must not be null"),
        ("{ingress: [{from: [null]}]}", "spec.ingress[0].from[0]: must not be null"),
        ("{ingress: [{to: []}]}", "spec.ingress[0].to: unknown field"),
        ("{ingress: [{from: [{}]}]}", "spec.ingress[0].from[0]: must have a podSelector, a namespaceSelector"),
        ("{ingress: [{from: [{podSelector: }]}]}", "spec.ingress[0].from[0]: must have a podSelector"),
        ("{ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}", "ipBlock: cannot be used together"),
        ("{ingress: [{from: [{ipBlock: {}}]}]}", "spec.ingress[0].from[0].ipBlock.cidr: is required"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]}", "must be a CIDR (like 10.0.0.0/8), not '10.0.0.1'"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/255.0.0.0}}]}]}", "must be a CIDR"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}", "must be a CIDR"),
        ("{ingress: [{from: [{ipBlock: {cidr: fe80::1%eth0/64}}]}]}", "must be a CIDR"),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}",
            "ipBlock.except[0]: must be a smaller part of the cidr 10.0.0.0/8",
        ),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}", "must be a smaller part"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['::/64']}}]}]}", "must be a smaller part"),
        ("{ingress: [{ports: [{port: 0}]}]}", "spec.ingress[0].ports[0].port: must be from 1 to 65535, not 0"),
        ("{ingress: [{ports: [{port: 65536}]}]}", "must be from 1 to 65535"),
        ("{ingress: [{ports: [{port: true}]}]}", "must be a whole number, not true"),
        ("{ingress: [{ports: [{port: 80.5}]}]}", "must be a whole number, not 80.5"),
        ("{ingress: [{ports: [{port: '80'}]}]}", "must be a port's number or name"),
        ("{ingress: [{ports: [{port: HTTP}]}]}", "must be a port's number or name"),
        ("{ingress: [{ports: [{port: a-name-that-is-too-long}]}]}", "must be a port's number or name"),
        ("{ingress: [{ports: [{port: a--b}]}]}", "must be a port's number or name"),
        ("{ingress: [{ports: [{protocol: tcp}]}]}", "must be one of TCP, UDP, SCTP, not 'tcp'"),
        ("{ingress: [{ports: [{protocol: ICMP}]}]}", "must be one of TCP, UDP, SCTP, not 'ICMP'"),
        ("{ingress: [{ports: [{port: 80, endPort: 79}]}]}", "endPort: must be from 80 to 65535, not 79"),
        ("{ingress: [{ports: [{endPort: 79}]}]}", "endPort: needs a port that is a number"),
        ("{ingress: [{ports: [{port: http, endPort: 79}]}]}", "endPort: needs a port that is a number"),
        ("{policyTypes: [ingress]}", "spec.policyTypes[0]: must be one of Ingress, Egress, not 'ingress'"),
        ("{policyTypes: [Ingress, Egress, Ingress]}", "spec.policyTypes: must have at most 2 items"),
        ("{podSelector: {matchLabels: {a: 'b c'}}}", "spec.podSelector.matchLabels[a]: must be letters"),
        ("{podSelector: {matchLabels: {a: yes}}}", "must be text, not true"),
        ("{podSelector: {matchExpressions: [{key: a, operator: In}]}}", "values: must not be empty"),
        ("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}", "values: must be empty"),
        ("{podSelector: {matchExpressions: [{key: a, operator: '='}]}}", "operator: must be one of In, NotIn"),
        ("{podSelector: {matchExpressions: [{operator: Exists}]}}", "key: is required"),
    ],
)
def test_kubernetes_policies_that_are_refused(spec: str, fault: str) -> None:
    found = faults(kubernetes_policy(spec))
    assert any(fault in text for text in found), found


# --- Calico


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ("{}", ("Ingress",)),
        ("{ingress: [{action: Allow}]}", ("Ingress",)),
        ("{egress: [{action: Allow}]}", ("Egress",)),
        ("{ingress: [{action: Allow}], egress: [{action: Allow}]}", ("Ingress", "Egress")),
        ("{types: [Egress, Ingress]}", ("Egress", "Ingress")),
        ("{types: []}", ("Ingress",)),
    ],
)
def test_types(spec: str, types: tuple[str, ...]) -> None:
    assert gnp(spec).spec.types == types


def test_a_policy_with_everything() -> None:
    policy = gnp(
        """
          tier: default
          order: 1e3
          selector: app == 'web'
          namespaceSelector: (! has(privileged-namespace))
          serviceAccountSelector: all()
          performanceHints: [AssumeNeededOnEveryNode]
          types: [Ingress]
          ingress:
          - action: Deny
            ipVersion: 4
            protocol: TCP
            notProtocol: "17"
            source:
              nets: [10.1.2.3/8, 10.0.0.1]
              notNets: [10.9.0.0/16]
              selector: a == 'b'
              notSelector: has(c)
              namespaceSelector: global()
              serviceAccounts: {names: [robot], selector: has(d)}
              notPorts: [1, "2:3", "4"]
            destination: {ports: [http, 80, 10:20]}
            metadata: {annotations: {why: because}}
          - action: Allow
            protocol: ICMP
            icmp: {type: 8, code: 0}
            notICMP: {type: 3}
        """
    )
    spec = policy.spec
    assert (spec.tier, spec.order, spec.selector) == ("default", 1000.0, "app == 'web'")
    deny, ping = spec.ingress
    assert (deny.action, deny.ip_version, deny.protocol, deny.not_protocol) == ("Deny", 4, "TCP", 17)
    assert (deny.source.nets, deny.source.not_nets) == (("10.0.0.0/8", "10.0.0.1/32"), ("10.9.0.0/16",))
    assert (deny.source.selector, deny.source.not_selector) == ("a == 'b'", "has(c)")
    assert deny.source.namespace_selector == "global()"
    assert deny.source.service_accounts is not None
    assert (deny.source.service_accounts.names, deny.source.service_accounts.selector) == (("robot",), "has(d)")
    assert deny.source.not_ports == (1, "2:3", 4)
    assert deny.destination.ports == ("http", 80, "10:20")
    assert ping.icmp is not None
    assert (ping.icmp.type, ping.icmp.code) == (8, 0)
    assert ping.not_icmp is not None
    assert (ping.not_icmp.type, ping.not_icmp.code) == (3, None)


@pytest.mark.parametrize(
    "rule",
    [
        "{action: Allow, source: {ports: [http]}}",
        "{action: Allow, protocol: 6, source: {ports: [80]}}",
        "{action: Allow, protocol: ICMPv6, ipVersion: 6}",
        "{action: Allow, protocol: 58, icmp: {type: 128}}",
        "{action: Log}",
        "{action: Pass, destination: {nets: ['FD00::0/8']}}",
        "{action: Allow, icmp: {}}",
    ],
)
def test_rules(rule: str) -> None:
    assert gnp(f"{{ingress: [{rule}]}}")


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("{}", "spec.ingress[0].action: is required"),
        ("{action: allow}", "action: must be one of Allow, Deny, Log, Pass, not 'allow'"),
        ("{action: Allow, ipVersion: 5}", "ipVersion: must be 4 or 6"),
        ("{action: Allow, ipVersion: true}", "ipVersion: must be 4 or 6"),
        ("{action: Allow, protocol: 0}", "protocol: must be from 1 to 255"),
        ("{action: Allow, protocol: '256'}", "protocol: must be from 1 to 255"),
        ("{action: Allow, protocol: foo}", "protocol: must be one of TCP, UDP, ICMP"),
        ("{action: Allow, protocol: tcp}", "not 'tcp', did you mean TCP?"),
        ("{action: Allow, protocol: ICMPv6, ipVersion: 4}", "protocol: is ICMPv6, which IPv4 does not carry"),
        ("{action: Allow, source: {ports: [80]}}", "spec.ingress[0].source.ports: needs a protocol that has ports"),
        ("{action: Allow, source: {ports: [http, '1:2']}}", "needs a protocol that has ports"),
        ("{action: Allow, protocol: ICMP, source: {ports: [http]}}", "needs a protocol that has ports"),
        ("{action: Allow, protocol: TCP, source: {ports: [0]}}", "ports[0]: must be from 1 to 65535"),
        ("{action: Allow, protocol: TCP, source: {ports: ['9:8']}}", "ports[0]: must be a range"),
        ("{action: Allow, protocol: TCP, source: {ports: ['a b']}}", "ports[0]: must be a port, a range"),
        (f"{{action: Allow, protocol: TCP, source: {{ports: {list(range(1, 52))}}}}}", "must have at most 50 items"),
        ("{action: Allow, source: {nets: [10.0.0.0/8], notNets: ['::1']}}", "has networks of IPv4 and of IPv6"),
        ("{action: Allow, source: {nets: [10.0.0.1]}, destination: {nets: ['::1']}}", "of IPv4 and of IPv6"),
        ("{action: Allow, ipVersion: 6, source: {nets: [10.0.0.1]}}", "ipVersion: is 6, but the rule's networks"),
        ("{action: Allow, source: {notNets: [0.0.0.0/0]}}", "notNets[0]: must not be every address"),
        ("{action: Allow, source: {notNets: ['0:0::/0']}}", "notNets[0]: must not be every address"),
        ("{action: Allow, icmp: {type: 8}}", "icmp: needs the protocol ICMP or ICMPv6"),
        ("{action: Allow, protocol: TCP, notICMP: {type: 8}}", "notICMP: needs the protocol ICMP"),
        ("{action: Allow, protocol: ICMP, icmp: {code: 8}}", "icmp.code: needs a type"),
        ("{action: Allow, protocol: ICMP, icmp: {type: 255}}", "icmp.type: must be from 0 to 254"),
        ("{action: Allow, source: {selector: global()}}", "selector: global() can only be used in a namespaceSelector"),
        ("{action: Allow, source: {selector: '!( global() )'}}", "global() can only be used in a namespaceSelector"),
        ("{action: Allow, source: {namespaceSelector: global() && a == 'b'}}", "global() can only be used alone"),
        (f"{{action: Allow, source: {{selector: \"a == '{'x' * 1024}'\"}}}}", "must be at most 1024 characters"),
        ("{action: Allow, source: {serviceAccounts: {names: [A]}}}", "serviceAccounts.names[0]: must be lower-case"),
        ("{action: Allow, source: {net: [10.0.0.0/8]}}", "source.net: unknown field, did you mean 'nets'?"),
        ("{action: Allow, protcol: TCP}", "protcol: unknown field, did you mean 'protocol'?"),
        ("{action: Allow, metadata: {annotations: {'...': x}}}", "metadata.annotations[...]"),
        ("{action: Allow, http: {methods: [GET]}}", "http: matching of HTTP requests is not supported"),
        (
            "{action: Deny, destination: {services: {name: a, namespace: b}}}",
            "can only be used in the source of an ingress",
        ),
        (
            "{action: Deny, source: {services: {name: a}}}",
            "source.services.namespace: is required in a policy that is in no",
        ),
        (
            "{action: Deny, source: {services: {name: a, namespace: b}, selector: has(a)}}",
            "source.selector: cannot be used together with services",
        ),
    ],
)
def test_rules_that_are_refused(rule: str, fault: str) -> None:
    found = faults(calico_rule(rule))
    assert any(fault in text for text in found), found


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{tier: a.b}", "spec.tier: must be lower-case letters"),
        ("{preDNAT: true}", "spec.applyOnForward: must be true with preDNAT"),
        ("{doNotTrack: true}", "spec.applyOnForward: must be true with doNotTrack"),
        (
            "{doNotTrack: true, preDNAT: true, applyOnForward: true}",
            "spec.preDNAT: cannot be used together with doNotTrack",
        ),
        ("{preDNAT: true, applyOnForward: true, egress: [{action: Deny}]}", "spec.egress: cannot be used with preDNAT"),
        ("{preDNAT: true, applyOnForward: true, types: [Egress]}", "spec.types: cannot be Egress with preDNAT"),
        ("{types: [Ingress, Ingress]}", "spec.types: names a direction twice"),
        ("{types: [ingress]}", "spec.types[0]: must be one of Ingress, Egress"),
        ("{order: '5'}", "spec.order: must be a number, not '5'"),
        ("{order: true}", "spec.order: must be a number, not true"),
        ("{order: 1e999}", "spec.order: is too large a number"),
        ("{selector: global()}", "spec.selector: global() can only be used"),
        ("{namespaceSelector: global()}", "spec.namespaceSelector: global() can only be used"),
        ("{performanceHints: [x]}", "spec.performanceHints[0]: must be one of AssumeNeededOnEveryNode"),
        ("{ingress: [{action: Allow}, null]}", "spec.ingress[1]: must not be null"),
    ],
)
def test_policies_that_are_refused(spec: str, fault: str) -> None:
    found = faults(global_policy(spec))
    assert any(fault in text for text in found), found


def test_too_many_rules() -> None:
    assert faults(global_policy("{egress: [" + "{action: Allow}," * 1025 + "]}")) == [
        "spec.egress: must have at most 1024 items, not 1025"
    ]


def test_what_has_no_effect_is_a_warning() -> None:
    assert warnings(global_policy("{types: [Ingress], egress: [{action: Deny}]}")) == [
        "spec.egress: has no effect: types does not name Egress"
    ]


def test_a_namespaced_policy_has_no_namespace_selector() -> None:
    text = manifest("projectcalico.org/v3", "NetworkPolicy", "{namespaceSelector: has(a)}")
    assert faults(text) == [
        "spec.namespaceSelector: only a GlobalNetworkPolicy can have it: "
        "a NetworkPolicy governs the pods of its namespace"
    ]


@pytest.mark.parametrize("name", ["a", "a.b", "knp.default.a", "ossg.default.a.b", "x" * 253])
def test_names_of_namespaced_policies(name: str) -> None:
    policy = accepted(manifest("projectcalico.org/v3", "NetworkPolicy", "{}", f"{{name: {name}}}"))
    assert isinstance(policy, NetworkPolicy)
    assert policy.key == ("default", name)


@pytest.mark.parametrize("name", ["a.b.c", "A", "a_b", "knp.other.a", "x" * 254])
def test_names_that_policies_cannot_have(name: str) -> None:
    assert faults(manifest("projectcalico.org/v3", "NetworkPolicy", "{}", f"{{name: {name}}}"))


def test_a_global_policy_cannot_have_a_converted_name() -> None:
    assert faults(manifest("projectcalico.org/v3", "GlobalNetworkPolicy", "{}", "{name: knp.default.a}"))
