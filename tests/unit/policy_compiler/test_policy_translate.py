"""What single policies are compiled to, and what becomes of a rule that cannot be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus_schemas import selectors
from bus_schemas.manifests import Accepted, read
from bus_schemas.policy import Icmp, Match, PortRange, Rule
from bus_schemas.resources import GlobalNetworkPolicy, KubernetesNetworkPolicy, NetworkPolicy
from services.policy_compiler import translate_calico, translate_kubernetes
from services.policy_compiler.policies import Policy, Translation
from services.policy_compiler.selection import identity

RED = 'projectcalico.org/namespace == "red"'
KUBERNETES = 'projectcalico.org/orchestrator == "k8s"'
ROBOT = 'projectcalico.org/serviceaccount in {"robot"}'


def group(canonical: str) -> str:
    """The id of a group, whose text must be canonical."""
    selector, _, _ = canonical.partition(" :")
    assert selectors.parse(selector).canonical == selector
    return identity(canonical)


def port_range(port: int) -> PortRange:
    return PortRange(first=port, last=port)


def tcp(port: int) -> Rule:
    return Rule(action="deny", protocol=6, destination=Match(ports=(port_range(port),)))


def compiled(translation: Translation) -> Policy:
    assert translation.policy is not None
    return translation.policy


def kubernetes(spec: str) -> Policy:
    (outcome,) = read(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: red}\nspec: " + spec
    )
    assert isinstance(outcome, Accepted), outcome
    assert isinstance(outcome.resource, KubernetesNetworkPolicy)
    translation = translate_kubernetes.translate(outcome.resource)
    assert translation.faults == ()
    return compiled(translation)


def calico(spec: dict[str, Any], namespace: str = "red") -> Translation:
    """As stored: past every validation."""
    type_, tag = (NetworkPolicy, "networkpolicy/1") if namespace else (GlobalNetworkPolicy, "globalnetworkpolicy/1")
    value = {"type": tag, "metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    return translate_calico.translate(msgspec.convert(value, type_))


def ingress(rule: dict[str, Any], namespace: str = "red") -> tuple[Rule, ...]:
    translation = calico({"ingress": [rule]}, namespace)
    assert translation.faults == ()
    return compiled(translation).rules.ingress


# --- Kubernetes


def test_subject_is_within_its_namespace() -> None:
    policy = kubernetes("{podSelector: {matchLabels: {app: web}}}")
    assert policy.subject.canonical == f'({RED} && ({KUBERNETES} && app == "web"))'
    assert selectors.parse(policy.subject.canonical).uid == policy.subject.uid
    assert policy.attaching is not None
    assert policy.attaching.order == 1000
    assert policy.attaching.hooks == {"ingress"}


def test_peers_and_protocols_make_rules() -> None:
    policy = kubernetes("""
      podSelector: {}
      ingress:
      - from: [{podSelector: {matchLabels: {app: web}}}, {namespaceSelector: {}}]
        ports: [{port: 80}, {port: 81}, {port: 90, endPort: 99}, {port: 53, protocol: UDP}]
    """)
    web = Match(groups=(group(f'({RED} && ({KUBERNETES} && app == "web"))'),))
    anywhere = Match(groups=(group(f"({KUBERNETES} && has(projectcalico.org/namespace))"),))
    tcp = Match(ports=(PortRange(first=80, last=81), PortRange(first=90, last=99)))
    udp = Match(ports=(PortRange(first=53, last=53),))
    assert policy.rules.ingress == tuple(
        Rule(action="allow", protocol=protocol, source=source, destination=destination)
        for source in (web, anywhere)
        for protocol, destination in ((6, tcp), (17, udp))
    )
    assert len(policy.groups) == 2


def test_both_selectors_are_anded() -> None:
    policy = kubernetes("""
      podSelector: {}
      ingress: [{from: [{podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {team: x}}}]}]
    """)
    assert policy.groups[0].selection.canonical == f'(({KUBERNETES} && a == "b") && pcns.team == "x")'


def test_named_ports_belong_to_the_destination() -> None:
    spec = """
      podSelector: {matchLabels: {app: web}}
      policyTypes: [Ingress, Egress]
      ingress: [{ports: [{port: http}]}]
      egress: [{to: [{podSelector: {matchLabels: {app: db}}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: sql}]}]
    """
    policy = kubernetes(spec)
    web, db = (f'({RED} && ({KUBERNETES} && app == "{app}"))' for app in ("web", "db"))
    assert policy.rules.ingress[0].destination.named_ports == (group(f"{web} :http"),)
    assert [rule.destination.named_ports for rule in policy.rules.egress] == [
        (group(f"{db} :sql"),),
        (group(f"{KUBERNETES} :sql"),),
    ]


def test_ip_block_says_its_family() -> None:
    policy = kubernetes("""
      podSelector: {}
      ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: fd00::/8}}]}]
    """)
    assert policy.rules.ingress == (
        Rule(action="allow", ip_version=4, source=Match(nets=("10.0.0.0/8",), not_nets=("10.1.0.0/16",))),
        Rule(action="allow", ip_version=6, source=Match(nets=("fd00::/8",))),
    )


def test_a_direction_that_is_not_governed_has_no_rules() -> None:
    policy = kubernetes("{podSelector: {}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]}")
    assert policy.rules.egress == ()
    assert policy.groups == ()


@pytest.mark.parametrize(
    ("rule", "covered"),
    [
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}, [Rule(action="deny")]),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["nonsense", "10.1.0.0/16"]}}]},
            [Rule(action="deny", ip_version=4, source=Match(nets=("10.0.0.0/8",), not_nets=("10.1.0.0/16",)))],
        ),
        ({"from": [{}], "ports": [{"port": 80}]}, [tcp(80)]),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}, [Rule(action="deny")]),
        (
            {"from": [{}, {"podSelector": {}}]},
            [Rule(action="deny"), Rule(action="deny", source=Match(groups=(group(f"({RED} && {KUBERNETES})"),)))],
        ),
        ({"ports": [{"port": 70000}, {"port": 80}]}, [Rule(action="deny", protocol=6), tcp(80)]),
        ({"ports": [{"port": "-50:-1"}]}, [Rule(action="deny", protocol=6)]),
        ({"ports": [{"port": 80, "endPort": 79}]}, [Rule(action="deny", protocol=6)]),
        ({"ports": [{"port": "http", "endPort": 80, "protocol": "UDP"}]}, [Rule(action="deny", protocol=17)]),
        ({"ports": [{"endPort": 80}]}, [Rule(action="deny", protocol=6)]),
    ],
)
def test_a_kubernetes_rule_that_cannot_be_compiled_denies_what_it_would_allow(
    rule: dict[str, Any], covered: list[Rule]
) -> None:
    spec = {"podSelector": {}, "ingress": [rule, {"ports": [{"port": 80}]}]}
    value = {"type": "k8snetworkpolicy/1", "metadata": {"name": "p", "namespace": "red"}, "spec": spec}
    translation = translate_kubernetes.translate(msgspec.convert(value, KubernetesNetworkPolicy))
    (fault,) = translation.faults
    assert fault.startswith("spec.ingress[0]: ")
    *closed, last = compiled(translation).rules.ingress
    assert closed == [msgspec.structs.replace(rule, never=fault) for rule in covered]
    assert (last.action, last.index, last.never) == ("allow", 1, "")


def test_rules_say_which_of_the_manifest_they_are() -> None:
    policy = kubernetes("""
      podSelector: {}
      policyTypes: [Ingress, Egress]
      ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}]}, {ports: [{port: 80}]}]
      egress: [{}, {to: [{podSelector: {}}], ports: [{port: 1}, {port: 2, protocol: UDP}]}]
    """)
    assert [rule.index for rule in policy.rules.ingress] == [0, 0, 1]
    assert [rule.index for rule in policy.rules.egress] == [0, 1, 1]


# --- Calico


@pytest.mark.parametrize(
    ("entity", "canonical"),
    [
        ({"selector": "a == 'b'"}, f'({RED} && a == "b")'),
        ({"selector": "all()"}, RED),
        ({"notSelector": "a == 'b'"}, RED),
        ({"selector": "a == 'b'", "namespaceSelector": "team == 'x'"}, '(a == "b" && pcns.team == "x")'),
        ({"namespaceSelector": "all()"}, "has(projectcalico.org/namespace)"),
        ({"namespaceSelector": "global()"}, "!has(projectcalico.org/namespace)"),
        ({"namespaceSelector": "all() && !has(x)"}, "(has(projectcalico.org/namespace) && !has(pcns.x))"),
        ({"namespaceSelector": "!all()"}, "!has(projectcalico.org/namespace)"),
        ({"serviceAccounts": {"names": ["x"]}}, f'({RED} && projectcalico.org/serviceaccount in {{"x"}})'),
        ({"serviceAccounts": {"selector": "role == 'ci'"}}, f'({RED} && pcsa.role == "ci")'),
    ],
)
def test_entities_of_a_namespaced_policy(entity: dict[str, Any], canonical: str) -> None:
    (rule,) = ingress({"action": "Allow", "source": entity})
    assert rule.source.groups == (group(canonical),)


@pytest.mark.parametrize(
    ("entity", "canonicals"),
    [
        ({"selector": "a == 'b'"}, ['a == "b"']),
        ({"selector": "all()"}, ["all()"]),
        ({"notSelector": "a == 'b'"}, []),
        ({"serviceAccounts": {"names": ["x"]}}, ['projectcalico.org/serviceaccount in {"x"}']),
    ],
)
def test_entities_of_a_global_policy(entity: dict[str, Any], canonicals: list[str]) -> None:
    (rule,) = ingress({"action": "Allow", "source": entity}, namespace="")
    assert rule.source.groups == tuple(map(group, canonicals))


def test_subject_of_a_global_policy() -> None:
    spec = {"selector": "a == 'b'", "namespaceSelector": "team == 'x'", "serviceAccountSelector": "role == 'ci'"}
    assert compiled(calico(spec, "")).subject.canonical == '(a == "b" && pcns.team == "x" && pcsa.role == "ci")'


def test_named_ports_of_a_global_policy() -> None:
    (rule,) = ingress(
        {"action": "Allow", "protocol": "TCP", "source": {"ports": ["a"]}, "destination": {"ports": ["b", "1:2", 3]}},
        namespace="",
    )
    assert rule.source.named_ports == (group("all() :a"),)
    assert rule.destination.named_ports == (group("all() :b"),)
    assert rule.destination.ports == (PortRange(first=1, last=3),)


def test_named_ports_of_the_governed_end_are_those_of_the_subject() -> None:
    rule = {"action": "Allow", "protocol": "TCP", "source": {"ports": ["a"]}, "destination": {"ports": ["b"]}}
    spec = {"selector": "x == 'y'", "types": ["Ingress", "Egress"], "ingress": [rule], "egress": [rule]}
    rules = compiled(calico(spec, "")).rules
    assert rules.ingress[0].source.named_ports == (group("all() :a"),)
    assert rules.egress[0].destination.named_ports == (group("all() :b"),)
    assert rules.ingress[0].destination.named_ports == (group('x == "y" :b'),)
    assert rules.egress[0].source.named_ports == (group('x == "y" :a'),)


def test_what_is_excluded_lies_where_the_namespace_selector_says() -> None:
    (inside,) = ingress({"action": "Allow", "source": {"notSelector": "a == 'b'"}})
    assert inside.source.not_groups == (group(f'({RED} && a == "b")'),)
    (anywhere,) = ingress({"action": "Allow", "source": {"notSelector": "a == 'b'", "namespaceSelector": "all()"}})
    assert anywhere.source.not_groups == (group('a == "b"'),)


def test_nets_of_both_families_make_two_rules() -> None:
    rules = ingress({"action": "Deny", "source": {"nets": ["10.0.0.1/8", "fd00::/8"], "notNets": ["10.1.0.0/16"]}})
    assert rules == (
        Rule(action="deny", ip_version=4, source=Match(nets=("10.0.0.0/8",), not_nets=("10.1.0.0/16",))),
        Rule(action="deny", ip_version=6, source=Match(nets=("fd00::/8",))),
    )


def test_excluding_one_family_keeps_the_other() -> None:
    rules = ingress({"action": "Allow", "destination": {"notNets": ["10.0.0.0/8"]}})
    assert rules == (
        Rule(action="allow", ip_version=4, destination=Match(not_nets=("10.0.0.0/8",))),
        Rule(action="allow", ip_version=6),
    )


def test_ends_of_different_families_never_meet() -> None:
    assert ingress({"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["fd00::/8"]}}) == ()


@pytest.mark.parametrize(
    ("rule", "path", "kept"),
    [
        (
            {"source": {"selector": "a =="}, "protocol": "TCP"},
            "source.selector: ",
            Rule(action="deny", protocol=6, source=Match(groups=(group(RED),))),
        ),
        (
            {"source": {"notSelector": "a ==", "ports": [80]}, "protocol": "TCP"},
            "source.notSelector: ",
            Rule(action="deny", protocol=6, source=Match(groups=(group(RED),), ports=(port_range(80),))),
        ),
        (
            {"source": {"selector": "a == 'b'", "namespaceSelector": "a == 'b' || global()"}},
            "source.namespaceSelector: ",
            Rule(action="deny", source=Match(groups=(group('a == "b"'),))),
        ),
        (
            {"source": {"serviceAccounts": {"names": ["robot"], "selector": "a =="}}},
            "source.serviceAccounts.selector: ",
            Rule(action="deny", source=Match(groups=(group(f"({RED} && {ROBOT})"),))),
        ),
        ({"source": {"services": {"name": ""}}}, "source.services: ", Rule(action="deny")),
        (
            {"ipVersion": 4, "source": {"notNets": ["10.0.0.0/33", "10.0.0.0/8"]}},
            "source.notNets: ",
            Rule(action="deny", ip_version=4, source=Match(not_nets=("10.0.0.0/8",))),
        ),
        (
            {"protocol": "TCP", "destination": {"notPorts": [80, "2:1"]}},
            "destination.notPorts: ",
            Rule(action="deny", protocol=6, destination=Match(not_ports=(port_range(80),))),
        ),
        (
            {"protocol": "TCP", "source": {"selector": "a ==", "ports": ["x"], "notPorts": ["x"]}},
            "source.selector: ",
            Rule(action="deny", protocol=6, source=Match(groups=(group(RED),), named_ports=(group(f"{RED} :x"),))),
        ),
        ({"source": {"nets": ["10.0.0.0/33"]}}, "source.nets: ", Rule(action="deny")),
        ({"protocol": "XTP"}, "protocol: ", Rule(action="deny")),
        ({"protocol": "TCP", "http": {"methods": ["GET"]}}, "http: ", Rule(action="deny", protocol=6)),
        (
            {"destination": {"ports": [80]}},
            "destination.ports: ",
            Rule(action="deny", destination=Match(ports=(port_range(80),))),
        ),
        ({"protocol": "ICMP", "destination": {"ports": [80]}}, "destination.ports: ", Rule(action="deny", protocol=1)),
        (
            {"protocol": "TCP", "destination": {"ports": ["2:1"]}},
            "destination.ports: ",
            Rule(action="deny", protocol=6),
        ),
        ({"protocol": "TCP", "icmp": {"type": 8}}, "icmp: ", Rule(action="deny", protocol=6)),
        ({"protocol": "ICMP", "icmp": {"code": 0}}, "icmp: ", Rule(action="deny", protocol=1)),
        (
            {"protocol": "ICMP", "icmp": {"type": 8, "code": 300}},
            "icmp: ",
            Rule(action="deny", protocol=1, icmp=Icmp(type=8)),
        ),
        ({"protocol": "ICMP", "notICMP": {"type": 8, "code": 300}}, "notICMP: ", Rule(action="deny", protocol=1)),
    ],
)
@pytest.mark.parametrize("action", ["Allow", "Deny", "Pass"])
def test_a_calico_rule_that_cannot_be_compiled_denies(
    action: str, rule: dict[str, Any], path: str, kept: Rule | None
) -> None:
    translation = calico({"ingress": [{"action": action, **rule}, {"action": "Allow"}]})
    (fault,) = translation.faults
    assert fault.startswith(f"spec.ingress[0].{path}")
    first, second = compiled(translation).rules.ingress
    assert first.never == fault
    assert first.action == "deny"
    if kept is not None:
        assert msgspec.structs.replace(first, never="") == kept
    assert second == Rule(action="allow", index=1)


def test_a_log_that_cannot_be_compiled_is_left_out() -> None:
    translation = calico({"ingress": [{"action": "Log", "source": {"selector": "a =="}}]})
    assert len(translation.faults) == 1
    assert compiled(translation).rules.ingress == ()


@pytest.mark.parametrize(
    ("namespace", "spec", "path", "subject"),
    [
        ("red", {"selector": "a =="}, "spec.selector", RED),
        ("red", {"selector": "a ==", "serviceAccountSelector": "b == 'c'"}, "spec.selector",
         f'({RED} && pcsa.b == "c")'),
        ("red", {"selector": "x == 'y'", "serviceAccountSelector": "a =="}, "spec.serviceAccountSelector",
         f'({RED} && x == "y")'),
        ("", {"selector": "a =="}, "spec.selector", "all()"),
        ("", {"selector": "a ==", "namespaceSelector": "b == 'c'"}, "spec.selector", 'pcns.b == "c"'),
        ("", {"selector": "x == 'y'", "namespaceSelector": "global() || all()"}, "spec.namespaceSelector", 'x == "y"'),
    ],
)  # fmt: skip
def test_a_policy_without_a_readable_subject_closes_what_it_covers_to_all_that_it_may_mean(
    namespace: str, spec: dict[str, Any], path: str, subject: str
) -> None:
    rules = [{"action": action, "protocol": "TCP"} for action in ("Log", "Allow", "Deny", "Pass")]
    translation = calico({**spec, "ingress": [*rules, {"action": "Allow", "protocol": "XTP"}]}, namespace)
    governing, *others = translation.faults
    assert governing.startswith(f"{path}: ")
    assert [fault.split(": ")[0] for fault in others] == ["spec.ingress[4].protocol"]
    policy = compiled(translation)
    assert policy.subject is not None
    assert policy.subject.canonical == subject
    assert policy.attaching is not None
    assert [(rule.action, rule.protocol, rule.never) for rule in policy.rules.ingress] == [
        ("log", 6, ""),
        *(("deny", 6, governing) for _ in range(3)),
        ("deny", None, others[0]),
    ]


def test_orders() -> None:
    specs: dict[str, dict[str, Any]] = {"no order": {}, "order 10": {"order": 10}, "order 9.5": {"order": 9.5}}
    places = {name: compiled(calico(spec)).attaching for name, spec in specs.items()}
    places["kubernetes"] = kubernetes("{podSelector: {}}").attaching
    assert sorted(places, key=lambda name: places[name]) == ["order 9.5", "order 10", "kubernetes", "no order"]
    equal = [compiled(calico({"order": 1000}, n)).attaching for n in ("", "red")] + [places["kubernetes"]]
    assert [place.name for place in sorted(equal)] == [
        "p//GlobalNetworkPolicy",
        "p/red/KubernetesNetworkPolicy",
        "p/red/NetworkPolicy",
    ]


def test_rules_of_both_families_are_one_of_the_manifest() -> None:
    rules = [{"action": "Log"}, {"action": "Deny", "source": {"notNets": ["10.0.0.0/8"]}}, {"action": "Allow"}]
    policy = compiled(calico({"ingress": rules}))
    assert [(rule.action, rule.index) for rule in policy.rules.ingress] == [
        ("log", 0),
        ("deny", 1),
        ("deny", 1),
        ("allow", 2),
    ]


def test_a_log_that_is_left_out_leaves_the_places_of_the_others() -> None:
    policy = compiled(calico({"ingress": [{"action": "Log", "source": {"selector": "a =="}}, {"action": "Allow"}]}))
    assert [(rule.action, rule.index) for rule in policy.rules.ingress] == [("allow", 1)]
