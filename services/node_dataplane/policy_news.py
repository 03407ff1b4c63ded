"""Which changes of policy came into force on this node. Pure.

    facts --note--> noted --begin--> under way --committed--> told, once they are in the kernel

A policy changed when its rules did, or when it began or ceased to govern a pod (or a host endpoint) that was there
before. What a pod brings with it when it starts, and what a restarted agent reads again, is no news; nor are members of
groups, which come and go with pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from bus_schemas.ids import PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, HostAttachment, Rules
from bus_schemas.subjects import ATTACHMENT, HOST_ATTACHMENT, RULES, Fact
from services.node_dataplane.denials import Told

IN_FORCE = "in_force"
NAMED = 20
"""Pods that an event names."""


class Known(Protocol):
    """What of the policy table is asked here, as it was before a fact is applied."""

    @property
    def attachments(self) -> Mapping[PodKey, Attachment]: ...

    @property
    def hosts(self) -> Mapping[str, HostAttachment]: ...

    def rules(self, uid: RulesId) -> Rules | None: ...


Change = tuple[RulesId, str]
"""The policy, and how it changed: `changed`, `governs`, `leaves`."""


class PolicyNews:
    def __init__(self, known: Known, title: Callable[[RulesId], str]) -> None:
        """`title` of a policy: `<Kind>/<namespace>/<name>`."""
        self._known = known
        self._title = title
        self._noted: dict[Change, dict[str, None]] = {}
        """With whom it concerns; empty: whoever it governs."""
        self._under_way: dict[Change, dict[str, None]] = {}

    def note(self, fact: Fact) -> None:
        """To be told of every fact before the policy table learns it."""
        if fact.family == RULES:
            id_ = RulesId(fact.key[0])
            before = self._known.rules(id_)
            if before is not None and fact.value is not None and before != fact.value:
                self._noted.setdefault((id_, "changed"), {})
        elif fact.family == ATTACHMENT:
            pod = PodKey(fact.key[1], fact.key[2])
            self._note_attachment(str(pod), self._known.attachments.get(pod), fact.value)
        elif fact.family == HOST_ATTACHMENT:
            self._note_host(fact.key[1], self._known.hosts.get(fact.key[1]), fact.value)

    def _note_attachment(self, whom: str, before: Attachment | None, after: Attachment | None) -> None:
        if before is not None and after is not None and before.container == after.container:
            self._note_governing(whom, _named(before), _named(after))

    def _note_host(self, whom: str, before: HostAttachment | None, after: HostAttachment | None) -> None:
        if before is not None and after is not None:
            self._note_governing(whom, _named(before), _named(after))

    def _note_governing(self, whom: str, before: frozenset[RulesId], after: frozenset[RulesId]) -> None:
        for id_ in sorted(after - before):
            self._noted.setdefault((id_, "governs"), {})[whom] = None
        for id_ in sorted(before - after):
            self._noted.setdefault((id_, "leaves"), {})[whom] = None

    def begin(self) -> None:
        """What was noted so far is on its way to the kernel, and stays so when it does not arrive."""
        for change, whom in self._noted.items():
            self._under_way.setdefault(change, {}).update(whom)
        self._noted = {}

    def committed(self) -> list[Told]:
        """It is there."""
        under_way, self._under_way = self._under_way, {}
        return [self._told(id_, change, list(whom)) for (id_, change), whom in under_way.items()]

    def _told(self, id_: RulesId, change: str, whom: list[str]) -> Told:
        title = self._title(id_)
        if change == "changed":
            whom = sorted(self._governed(id_))
        named = ", ".join(whom[:NAMED]) + (f" and {len(whom) - NAMED} more" if len(whom) > NAMED else "")
        match change:
            case "changed":
                message = f"{title} is in force as changed{f'; it governs {named}' if named else ''}."
            case "governs":
                message = f"{title} is in force for {named}."
            case _:
                message = f"{title} is not in force any more for {named}."
        detail = {"policy": title, "change": change, "pods": ",".join(whom[:NAMED]), "endpoints": str(len(whom))}
        return Told(IN_FORCE, title, message, {key: text for key, text in detail.items() if text})

    def _governed(self, id_: RulesId) -> Iterable[str]:
        for pod, attachment in self._known.attachments.items():
            if id_ in _named(attachment):
                yield str(pod)
        for name, host in self._known.hosts.items():
            if id_ in _named(host):
                yield name


def _named(attachment: Attachment | HostAttachment) -> frozenset[RulesId]:
    """The policies in force, without previews and profiles (every pod of a namespace has that one)."""
    directions: list[Direction] = [getattr(attachment, name) for name in attachment.DIRECTIONS]
    return frozenset(rules for direction in directions for tier in direction.tiers for rules in tier.rules)
