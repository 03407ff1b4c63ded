"""Random clusters, edited at random: what the compiler wrote step by step is what it writes from scratch, and it
means what the manifests say."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus_schemas.endpoints import EndpointPort
from bus_schemas.resources import (
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    LabelSelector,
    Metadata,
    NetworkPolicy,
)
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    EntityRule,
    GlobalNetworkPolicySpec,
    IcmpFields,
    NetworkPolicySpec,
    ServiceAccountMatch,
)
from bus_schemas.resources.metadata import LabelSelectorRequirement
from bus_schemas.resources.network_policy import (
    IPBlock,
    KubernetesNetworkPolicySpec,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from bus_schemas.subjects import Fact
from services.policy_compiler.core import Core
from tests.support.compiled_policy import CompiledPolicy, Packet
from tests.support.expanders import by_key
from tests.support.policy_oracle import Oracle
from tests.support.policy_worlds import account, desired, endpoint, namespace, pod

# Few names, so that policies and pods meet.
SPACES = ("red", "blue")
PODS = ("a", "b", "c")
NODES = ("node1", "node2")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.1.3", "fd00::1", "fd00::2")
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
def entities(draw: st.DrawFn, with_numbers: bool) -> EntityRule:
    names = st.sampled_from(PORT_NAMES)
    ports = several(port_numbers | names | st.just("80:81") if with_numbers else names)
    return EntityRule(
        nets=draw(st.just(()) | some_nets4 | some_nets6 | st.just(("10.0.0.0/24", "fd00::/64"))),
        not_nets=draw(st.just(()) | some_nets4 | some_nets6),
        selector=draw(st.sampled_from(("", *SELECTORS))),
        not_selector=draw(st.sampled_from(("", "", "", *SELECTORS))),
        namespace_selector=draw(st.sampled_from(("", "", *SPACE_SELECTORS))),
        ports=draw(st.just(()) | ports),
        not_ports=draw(st.just(()) | st.just(()) | ports),
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
def calico_rules(draw: st.DrawFn) -> CalicoRule:
    protocol = draw(st.sampled_from((None, None, "TCP", "UDP", 132, "ICMP")))
    return CalicoRule(
        action=draw(st.sampled_from(("Allow", "Deny", "Pass", "Log"))),
        ip_version=draw(st.sampled_from((None, None, 4, 6))),
        protocol=protocol,
        not_protocol=draw(st.sampled_from((None, None, "TCP", 17))) if protocol is None else None,
        icmp=draw(maybe(icmps)) if protocol == "ICMP" else None,
        not_icmp=draw(maybe(icmps)) if protocol == "ICMP" else None,
        source=draw(st.just(EntityRule()) | entities(protocol in ("TCP", "UDP", 132))),
        destination=draw(st.just(EntityRule()) | entities(protocol in ("TCP", "UDP", 132))),
    )


def calico_spec(type_: Any, **more: Any) -> st.SearchStrategy[Any]:
    return st.builds(
        type_,
        tier=st.sampled_from(("default", "default", "default", "kube-admin", "unheard-of")),
        order=st.sampled_from((None, 0.0, 999.5, 1000.0, 2000.0)),
        selector=st.sampled_from(SELECTORS),
        types=st.sampled_from((("Ingress",), ("Egress",), ("Ingress", "Egress"))),
        ingress=several(calico_rules()),
        egress=several(calico_rules()),
        service_account_selector=st.sampled_from(("", "", *ACCOUNT_SELECTORS)),
        **more,
    )


# --- facts: few keys, each present or absent

spaces = st.sampled_from(SPACES)
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
    | st.builds(
        policy_fact,
        st.just(GlobalNetworkPolicy),
        st.just(""),
        policy_names,
        calico_spec(GlobalNetworkPolicySpec, namespace_selector=st.sampled_from(SPACE_SELECTORS)),
    )
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
    told = [*start, *draw(st.lists(present, max_size=14))]
    batches: list[list[Fact]] = [[]]
    for fact in told:
        batches[-1].append(fact)
        if draw(st.booleans()):
            batches.append([])
    for gone in draw(st.lists(st.sampled_from(told), max_size=4)):
        batches.append([gone._replace(value=None)])
    return batches


def packets(oracle: Oracle) -> list[Packet]:
    addresses = sorted({address for pod in oracle.pods for address in pod.addresses})
    found = []
    for version in (4, 6):
        family = [a for a in (*addresses, OUTSIDE[version]) if (":" in a) == (version == 6)]
        for source in family:
            for destination in family:
                if source != destination:
                    found += [Packet(source, destination, n, port) for n in (6, 17) for port in (53, 80, 81)]
                    found += [Packet(source, destination, 132, 80), Packet(source, destination, 1, 8)]
                    found.append(Packet(source, destination, 6, 9999, source_port=80))
    return found


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(edits())
def test_edits(batches: list[list[Fact]]) -> None:
    core, written = Core(), CompiledPolicy()
    for batch in batches:
        for fact in batch:
            core.apply(fact)
        written.take(core.flush())
        assert not written.complaints()
    world = [fact for fact in by_key(fact for batch in batches for fact in batch).values() if fact.value is not None]

    fresh_core, fresh = Core(), CompiledPolicy()
    for fact in reversed(world):
        fresh_core.apply(fact)
    fresh.take(fresh_core.flush())
    assert written == fresh
    assert core.sizes == fresh_core.sizes
    assert core.faults == fresh_core.faults == []

    oracle = Oracle(world)
    assert {pod.key for pod in oracle.pods} == set(written.attachments)
    for packet in packets(oracle):
        for pod_ in oracle.pods:
            if packet.source in pod_.addresses:
                said = written.allows("egress", pod_.key, packet)
                assert said == oracle.allows("egress", pod_.key, packet), (packet, pod_, world)
            if packet.destination in pod_.addresses:
                said = written.allows("ingress", pod_.key, packet)
                assert said == oracle.allows("ingress", pod_.key, packet), (packet, pod_, world)
