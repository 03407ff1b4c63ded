"""What Kubernetes is to be told of its objects: conditions and addresses, as patches. Pure.

    Seen (what it says now) + what became of it --> a patch, or None: it says so already

A condition's times do not count in the comparison; `lastTransitionTime` moves when the status does. Conditions of
others stay as they are. The patch of a custom object carries its version, so that one that changed meanwhile is not
overwritten (a merge patch replaces the whole list); a node's is strategic, which merges by type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import IPPool
from services.kube_bridge.core import Trouble
from services.kube_bridge.mirror import Seen
from services.kube_bridge.views import Condition

ACCEPTED = "Accepted"
PROGRAMMED = "Programmed"
ALLOCATABLE = "Allocatable"
NETWORK_UNAVAILABLE = "NetworkUnavailable"
UP, NOT_READY, DOWN = "TortieIsUp", "TortieIsNotReady", "TortieIsDown"
MAX_MESSAGE = 1024

Patch = dict[str, Any]


class Agent(NamedTuple):
    """What is known of the agent of a node."""

    alive: bool
    ready: bool
    causes: tuple[str, ...]
    since: float
    """When it last became ready, or ceased to be."""


def conditions(
    seen: Seen, trouble: Trouble | None, compiled: PolicyStatus | None, *, is_policy: bool
) -> list[Condition]:
    """What is to be said of a custom object."""
    result = [_accepted(seen, trouble)]
    if is_policy:
        faults = compiled.faults if compiled is not None else ()
        if trouble is not None:
            result.append(_said(seen, PROGRAMMED, False, "NotAccepted", trouble.instead))
        elif faults:
            result.append(_said(seen, PROGRAMMED, False, "NotCompiled", "; ".join(faults)))
        else:
            result.append(_said(seen, PROGRAMMED, True, "Compiled", ""))
    if isinstance(seen.resource, IPPool):
        if trouble is not None:
            result.append(_said(seen, ALLOCATABLE, False, "NotAccepted", trouble.instead))
        elif seen.resource.spec.disabled:
            result.append(_said(seen, ALLOCATABLE, False, "Disabled", "spec.disabled is set: no address is given"))
        else:
            result.append(_said(seen, ALLOCATABLE, True, "Enabled", ""))
    return result


def _accepted(seen: Seen, trouble: Trouble | None) -> Condition:
    if trouble is None:
        return _said(seen, ACCEPTED, True, "Valid", "; ".join(seen.warnings))
    reason = "Invalid" if trouble.what == "invalid" else "Shadowed"
    return _said(seen, ACCEPTED, False, reason, f"{'; '.join(trouble.reasons)} ({trouble.instead})")


def _said(seen: Seen, type_: str, status: bool, reason: str, message: str) -> Condition:
    return Condition(type_, "True" if status else "False", reason, _cut(message), seen.generation)


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."


def _same(one: Condition, other: Condition) -> bool:
    return _timeless(one) == _timeless(other)


def _timeless(condition: Condition) -> Condition:
    return msgspec.structs.replace(condition, lastTransitionTime="", lastHeartbeatTime="")


def conditions_patch(seen: Seen, wanted: Sequence[Condition], now: str) -> Patch | None:
    """A merge patch of the status. `now`: RFC 3339."""
    present = {condition.type: condition for condition in seen.conditions}
    if all(said.type in present and _same(present[said.type], said) for said in wanted):
        return None
    mine = {said.type: _moved(said, present.get(said.type), now) for said in wanted}
    merged = [mine.pop(condition.type, condition) for condition in seen.conditions]
    body = [_body(condition) for condition in (*merged, *mine.values())]
    return {"metadata": {"resourceVersion": seen.version}, "status": {"conditions": body}}


def _moved(said: Condition, before: Condition | None, now: str) -> Condition:
    since = before.lastTransitionTime if before is not None and before.status == said.status else ""
    return msgspec.structs.replace(said, lastTransitionTime=since or now)


def _body(condition: Condition) -> Patch:
    """`reason` and `message` must be there, even empty."""
    return {"reason": "", "message": "", **msgspec.to_builtins(condition)}


def node_patch(seen: Seen, agent: Agent | None, now_s: float, now: str, grace_s: float) -> Patch | None:
    """A strategic merge patch of a node's status. None, too, where nothing may be said yet: an agent that is away for
    a moment is no news, and a node that never had one is none of ours."""
    present = next((condition for condition in seen.conditions if condition.type == NETWORK_UNAVAILABLE), None)
    if agent is None:
        return None
    if agent.alive and agent.ready:
        said = Condition(NETWORK_UNAVAILABLE, "False", UP, "Tortie is running on this node")
    elif now_s - agent.since < grace_s:
        return None
    elif agent.alive:
        said = Condition(NETWORK_UNAVAILABLE, "True", NOT_READY, _cut("; ".join(agent.causes) or "not ready"))
    else:
        said = Condition(NETWORK_UNAVAILABLE, "True", DOWN, "the agent of this node has given no sign of life")
    if present is not None and _same(present, said):
        return None
    moved = msgspec.structs.replace(_moved(said, present, now), lastHeartbeatTime=now)
    return {"status": {"conditions": [_body(moved)]}}


def addresses_patch(seen: Seen, addresses: Iterable[str]) -> Patch | None:
    """A merge patch of the status of a Service of type LoadBalancer."""
    wanted = tuple(addresses)
    if wanted == seen.addresses:
        return None
    ingress = [{"ip": address} for address in wanted]
    return {"status": {"loadBalancer": {"ingress": ingress or None}}}


def event(
    kind: tuple[str, str],
    name: tuple[str, str],
    uid: str,
    *,
    reason: str,
    note: str,
    now: str,
    unique: str,
    by: str,
) -> tuple[str, Patch]:
    """An Event of events.k8s.io/v1: the path of its collection, and its body. `kind`: apiVersion and kind;
    `unique`: the same for the same news, so that they are told once; `by`: the replica."""
    namespace, object_name = name
    where = namespace or "default"
    regarding = {"apiVersion": kind[0], "kind": kind[1], "name": object_name, "uid": uid}
    if namespace:
        regarding["namespace"] = namespace
    body: Patch = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{object_name[:200]}.{unique}", "namespace": where},
        "eventTime": now,
        "type": "Warning",
        "reason": reason,
        "action": "Mirror",
        "note": _cut(note),
        "regarding": regarding,
        "reportingController": "tortie.io/kube-bridge",
        "reportingInstance": by[:128],
    }
    return f"/apis/events.k8s.io/v1/namespaces/{where}/events", body
