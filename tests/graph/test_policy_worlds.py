"""World states of the policy compiler, told in every way there is: the output is that of the last state alone."""

from __future__ import annotations

import pytest

from bus_schemas.policy import Attachment, Direction
from bus_schemas.subjects import Fact
from tests.support.compiled_policy import CompiledPolicy, Packet
from tests.support.expanders import EXPANDERS, Expander, gone, world
from tests.support.policy_worlds import account, compiled, endpoint, manifests, namespace, pod

SHOP, OPS = namespace("shop", name="shop"), namespace("ops", name="ops", privileged="true")
WEB = pod("shop/web", {"app": "web"}, [("http", "TCP", 80)])
CLIENT = pod("shop/client", {"app": "client"})
ADMIN = pod("ops/admin", account="robot")
PLUGS = (
    endpoint("shop/web", "10.0.0.1", "fd00::1"),
    endpoint("shop/client", "10.0.0.2"),
    endpoint("ops/admin", "10.0.0.3"),
)
CLUSTER = world(SHOP, OPS, WEB, CLIENT, ADMIN, PLUGS)

ISOLATED = manifests("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: isolated, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
""")
FROM_OPS = manifests("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-ops, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {name: ops}}}]
    ports: [{port: http}]
""")
ROBOTS_DENIED = manifests("""
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: robots}
spec:
  order: 10
  types: [Ingress]
  selector: app == "web"
  ingress: [{action: Deny, source: {serviceAccounts: {names: [robot]}}}, {action: Pass}]
""")
ROLE_DENIED = manifests("""
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: robots}
spec:
  order: 10
  types: [Ingress]
  selector: app == "web"
  ingress: [{action: Deny, source: {serviceAccounts: {selector: role == "ci"}}}, {action: Allow}]
""")

WEB_KEY, CLIENT_KEY, ADMIN_KEY = ("node1", "shop", "web"), ("node1", "shop", "client"), ("node1", "ops", "admin")
FROM_CLIENT, FROM_ADMIN = Packet("10.0.0.2", "10.0.0.1", 6, 80), Packet("10.0.0.3", "10.0.0.1", 6, 80)
FROM_ADMIN_UDP = Packet("10.0.0.3", "10.0.0.1", 17, 80)

ALLOWED = world(CLUSTER, ISOLATED, FROM_OPS)

Expected = dict[Packet, bool]
HISTORIES: dict[str, tuple[list[list[Fact]], Expected]] = {
    "no policy": ([CLUSTER], {FROM_CLIENT: True, FROM_ADMIN: True}),
    "isolated": ([CLUSTER, world(CLUSTER, ISOLATED)], {FROM_CLIENT: False, FROM_ADMIN: False}),
    "allowed from a namespace": (
        [CLUSTER, ALLOWED],
        {FROM_CLIENT: False, FROM_ADMIN: True, FROM_ADMIN_UDP: False},
    ),
    "policies gone": ([ALLOWED, CLUSTER], {FROM_CLIENT: True, FROM_ADMIN: True}),
    "the namespace loses its label": ([ALLOWED, world(ALLOWED, namespace("ops"))], {FROM_ADMIN: False}),
    "the client moves to another address": (
        [ALLOWED, world(ALLOWED, endpoint("ops/admin", "10.0.0.9"))],
        {FROM_ADMIN: False, Packet("10.0.0.9", "10.0.0.1", 6, 80): True},
    ),
    "the named port moves": (
        [ALLOWED, world(ALLOWED, pod("shop/web", {"app": "web"}, [("http", "TCP", 8080)]))],
        {FROM_ADMIN: False, Packet("10.0.0.3", "10.0.0.1", 6, 8080): True},
    ),
    "the subject loses its label": ([ALLOWED, world(ALLOWED, pod("shop/web"))], {FROM_CLIENT: True}),
    "a service account is denied first": ([world(ALLOWED, ROBOTS_DENIED)], {FROM_ADMIN: False, FROM_CLIENT: True}),
    "the account's role is not known": ([world(ALLOWED, ROLE_DENIED)], {FROM_ADMIN: True}),
    "the account's role is known": (
        [world(ALLOWED, ROLE_DENIED), world(ALLOWED, ROLE_DENIED, account("ops", "robot", role="ci"))],
        {FROM_ADMIN: False, FROM_CLIENT: True},
    ),
    "the pod goes before its endpoint": ([ALLOWED, world(ALLOWED, gone(WEB))], {FROM_ADMIN: False}),
    "the endpoint goes before its pod": ([ALLOWED, world(ALLOWED, gone(PLUGS[0]))], {FROM_ADMIN: False}),
    "the pod comes back": ([ALLOWED, world(ALLOWED, gone(WEB)), ALLOWED], {FROM_ADMIN: True, FROM_CLIENT: False}),
    "the namespace goes": ([CLUSTER, world(CLUSTER, gone(SHOP))], {FROM_CLIENT: False}),
    "policies before anything": ([world(ISOLATED, FROM_OPS), ALLOWED], {FROM_ADMIN: True, FROM_CLIENT: False}),
    "another incarnation": (
        [CLUSTER, world(CLUSTER, endpoint("shop/web", "10.0.0.1", uid="2"), pod("shop/web", {"app": "web"}, uid="1"))],
        {FROM_CLIENT: False},
    ),
    "everything gone": ([ALLOWED, []], {FROM_CLIENT: False}),
}


@pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
@pytest.mark.parametrize("history", HISTORIES)
def test_history(history: str, tell: Expander) -> None:
    worlds, expected = HISTORIES[history]
    written = compiled(tell(worlds))
    assert written == compiled([worlds[-1]])
    assert {packet: written.allows("ingress", WEB_KEY, packet) for packet in expected} == expected


def only(written: CompiledPolicy, key: tuple[str, str, str] = WEB_KEY) -> Attachment:
    return written.attachments[key]


def test_no_attachment_without_the_pod() -> None:
    assert compiled([world(SHOP, PLUGS[0])]).attachments == {}


def test_unknown_namespace_denies_by_default() -> None:
    assert only(compiled([world(WEB, PLUGS[0])])).ingress == Direction(default="deny")
    assert only(compiled([world(WEB, PLUGS[0], SHOP)])).ingress == Direction(default="allow")


def test_an_endpoint_may_describe_itself() -> None:
    written = compiled([world(SHOP, ISOLATED, endpoint("shop/web", "10.0.0.1", labels={"app": "web"}))])
    assert [tier.rules for tier in only(written).ingress.tiers] == [("k8snetworkpolicy/shop/isolated",)]


@pytest.mark.parametrize("kind", ["host_network", "finished"])
def test_pods_that_are_no_endpoints(kind: str) -> None:
    absent = pod("shop/client", host_network=True) if kind == "host_network" else pod("shop/client", phase="Failed")
    written = compiled([world(CLUSTER, absent)])
    assert CLIENT_KEY not in written.attachments
    assert ADMIN_KEY in written.attachments


def test_a_pod_cannot_claim_the_labels_of_a_namespace() -> None:
    liar = pod("shop/client", {"pcns.name": "ops", "projectcalico.org/namespace": "ops"})
    written = compiled([world(ALLOWED, liar)])
    assert not written.allows("ingress", WEB_KEY, FROM_CLIENT)


def test_two_endpoints_with_one_address() -> None:
    """While a pod is moved both may be there; the address stays a member until the last one is gone."""
    second = endpoint("ops/admin", "10.0.0.3", node="node2")
    written = compiled([ALLOWED, [second], [gone(PLUGS[2])]])
    assert written.allows("ingress", WEB_KEY, FROM_ADMIN)
    assert ("node2", "ops", "admin") in written.attachments


def test_incarnation_is_named() -> None:
    written = compiled([CLUSTER, [endpoint("shop/web", "10.0.0.1", container="c2")]])
    assert only(written).container == "c2"
