"""Random clusters and histories of them: hypothesis' strategies for facts of every kind that the policy compiler reads.

`edits()` gives batches of facts. There are few names, so that policies and whom they speak of meet.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from bus_schemas.endpoints import EndpointPort
from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    EndpointSlice,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    KubernetesNetworkPolicy,
    LabelSelector,
    Metadata,
    NetworkPolicy,
    NetworkSet,
    Node,
    Profile,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    EntityRule,
    GlobalNetworkPolicySpec,
    IcmpFields,
    NetworkPolicySpec,
    ServiceAccountMatch,
    ServiceMatch,
    StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicySpec,
)
from bus_schemas.resources.cluster_policy import (
    ClusterNetworkPolicySpec,
    ClusterPolicyPeer,
    ClusterPolicyPort,
    ClusterPolicyRule,
    ClusterPolicySubject,
    NamespacedPods,
)
from bus_schemas.resources.core import NodeAddress, NodeSpec
from bus_schemas.resources.metadata import LabelSelectorRequirement
from bus_schemas.resources.network_policy import (
    IPBlock,
    KubernetesNetworkPolicySpec,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    StagedKubernetesNetworkPolicySpec,
)
from bus_schemas.resources.policy_scopes import (
    HostEndpointPort,
    HostEndpointSpec,
    NetworkSetSpec,
    ProfileSpec,
    TierSpec,
)
from bus_schemas.resources.services import SERVICE_NAME, EndpointSliceSpec, SliceEndpoint, SlicePort
from bus_schemas.subjects import Fact
from tests.support.compiled_policy import Way
from tests.support.policy_worlds import account, desired, endpoint, namespace, pod

SPACES = ("red", "blue")
PODS = ("a", "b", "c")
NODES = ("node1", "node2")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.1.3", "fd00::1", "fd00::2")
HOST_ADDRESSES = ("172.18.0.1", "172.18.0.2", "fd18::1")
TIERS = ("default", "default", "kube-admin", "kube-baseline", "early", "late", "unheard-of")
NETS4 = ("10.0.0.0/24", "10.0.0.2/32", "10.0.0.0/8", "10.0.1.3/16")
NETS6 = ("fd00::/64", "fd00::1/128")
OUTSIDE = {4: "192.0.2.7", 6: "2001:db8::7"}
PORT_NAMES = ("http", "dns")

SELECTORS = (
    "",
    "all()",
    "app == 'x'",
    "app != 'x'",
    "has(tier)",
    "!has(tier)",
    "app in {'x', 'y'} && has(tier)",
    "app == 'y' || tier == 'front'",
    "tier starts with 'f'",
    "projectcalico.org/namespace == 'red'",
    "!(app == 'x')",
)
SPACE_SELECTORS = (
    "",
    "all()",
    "global()",
    "team == 'x'",
    "team != 'x'",
    "!has(team)",
    "projectcalico.org/name == 'blue'",
)
ACCOUNT_SELECTORS = ("", "role == 'ci'", "!has(role)", "projectcalico.org/name == 'robot'")

spaces = st.sampled_from(SPACES)
labels = st.fixed_dictionaries(
    {}, optional={"app": st.sampled_from(("x", "y")), "tier": st.sampled_from(("front", "back"))}
)
protocols = st.sampled_from(("TCP", "UDP", "SCTP"))
port_numbers = st.sampled_from((53, 80, 81))
some_nets4 = st.lists(st.sampled_from(NETS4), max_size=2, unique=True).map(tuple)
some_nets6 = st.lists(st.sampled_from(NETS6), max_size=2, unique=True).map(tuple)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def several(strategy: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=most).map(tuple)


# --- Kubernetes

requirements = st.builds(
    LabelSelectorRequirement,
    key=st.sampled_from(("app", "tier", "team")),
    operator=st.sampled_from(("In", "NotIn")),
    values=st.just(("x", "front")),
) | st.builds(
    LabelSelectorRequirement,
    key=st.sampled_from(("app", "tier", "team")),
    operator=st.sampled_from(("Exists", "DoesNotExist")),
)
label_selectors = st.builds(LabelSelector, match_labels=labels, match_expressions=several(requirements, 1))
space_label_selectors = st.builds(
    LabelSelector,
    match_labels=st.fixed_dictionaries({}, optional={"team": st.sampled_from(("x", "y"))}),
    match_expressions=several(requirements, 1),
)
blocks = st.builds(
    IPBlock, cidr=st.sampled_from(("10.0.0.0/24", "10.0.0.0/8")), except_=st.sampled_from(((), ("10.0.0.2/32",)))
) | st.builds(IPBlock, cidr=st.just("fd00::/64"), except_=st.sampled_from(((), ("fd00::1/128",))))
peers = (
    st.builds(NetworkPolicyPeer, ip_block=blocks)
    | st.builds(NetworkPolicyPeer, pod_selector=label_selectors)
    | st.builds(NetworkPolicyPeer, pod_selector=maybe(label_selectors), namespace_selector=space_label_selectors)
)
kubernetes_ports = st.builds(
    NetworkPolicyPort,
    protocol=protocols,
    port=maybe(port_numbers | st.sampled_from(PORT_NAMES)),
) | st.builds(NetworkPolicyPort, protocol=protocols, port=st.just(80), end_port=st.just(81))
kubernetes_specs = st.builds(
    KubernetesNetworkPolicySpec,
    pod_selector=label_selectors,
    policy_types=st.sampled_from((("Ingress",), ("Egress",), ("Ingress", "Egress"))),
    ingress=several(st.builds(NetworkPolicyIngressRule, from_=several(peers), ports=several(kubernetes_ports))),
    egress=several(st.builds(NetworkPolicyEgressRule, to=several(peers), ports=several(kubernetes_ports))),
)

# --- Calico

icmps = st.builds(IcmpFields, type=st.sampled_from((8, 0)), code=maybe(st.sampled_from((0, 1))))


@st.composite
def entities(draw: st.DrawFn, with_numbers: bool, end: str, *, services: bool) -> EntityRule:
    if services and draw(st.integers(0, 1)) == 0:
        # a destination's ports are those of the service
        ports = draw(st.just(()) | st.just((80,))) if end == "source" and with_numbers else ()
        return EntityRule(services=ServiceMatch(name="db", namespace=draw(spaces)), ports=ports)
    names = st.sampled_from(PORT_NAMES)
    some_ports = several(port_numbers | names | st.just("80:81") if with_numbers else names)
    return EntityRule(
        nets=draw(st.just(()) | some_nets4 | some_nets6 | st.just(("10.0.0.0/24", "fd00::/64"))),
        not_nets=draw(st.just(()) | some_nets4 | some_nets6),
        selector=draw(st.sampled_from(("", *SELECTORS))),
        not_selector=draw(st.sampled_from(("", "", "", *SELECTORS))),
        namespace_selector=draw(st.sampled_from(("", "", *SPACE_SELECTORS))),
        ports=draw(st.just(()) | some_ports),
        not_ports=draw(st.just(()) | st.just(()) | some_ports),
        service_accounts=draw(
            maybe(
                st.builds(
                    ServiceAccountMatch,
                    names=st.sampled_from(((), ("robot",), ("robot", "default"))),
                    selector=st.sampled_from(ACCOUNT_SELECTORS),
                )
            )
        ),
    )


@st.composite
def calico_rules(draw: st.DrawFn, way: Way) -> CalicoRule:
    protocol = draw(st.sampled_from((None, None, "TCP", "UDP", 132, "ICMP")))
    ported = protocol in ("TCP", "UDP", 132)
    return CalicoRule(
        action=draw(st.sampled_from(("Allow", "Deny", "Pass", "Log"))),
        ip_version=draw(st.sampled_from((None, None, 4, 6))),
        protocol=protocol,
        not_protocol=draw(st.sampled_from((None, None, "TCP", 17))) if protocol is None else None,
        icmp=draw(maybe(icmps)) if protocol == "ICMP" else None,
        not_icmp=draw(maybe(icmps)) if protocol == "ICMP" else None,
        source=draw(st.just(EntityRule()) | entities(ported, "source", services=way == "ingress")),
        destination=draw(st.just(EntityRule()) | entities(ported, "destination", services=way == "egress")),
    )


def calico_spec(type_: Any, **more: Any) -> st.SearchStrategy[Any]:
    return st.builds(
        type_,
        tier=st.sampled_from(TIERS),
        order=st.sampled_from((None, 0.0, 999.5, 1000.0, 2000.0)),
        selector=st.sampled_from(SELECTORS),
        types=st.sampled_from((("Ingress",), ("Egress",), ("Ingress", "Egress"))),
        ingress=several(calico_rules("ingress")),
        egress=several(calico_rules("egress")),
        service_account_selector=st.sampled_from(("", "", *ACCOUNT_SELECTORS)),
        **more,
    )


# --- cluster-wide policies of Kubernetes

namespaced_pods = st.builds(NamespacedPods, namespace_selector=space_label_selectors, pod_selector=label_selectors)
pod_peers = st.builds(ClusterPolicyPeer, namespaces=space_label_selectors) | st.builds(
    ClusterPolicyPeer, pods=namespaced_pods
)
far_peers = st.builds(
    ClusterPolicyPeer, networks=st.lists(st.sampled_from((*NETS4, *NETS6)), min_size=1, max_size=2).map(tuple)
) | st.builds(ClusterPolicyPeer, nodes=label_selectors)
cluster_ports = (
    st.builds(ClusterPolicyPort, protocol=protocols)
    | st.builds(ClusterPolicyPort, protocol=protocols, first=st.just(80), last=st.sampled_from((80, 81)))
    | st.builds(ClusterPolicyPort, name=st.sampled_from(PORT_NAMES))
)


def cluster_rules(peers_: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return several(
        st.builds(
            ClusterPolicyRule,
            action=st.sampled_from(("Accept", "Deny", "Pass")),
            peers=st.lists(peers_, min_size=1, max_size=2).map(tuple),
            ports=several(cluster_ports),
        )
    )


def cluster_specs(*tiers_: str, priorities: tuple[int, ...] = (0, 5)) -> st.SearchStrategy[Any]:
    return st.builds(
        ClusterNetworkPolicySpec,
        tier=st.sampled_from(tiers_),
        priority=st.sampled_from(priorities),
        subject=st.builds(ClusterPolicySubject, namespaces=space_label_selectors)
        | st.builds(ClusterPolicySubject, pods=namespaced_pods),
        ingress=cluster_rules(pod_peers),
        egress=cluster_rules(pod_peers | far_peers),
    )


# --- facts: few keys, each present or absent

wheres = st.builds("{}/{}".format, spaces, st.sampled_from(PODS))
policy_names = st.sampled_from(("p1", "p2"))
pod_ports = st.sampled_from(((), (("http", "TCP", 80), ("dns", "UDP", 53)), (("http", "UDP", 81), ("http", "TCP", 81))))
pod_facts = st.builds(
    pod,
    wheres,
    labels,
    pod_ports,
    account=st.sampled_from(("default", "robot", "robot" * 15)),
    uid=st.sampled_from(("", "1", "2")),
    host_network=st.sampled_from((False, False, False, True)),
    phase=st.sampled_from(("Running", "Running", "Succeeded")),
)


@st.composite
def endpoint_facts(draw: st.DrawFn) -> Fact:
    itself: dict[str, Any] = {}
    if draw(st.integers(0, 4)) == 0:
        itself = {
            "labels": draw(labels),
            "service_account": draw(st.sampled_from(("", "robot"))),
            "ports": (EndpointPort(name="http", protocol="TCP", port=80),),
        }
    return endpoint(
        draw(wheres),
        *draw(st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2, unique=True)),
        node=draw(st.sampled_from(NODES)),
        container=draw(st.sampled_from(("c1", "c2"))),
        uid=draw(st.sampled_from(("", "1"))),
        **itself,
    )


def policy_fact(type_: Any, space: str, name: str, spec: Any) -> Fact:
    return desired(type_(metadata=Metadata(namespace=space, name=name), spec=spec))


staged = st.sampled_from(("Set", "Set", "Delete", "Ignore"))
HOOKS: tuple[dict[str, Any], ...] = ({}, {}, {"apply_on_forward": True}, {"do_not_track": True}, {"pre_dnat": True})


@st.composite
def global_specs(draw: st.DrawFn, /, type_: Any = GlobalNetworkPolicySpec, **more: Any) -> Any:
    spec = draw(calico_spec(type_, namespace_selector=st.sampled_from(SPACE_SELECTORS), **more))
    hook = draw(st.sampled_from(HOOKS))
    if hook.get("pre_dnat"):
        hook = {**hook, "types": ("Ingress",), "egress": ()}
    if hook:
        hook = {"apply_on_forward": True, **hook}
    return msgspec.structs.replace(spec, **hook)


set_nets = st.lists(
    st.sampled_from(("10.0.0.0/24", "10.0.1.3", "192.0.2.0/24", "fd00::1/128", "2001:db8::/32")), max_size=3
)
set_specs = st.builds(NetworkSetSpec, nets=set_nets.map(tuple))
slice_specs = st.builds(
    EndpointSliceSpec,
    endpoints=several(st.builds(SliceEndpoint, addresses=st.sampled_from(ADDRESSES).map(lambda a: (a,)))),
    ports=several(st.builds(SlicePort, protocol=st.sampled_from(("TCP", "UDP")), port=port_numbers)),
)
host_specs = st.builds(
    HostEndpointSpec,
    node=st.sampled_from(NODES),
    interface_name=st.sampled_from(("eth0", "*")),
    expected_ips=st.lists(st.sampled_from(HOST_ADDRESSES), max_size=2, unique=True).map(tuple),
    profiles=several(st.sampled_from(("open", "shut", "projectcalico-default-allow", "unheard-of"))),
    ports=st.just(()) | st.just((HostEndpointPort(name="http", protocol="TCP", port=80),)),
)
profile_specs = st.builds(
    ProfileSpec,
    ingress=several(calico_rules("ingress")),
    egress=several(calico_rules("egress")),
    labels_to_apply=labels,
)
node_specs = st.builds(
    NodeSpec,
    addresses=several(st.sampled_from(HOST_ADDRESSES).map(lambda a: NodeAddress(address=a, type="InternalIP"))),
)


def labelled(type_: Any, space: str, name: str, of: dict[str, str], spec: Any) -> Fact:
    return desired(type_(metadata=Metadata(namespace=space, name=name, labels=of), spec=spec))


NOWHERE = st.just("")
scopes = (
    st.builds(
        policy_fact,
        st.just(Tier),
        NOWHERE,
        st.sampled_from(("early", "late", "default")),
        st.builds(
            TierSpec, order=st.sampled_from((None, 1.0, 500.0, 2e6)), default_action=st.sampled_from(("Deny", "Pass"))
        ),
    )
    | st.builds(labelled, st.just(NetworkSet), spaces, policy_names, labels, set_specs)
    | st.builds(labelled, st.just(GlobalNetworkSet), NOWHERE, policy_names, labels, set_specs)
    | st.builds(labelled, st.just(HostEndpoint), NOWHERE, policy_names, labels, host_specs)
    | st.builds(labelled, st.just(Node), NOWHERE, st.sampled_from(NODES), labels, node_specs)
    | st.builds(policy_fact, st.just(Profile), NOWHERE, st.sampled_from(("open", "shut")), profile_specs)
    | st.builds(
        labelled,
        st.just(EndpointSlice),
        spaces,
        policy_names,
        st.sampled_from(({SERVICE_NAME: "db"}, {SERVICE_NAME: "db"}, {})),
        slice_specs,
    )
)


def policies(type_: Any, spaces_: Any, names: Any, specs: Any) -> st.SearchStrategy[Fact]:
    return st.builds(policy_fact, st.just(type_), spaces_, names, specs)


# Names that no two kinds share: which of such equals is first is nobody's business.
wide = (
    policies(ClusterNetworkPolicy, NOWHERE, st.sampled_from(("c1", "c2")), cluster_specs("Admin", "Baseline"))
    | policies(AdminNetworkPolicy, NOWHERE, st.just("admin"), cluster_specs("Admin"))
    | policies(BaselineAdminNetworkPolicy, NOWHERE, st.just("default"), cluster_specs("Baseline", priorities=(0,)))
)
staged_kubernetes_specs = st.builds(
    StagedKubernetesNetworkPolicySpec,
    pod_selector=label_selectors,
    policy_types=st.sampled_from((("Ingress",), ("Egress",))),
    ingress=several(st.builds(NetworkPolicyIngressRule, from_=several(peers), ports=several(kubernetes_ports))),
    egress=several(st.builds(NetworkPolicyEgressRule, to=several(peers), ports=several(kubernetes_ports))),
    staged_action=staged,
)
tried = (
    policies(StagedNetworkPolicy, spaces, policy_names, calico_spec(StagedNetworkPolicySpec, staged_action=staged))
    | policies(
        StagedGlobalNetworkPolicy,
        NOWHERE,
        policy_names,
        global_specs(StagedGlobalNetworkPolicySpec, staged_action=staged),
    )
    | policies(StagedKubernetesNetworkPolicy, spaces, policy_names, staged_kubernetes_specs)
)

present = (
    st.builds(namespace, spaces, team=st.sampled_from(("x", "y")))
    | st.builds(namespace, spaces)
    | st.builds(account, spaces, st.sampled_from(("default", "robot")), role=st.sampled_from(("ci", "web")))
    | pod_facts
    | pod_facts
    | endpoint_facts()
    | endpoint_facts()
    | st.builds(policy_fact, st.just(KubernetesNetworkPolicy), spaces, policy_names, kubernetes_specs)
    | st.builds(policy_fact, st.just(NetworkPolicy), spaces, policy_names, calico_spec(NetworkPolicySpec))
    | st.builds(policy_fact, st.just(GlobalNetworkPolicy), NOWHERE, policy_names, global_specs())
    | scopes
    | scopes
    | wide
    | tried
)


@st.composite
def edits(draw: st.DrawFn) -> list[list[Fact]]:
    """Batches of facts. Most pods exist from the start, so that there is something to decide."""
    start = [namespace("red", team="x"), namespace("blue", team="y")]
    addresses = iter(ADDRESSES)
    for where in ("red/a", "red/b", "blue/a"):
        start += [
            pod(where, draw(labels), draw(pod_ports), account=draw(st.sampled_from(("default", "robot")))),
            endpoint(where, next(addresses)),
        ]
    start += draw(st.lists(scopes, max_size=5))
    told = [*start, *draw(st.lists(present, min_size=5, max_size=20))]
    batches: list[list[Fact]] = [[]]
    for fact in told:
        batches[-1].append(fact)
        if draw(st.booleans()):
            batches.append([])
    for gone in draw(st.lists(st.sampled_from(told), max_size=4)):
        batches.append([gone._replace(value=None)])
    return batches
