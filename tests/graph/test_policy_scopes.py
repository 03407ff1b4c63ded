"""What random worlds seldom hit: the order of tiers, and rules by service, as each of the three judges sees them."""

from __future__ import annotations

import pytest

from bus_schemas.manifests import Accepted, read
from bus_schemas.resources import Resource
from tests.support import truth_tables
from tests.support.policy_judges import JUDGES, Connection, MemoryJudge

WORLD = (
    truth_tables.namespace("shop", {}),
    truth_tables.pod("shop", "web", {"app": "web"}, "10.0.0.1", ()),
    truth_tables.pod("shop", "db", {"app": "db"}, "10.0.0.2", ()),
)
TO_DB, TO_DB_ELSEWHERE, FROM_DB = (
    Connection("10.0.0.1", "10.0.0.2", 6, 5432),
    Connection("10.0.0.1", "10.0.0.2", 6, 80),
    Connection("10.0.0.2", "10.0.0.1", 6, 80),
)
TIERS = """
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: a-late}
spec: {order: 20}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: z-early}
spec: {order: 10, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: a-late.closed}
spec: {tier: a-late, selector: all(), types: [Ingress]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: z-early.db}
spec:
  tier: z-early
  selector: app == "db"
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [5432]}}]
"""
SERVICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.2]}]
ports: [{port: 5432, protocol: TCP}]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: to-db, namespace: shop}
spec: {selector: app == "web", types: [Egress], egress: [{action: Allow, destination: {services: {name: db}}}]}
"""


def settled(judge: str, text: str) -> MemoryJudge:
    seen = JUDGES[judge]()
    resources: list[Resource] = [*WORLD]
    for outcome in read(text):
        assert isinstance(outcome, Accepted), outcome
        resources.append(outcome.resource)
    for resource in resources:
        seen.put(resource)
    seen.settle()
    return seen


@pytest.mark.parametrize("judge", JUDGES)
def test_tiers_by_order(judge: str) -> None:
    seen = settled(judge, TIERS)
    assert [seen.passes(packet) for packet in (TO_DB, TO_DB_ELSEWHERE, FROM_DB)] == [True, False, False]


@pytest.mark.parametrize("judge", JUDGES)
def test_rules_by_service(judge: str) -> None:
    seen = settled(judge, SERVICE)
    assert [seen.passes(packet) for packet in (TO_DB, TO_DB_ELSEWHERE, FROM_DB)] == [True, False, True]
