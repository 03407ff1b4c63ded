"""The policy compiler with what it has said so far, and each change of it told as a set of short names.

compiler = Compiler(namespace("red"), *plugged("red/web", "10.0.0.1", app="web"))
assert compiler.change(stored(GlobalNetworkPolicy, "p", {...})) == {"rules globalnetworkpolicy/p", "pod red/web"}
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, TypeVar

import msgspec

from bus_schemas.policy import Attachment, Direction, Group, HostAttachment, PolicyStatus, Rule, Rules, SharedDirection
from bus_schemas.resources import Resource
from bus_schemas.subjects import DESIRED, Fact
from services.policy_compiler.core import Core
from services.policy_compiler.selection import identity
from tests.support.policy_worlds import desired, endpoint, pod

R = TypeVar("R", bound=Resource)


def resource(
    kind: type[R],
    where: str,
    spec: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> R:
    """As stored: past every validation. `where` is `name` or `namespace/name`."""
    namespace, _, name = where.rpartition("/")
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": dict(labels or {}),
        "annotations": dict(annotations or {}),
    }
    value = {"type": kind.__struct_config__.tag, "metadata": metadata}
    return msgspec.convert(value if spec is None else value | {"spec": spec}, kind)


def stored(kind: type[Resource], where: str, spec: Mapping[str, Any] | None = None, **more: Any) -> Fact:
    return desired(resource(kind, where, spec, **more))


def absent(kind: type[Resource], where: str) -> Fact:
    namespace, _, name = where.rpartition("/")
    return Fact(DESIRED[kind], (namespace, name), None)


def plugged(where: str, address: str, /, *ports: tuple[str, str, int], **labels: str) -> list[Fact]:
    """A pod, plugged in."""
    return [pod(where, labels, ports), endpoint(where, address)]


class Compiler:
    def __init__(self, *facts: Fact, core: Core | None = None) -> None:
        self.core = core or Core()
        self.groups: dict[tuple[str, int], Group] = {}
        self.rules: dict[str, Rules] = {}
        self.directions: dict[str, SharedDirection] = {}
        self.pods: dict[str, Attachment] = {}
        self.hosts: dict[str, HostAttachment] = {}
        self.statuses: dict[str, PolicyStatus] = {}
        self.change(*facts)

    def change(self, *facts: Fact) -> set[str]:
        """What is said anew, or is no more (with a `-`)."""
        for fact in facts:
            self.core.apply(fact)
        changes = self.core.flush()
        return {
            *self._take("group", self.groups, {tuple(key): group for key, group in changes.groups.items()}),
            *self._take("rules", self.rules, changes.rules),
            *self._take("direction", self.directions, changes.directions),
            *self._take("pod", self.pods, {f"{k.namespace}/{k.name}": a for k, a in changes.attachments.items()}),
            *self._take("host", self.hosts, {"/".join(key): a for key, a in changes.hosts.items()}),
            *self._take("status", self.statuses, {"/".join(filter(None, k)): s for k, s in changes.statuses.items()}),
        }

    def members(self, selector: str) -> set[str]:
        """Of the group with this canonical text: addresses, CIDRs, `address protocol:port`."""
        uid, found = identity(selector), set[str]()
        for (group, _), message in self.groups.items():
            if group == uid:
                for width, packed in ((4, message.v4), (16, message.v6), (5, message.nets4), (17, message.nets6)):
                    step = width if message.of == "addresses" else width + 4
                    found |= {_said(packed[at : at + step], width) for at in range(0, len(packed), step)}
        return found

    def ingress(self, rules: str) -> tuple[Rule, ...]:
        return self.rules[rules].ingress

    def _take(self, what: str, held: dict[Any, Any], changed: Mapping[Any, Any]) -> set[str]:
        names = set()
        for key, message in changed.items():
            before = held.pop(key, None)
            name = (message or before).selector if what == "group" and key[1] == 0 else key
            names.add(f"{what} {name}" if message is not None else f"-{what} {name}")
            if message is not None:
                assert message != before, f"{what} {name} is told again"
                held[key] = message
            else:
                assert before is not None, f"{what} {name} never was"
        return names


def tiers(direction: Direction) -> list[tuple[str, list[str], str]]:
    """Name, rules and default of each."""
    return [(tier.tier, list(tier.rules), tier.default) for tier in direction.tiers]


def preview(direction: Direction) -> list[tuple[str, list[str], str]] | None:
    """The same of the preview."""
    if direction.preview is None:
        return None
    return [(tier.tier, list(tier.rules), tier.default) for tier in direction.preview]


def _said(member: bytes, width: int) -> str:
    if width in (5, 17):
        return str(ip_network((member[:-1], member[-1])))
    address = str(ip_network(member[:width]).network_address)
    return address if len(member) == width else f"{address} {member[width]}:{int.from_bytes(member[-2:], 'big')}"
