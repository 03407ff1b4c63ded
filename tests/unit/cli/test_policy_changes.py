"""What a change of policies opens and closes, against asking for every pair, port by port."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.manifests import Accepted, read
from bus_schemas.resources import Resource
from bus_schemas.verdicts import Flow
from tortie.cli.policy_diff import names
from tortie.policy.changes import Change, Comparison, compare
from tortie.policy.offline import OfflineCluster

NAMESPACES = "".join(
    f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{name: {name}}}}}}}\n---\n"
    for name in ("shop", "other")
)
PODS = {"shop/web-1": "web", "shop/web-2": "web", "shop/db": "db", "other/client": "x"}


def resources(text: str) -> list[Resource]:
    found = []
    for outcome in read(text):
        assert isinstance(outcome, Accepted), outcome
        found.append(outcome.resource)
    return found


def cluster(text: str) -> tuple[OfflineCluster, dict[PodKey, tuple[str, ...]]]:
    made = OfflineCluster(resources(NAMESPACES + text))
    pods: dict[PodKey, tuple[str, ...]] = {}
    for at, (name, app) in enumerate(PODS.items()):
        namespace, short = name.split("/")
        manifest = (
            f"{{apiVersion: v1, kind: Pod, metadata: {{namespace: {namespace}, name: {short}, "
            f"labels: {{app: {app}}}}}, "
            "spec: {containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}}"
        )
        for resource in resources(manifest):
            made.put(resource)
        pods[PodKey(namespace, short)] = (f"10.244.0.{at + 1}",)
        made.plug(PodKey(namespace, short), "node1", pods[PodKey(namespace, short)])
    made.settle()
    return made, pods


def compared(before: str, after: str) -> Comparison:
    old, pods = cluster(before)
    return compare(old, cluster(after)[0], pods)


DB = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]
"""
NETS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: other}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 198.18.0.0/15, except: [198.18.7.0/24]}}], ports: [{protocol: UDP, port: 53, endPort: 60}]}]
"""  # noqa: E501


def test_nothing_changes() -> None:
    assert compared(DB, DB).changes == ()
    assert compared("", "").changes == ()


def test_what_a_policy_closes() -> None:
    changes = {(c.sources, c.destinations): c for c in compared("", DB).changes}
    assert all(change.kind == "denied then" for change in changes.values())
    change = changes[("shop/web-1", "shop/web-2"), ("shop/db",)]
    assert change.traffic.startswith("TCP but not TCP/5432, UDP, SCTP, ICMP")
    assert change.because == "ingress: no rule of NetworkPolicy/shop/db matches, and tier default then denies"


def test_what_its_deletion_opens() -> None:
    closed, opened = compared("", DB).changes, compared(DB, "").changes
    assert _pairs(closed) == _pairs(opened)
    assert all(change.kind == "allowed then" for change in opened)


def _pairs(changes: Iterable[Change]) -> set[tuple[str, str, str]]:
    return {(source, d, c.traffic) for c in changes for source in c.sources for d in c.destinations}


def test_outside_is_cut_into_the_regions_of_the_networks() -> None:
    found = compared("", NETS)
    told = {c.destinations: c.traffic for c in found.changes}
    inside = next(traffic for names, traffic in told.items() if "outside 198.18.0.0" in names)
    assert "UDP but not UDP/53-60" in inside
    excepted = next(traffic for names, traffic in told.items() if "outside 198.18.7.0" in names)
    assert excepted == "everything"


@pytest.mark.parametrize(("before", "after"), [("", DB), (DB, NETS), (NETS, DB + "---" + NETS), (DB, "")])
def test_it_is_what_asking_for_every_flow_finds(before: str, after: str) -> None:
    old, pods = cluster(before)
    new, _ = cluster(after)
    changes = compare(old, new, pods).changes
    every: set[tuple[str, str, str]] = set()
    told: set[tuple[str, str, str]] = set()
    for change in changes:
        told |= {(change.kind, s, d) for s in change.sources for d in change.destinations if "outside" not in s + d}
    for source, (a,) in pods.items():
        for destination, (b,) in pods.items():
            for protocol, port in ((6, 80), (6, 5432), (17, 53), (17, 99)):
                flow = Flow(ip_address(a).packed, ip_address(b).packed, protocol, 40000, port)
                was, now = (_allowed(world, source, destination, flow) for world in (old, new))
                if was != now and source != destination:
                    every.add(("allowed then" if now else "denied then", str(source), str(destination)))
    assert {row for row in told if row[1] != row[2]} == every


def _allowed(world: OfflineCluster, source: PodKey, destination: PodKey, flow: Any) -> bool:
    out, into = world.way(source, "egress", flow), world.way(destination, "ingress", flow)
    return out.action == "allow" and into.action == "allow"


def test_names_are_short_and_true() -> None:
    pods = [*(f"shop/web-{n}" for n in range(6)), "shop/db", "other/a", "other/b"]
    assert names(pods[:6], pods) == "shop/web-* (6 pods)"
    assert names(pods[:7], pods) == "shop/* (7 pods)"
    assert names(pods[:5], pods) == "shop/web-0, shop/web-1, shop/web-2 and 2 more of shop"
    assert names(["other/a", "outside 10.0.0.0"], pods) == "outside 10.0.0.0, other/a"
