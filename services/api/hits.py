"""What the policies decided, summed over the nodes. Pure; plain JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from bus_schemas.policy import Hit, Hits, rules_id
from bus_schemas.resources import (
    KINDS,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    NetworkPolicy,
    Profile,
    Resource,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)

Json = dict[str, Any]

_FIGURES = {
    "allowed": "allowed",
    "denied": "denied",
    "passed": "passed",
    "wouldAllow": "would_allow",
    "wouldDeny": "would_deny",
}


_POLICIES: tuple[type[Resource], ...] = (
    *(KubernetesNetworkPolicy, NetworkPolicy, GlobalNetworkPolicy, Profile),
    *(ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy),
    *(StagedKubernetesNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy),
)


def hits(messages: Iterable[Hits], *, policy: str = "", namespace: str = "", node: str = "") -> list[Json]:
    """`{policy, title, namespace, name, direction, allowed, denied, passed, wouldAllow, wouldDeny, nodes, since}` for
    each policy and direction that decided anything, in the order of their names.

    `policy` is a policy's id (`networkpolicy/default/web`, `tier/default` for what nothing in the tier decided,
    `profile` for what nothing at all did), its name, or `<kind>/<name>`; the kind may be
    written as in manifests. `title`: as people call it, `NetworkPolicy/default/web`. `since`: the earliest of its
    nodes'."""
    rows: dict[tuple[str, str], Json] = {}
    for message in sorted(messages, key=lambda message: message.node):
        if node and message.node != node:
            continue
        for hit in message.hits:
            if _wanted(hit, policy, namespace):
                _add(rows.setdefault((hit.rules, hit.way), _empty(hit, message)), hit, message)
    return [rows[key] for key in sorted(rows)]


def exists(resources: Callable[[type[Resource]], Iterable[Resource]], policy: str, namespace: str) -> bool:
    """Whether there is a policy that is called so, though it may have decided nothing."""
    ids = (f"tier/{tier.metadata.name}" for tier in resources(Tier))
    titles = (rules_id(kind.TOKEN, *each.key) for kind in _POLICIES for each in resources(kind))
    return any(_wanted(Hit(rules=id_, way="ingress"), policy, namespace) for id_ in chain(("profile",), ids, titles))


def title(rules: str) -> str:
    """Of a policy's id."""
    kind, _, rest = rules.partition("/")
    return f"{KINDS[kind].KIND}/{rest}" if rest and kind in KINDS and kind != Tier.TOKEN else rules


def _parts(rules: str) -> tuple[str, str, str]:
    """(kind, namespace, name) of an id."""
    kind, _, rest = rules.partition("/")
    namespace, slash, name = rest.partition("/")
    return (kind, namespace, name) if slash else (kind, "", namespace)


def _wanted(hit: Hit, policy: str, namespace: str) -> bool:
    kind, own, name = _parts(hit.rules)
    if namespace and own != namespace:
        return False
    asked, slash, rest = policy.partition("/")
    if not slash:
        return not policy or policy in (hit.rules, name)
    return asked.lower() in (kind, kind.removeprefix("k8s")) and rest in (name, f"{own}/{name}" if own else name)


def _empty(hit: Hit, message: Hits) -> Json:
    _, namespace, name = _parts(hit.rules)
    figures = dict.fromkeys(_FIGURES, 0)
    head = {"policy": hit.rules, "title": title(hit.rules), "namespace": namespace, "name": name, "direction": hit.way}
    return {**head, **figures, "nodes": [], "since": message.since}


def _add(row: Json, hit: Hit, message: Hits) -> None:
    for name, field in _FIGURES.items():
        row[name] += getattr(hit, field)
    row["nodes"].append(message.node)
    row["since"] = min(row["since"], message.since)
