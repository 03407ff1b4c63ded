"""Tables of other projects about a part of a policy: one packet, one peer, one list of ports, one tier.

Each row is made into the smallest cluster in which it decides whether one pod reaches another, and judged three times
in memory. What the authors' own fakes let through and an API server would not is taken as stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from bus_schemas.resources import KubernetesNetworkPolicy, Pod, Resource
from tests.support import stored_policies, truth_tables
from tests.support.compiled_policy import NUMBERS
from tests.support.policy_judges import FORGIVING, Connection, MemoryJudge, Way

FILES = ("kube_network_policies.json", "kube_router.json")
OUTSIDE = "203.0.113.9"
ONE, OTHER, ONE6 = "192.0.2.1", "192.0.2.2", "2001:db8::1"
"""Of the two pods where a table names none."""

Raw = Mapping[str, Any]
Wrong = Iterator[object]


@pytest.mark.parametrize("judge", FORGIVING)
@pytest.mark.parametrize("raw", [case for file in FILES for case in truth_tables.raw_cases(file)])
def test_row(raw: Raw, judge: str) -> None:
    kind = raw["kind"]
    if kind == "e2e":
        assert raw["steps"]  # judged by test_truth_table
        return
    assert list(KINDS[kind](raw, FORGIVING[judge])) == []


def settled(judge: Callable[[], MemoryJudge], resources: Iterable[Resource]) -> MemoryJudge:
    made = judge()
    for resource in resources:
        made.put(resource)
    made.settle()
    return made


def connection(raw: Raw) -> Connection:
    """Where the table says no more than the addresses: TCP, to port 80."""
    protocol = raw.get("protocol") or "TCP"
    return Connection(
        raw.get("src") or ONE, raw.get("dst") or OTHER, NUMBERS[protocol], raw.get("dport") or raw.get("port") or 80
    )


# --- whole clusters


def packet(raw: Raw, judge: Callable[[], MemoryJudge]) -> Wrong:
    policies = [stored_policies.applied(policy) for policy in raw["policies"]]
    seen = settled(judge, [*truth_tables.resources_of(raw["cluster"]), *policies])
    if seen.passes(connection(raw["packet"])) != raw["allowed"]:
        yield raw["packet"]


def cluster_policy_tier(raw: Raw, judge: Callable[[], MemoryJudge]) -> Wrong:
    """Each tier alone."""
    whole = [{"apiVersion": stored_policies.CLUSTER, "kind": "ClusterNetworkPolicy", **p} for p in raw["policies"]]
    for tier, allowed in (("Admin", raw["admin_tier_allows"]), ("Baseline", raw["baseline_tier_allows"])):
        policies = [stored_policies.applied(policy) for policy in whole if policy["spec"]["tier"] == tier]
        seen = settled(judge, [*truth_tables.resources_of(raw["cluster"]), *policies])
        if seen.passes(connection(raw["packet"])) != allowed:
            yield tier


def selectors(raw: Raw, judge: Callable[[], MemoryJudge]) -> Wrong:
    """Whom a policy governs: who is cut off from outside. Whom it names: who gets through to those."""
    cluster = truth_tables.resources_of(raw["cluster"])
    seen = settled(judge, [*cluster, stored_policies.applied(raw["policy"])])
    pods = [resource for resource in cluster if isinstance(resource, Pod)]
    for pod in pods:
        governed = "/".join(pod.key) in (raw["selected_pods"] or ())
        (address,) = pod.status.pod_ips
        if seen.passes(Connection(OUTSIDE, address, 6, 80)) == governed:
            yield pod.key
        for source in pods:
            named = "/".join(source.key) in (raw["ingress_source_pods"] or ())
            if source is not pod and seen.passes(Connection(source.status.pod_ips[0], address, 6, 80)) != (
                named or not governed
            ):
                yield source.key, pod.key


# --- parts of a rule: may a pod of namespace `there` enter a pod that only this rule opens, or that pod leave to it?


def two_pods(here: str, there: str, **there_is: Any) -> list[Resource]:
    """The policy's pod at ONE, the peer at OTHER."""
    spaces: dict[str, dict[str, str]] = {here: {"is": here}}
    spaces[there] = {"is": there, **(there_is.get("namespace_labels") or {})}
    return [
        *(truth_tables.namespace(name, labels) for name, labels in spaces.items()),
        truth_tables.pod(here, "governed", {"is": "governed"}, (ONE, ONE6), ()),
        truth_tables.pod(there, "peer", there_is.get("labels") or {}, OTHER, there_is.get("ports") or ()),
    ]


def opened(peers: list[Any], ports: list[Any], namespace: str) -> Resource:
    """A policy that closes its pod both ways but for what these say."""
    rule = {"ports": ports} if ports else {}
    manifest = {
        "apiVersion": stored_policies.KUBERNETES,
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": "opened"},
        "spec": {
            "podSelector": {"matchLabels": {"is": "governed"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{**rule, **({"from": peers} if peers else {})}],
            "egress": [{**rule, **({"to": peers} if peers else {})}],
        },
    }
    policy = stored_policies.applied(manifest)
    assert isinstance(policy, KubernetesNetworkPolicy)
    return policy


def peer_selectors(raw: Raw, judge: Callable[[], MemoryJudge]) -> Wrong:
    """No selector at all is no peer at all: everybody."""
    peer = {key: raw[key] for key in ("podSelector", "namespaceSelector") if raw.get(key) is not None}
    policy = opened([peer] if peer else [], [], raw["policyNamespace"])
    pod = raw["pod"]
    world = two_pods(
        raw["policyNamespace"],
        pod["namespace"],
        labels=pod.get("labels"),
        namespace_labels=raw.get("namespaceLabels"),
    )
    yield from both_ways(settled(judge, [*world, policy]), 80, raw["match"])


def ipblock(raw: Raw, judge: Callable[[], MemoryJudge]) -> Wrong:
    block, address = raw["ipBlock"], raw.get("ip") or OUTSIDE
    policy = opened([{"ipBlock": block}] if block else [], [], "here")
    seen = settled(judge, [*two_pods("here", "there"), policy])
    mine = ONE6 if ":" in address else ONE
    for source, destination in ((mine, address), (address, mine)):
        if seen.passes(Connection(source, destination, 6, 80)) != raw["match"]:
            yield source, destination


def ports(raw: Raw, judge: Callable[[], MemoryJudge]) -> Wrong:
    """The pod with the ports is the destination: of the governed pod's egress."""
    policy = opened([], raw["ports"], "here")
    seen = settled(judge, [*two_pods("here", "there", ports=raw.get("pod_ports")), policy])
    if seen.passes(connection(raw)) != raw["match"]:
        yield raw


def cluster_policy_protocols(raw: Raw, judge: Callable[[], MemoryJudge]) -> Wrong:
    """Denied exactly if they match, by either direction."""
    for way, subject, peers in (("egress", "here", "to"), ("ingress", "there", "from")):
        rule = {"action": "Deny", peers: [{"namespaces": {}}]}
        if raw["protocols"]:
            rule["protocols"] = raw["protocols"]
        policy = {
            "apiVersion": stored_policies.CLUSTER,
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "protocols"},
            "spec": {
                "tier": "Admin",
                "priority": 1,
                "subject": {"namespaces": {"matchLabels": {"is": subject}}},
                way: [rule],
            },
        }
        world = two_pods("here", "there", ports=raw.get("pod_ports"))
        seen = settled(judge, [*world, stored_policies.applied(policy)])
        if seen.passes(connection(raw)) == raw["match"]:
            yield way


def both_ways(seen: MemoryJudge, port: int, allowed: bool) -> Wrong:
    ways: tuple[tuple[Way, str, str], ...] = (("egress", ONE, OTHER), ("ingress", OTHER, ONE))
    for way, source, destination in ways:
        if seen.passes(Connection(source, destination, 6, port), (way,)) != allowed:
            yield way


KINDS: dict[str, Callable[[Raw, Callable[[], MemoryJudge]], Wrong]] = {
    "packet": packet,
    "selectors": selectors,
    "peer-selectors": peer_selectors,
    "ipblock": ipblock,
    "ports": ports,
    "cluster-policy-tier": cluster_policy_tier,
    "cluster-policy-protocols": cluster_policy_protocols,
}
