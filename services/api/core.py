"""The mirror of the bus that requests are answered from, and the decision what a write would change.

    facts ---> mirror ---> lists, views, watches
                  |
    documents --> decide --> Planned(writes, one result an object) | Refused(faults): nothing is written

`decide` gives each write the sequence that it was decided upon; should another writer be faster, the batch fails as a
whole and the shell decides anew upon what that writer left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ipam import Affinity, Block, Candidate, Epoch, Handle, Holding, ServiceAddresses
from bus_schemas.manifests import Accepted, Fault, Read, Rejected, validate_against
from bus_schemas.node_addresses import NodeAddresses, with_found
from bus_schemas.node_facts import NodeFacts
from bus_schemas.policy import Hits, PolicyStatus
from bus_schemas.resources import KINDS, IPPool, Namespace, Node, Profile, Resource, Service, ServiceAccount
from bus_schemas.sessions import Sessions
from bus_schemas.status import Status
from bus_schemas.subjects import (
    AFFINITY,
    BLOCK,
    CANDIDATE,
    DESIRED,
    ENDPOINT,
    EPOCH,
    HANDLE,
    HITS,
    HOLDING,
    NODE_ADDRESSES,
    NODE_FACTS,
    POLICY_STATUS,
    SERVICE_ADDRESSES,
    SESSIONS,
    STATUS,
    Fact,
    Family,
    Key,
    family_of,
)
from services.api import profiles
from services.api.advice import advice
from services.api.dependants import Beside, dependants
from services.api.kinds import Kind
from services.api.mirrored import why_not_here
from services.api.requests import (
    Decision,
    Delete,
    Planned,
    Put,
    Refused,
    Request,
    Result,
    Split,
    Stamp,
    Stored,
    Write,
)
from services.api.split import CannotSplit, asking_by_name, split
from services.api.standing import why_kept

ADDRESSES = (BLOCK, AFFINITY, HANDLE, EPOCH, CANDIDATE, SERVICE_ADDRESSES, HOLDING)
OF_NODES = (NODE_ADDRESSES, NODE_FACTS, HITS, SESSIONS)
READS: tuple[Family[Any], ...] = (*DESIRED.values(), *ADDRESSES, ENDPOINT, STATUS, *OF_NODES, POLICY_STATUS)

MAX_WRITES = 1000
"""Changed objects of one request: what the bus takes as one atomic batch."""

_ORDER = {kind: position for position, kind in enumerate(KINDS.values())}


Current = Callable[[Kind, tuple[str, str]], Fact]


class Core:
    def __init__(self) -> None:
        self.blocks: dict[str, Block] = {}
        self.affinities: dict[tuple[str, str], Affinity] = {}
        """By (node, CIDR)."""
        self.handles: dict[str, Handle] = {}
        self.epochs: dict[str, Epoch] = {}
        """The one under the empty name."""
        self.candidates: dict[str, Candidate] = {}
        """By handle."""
        self.service_addresses: dict[tuple[str, str], ServiceAddresses] = {}
        """By (namespace, name)."""
        self.holdings: dict[str, Holding] = {}
        """By node."""
        self.unreadable: dict[tuple[Family[Any], Key], str] = {}
        """Keys of which the last message cannot be read, and why; what they held before is still here."""
        self.endpoints: dict[tuple[str, str, str], Endpoint] = {}
        """By (node, namespace, name)."""
        self.statuses: dict[tuple[str, str], Status] = {}
        """By (component, instance)."""
        self.hits: dict[str, Hits] = {}
        """By node."""
        self.sessions: dict[str, Sessions] = {}
        """By node."""
        self.node_facts: dict[str, NodeFacts] = {}
        """By node."""
        self._node_addresses: dict[str, NodeAddresses] = {}
        """What agents say of their nodes' addresses, by node."""
        self._owners: dict[str, str] = {}
        """The pod that has an address."""
        self.policy_statuses: dict[tuple[str, str, str], PolicyStatus] = {}
        """By (kind token, namespace, name): what the compiler could not carry out."""
        self._desired: dict[Kind, dict[tuple[str, str], Stored]] = {kind: {} for kind in KINDS.values()}
        self._kinds: dict[Family[Any], Kind] = {DESIRED[kind]: kind for kind in KINDS.values()}
        self._views: dict[Family[Any], dict[Any, Any]] = {BLOCK: self.blocks, HANDLE: self.handles}
        self._views |= {AFFINITY: self.affinities, EPOCH: self.epochs, CANDIDATE: self.candidates}
        self._views |= {SERVICE_ADDRESSES: self.service_addresses, HOLDING: self.holdings}
        self._views |= {ENDPOINT: self.endpoints, STATUS: self.statuses, HITS: self.hits, SESSIONS: self.sessions}
        self._views |= {NODE_FACTS: self.node_facts, NODE_ADDRESSES: self._node_addresses}
        self._views |= {POLICY_STATUS: self.policy_statuses}

    # --- the mirror

    def apply(self, fact: Fact) -> None:
        if self.unreadable:
            self.unreadable.pop((fact.family, fact.key), None)
        kind = self._kinds.get(fact.family)
        if kind is not None:
            self._apply_desired(kind, (fact.key[0], fact.key[1]), fact)
        elif (view := self._views.get(fact.family)) is not None:
            key = fact.key if len(fact.key) > 1 else "".join(fact.key)
            if fact.family == ENDPOINT:
                self._own(self.endpoints.get((fact.key[0], fact.key[1], fact.key[2])), fact.value)
            if fact.value is None:
                view.pop(key, None)
            else:
                view[key] = fact.value

    def cannot_read(self, subject: str, reason: str) -> None:
        """What lies under the subject is no message of its family."""
        found = family_of(subject, READS)
        if found is not None:
            self.unreadable[found] = reason

    def _apply_desired(self, kind: Kind, key: tuple[str, str], fact: Fact) -> None:
        if fact.value is None:
            self._desired[kind].pop(key, None)
        else:
            self._desired[kind][key] = Stored(fact.value, fact.sequence)

    def _own(self, before: Endpoint | None, after: Endpoint | None) -> None:
        if before is not None:
            pod = f"{before.namespace}/{before.name}"
            for address in before.addresses:
                if self._owners.get(address) == pod:
                    del self._owners[address]
        if after is not None:
            self._owners |= dict.fromkeys(after.addresses, f"{after.namespace}/{after.name}")

    def owner(self, address: str) -> str:
        """The pod that has the address, `namespace/name`; empty: none has."""
        return self._owners.get(address, "")

    def kind_of(self, family: Family[Any]) -> Kind | None:
        return self._kinds.get(family)

    def resources(self, kind: Kind, namespace: str | None = None) -> list[Stored]:
        """All of a kind (in one namespace), by namespace and name; with the profiles that others make."""
        stored = self._desired[kind]
        if kind is Profile:
            made = (of for parent in (Namespace, ServiceAccount) for of in self._desired[parent].values())
            stored = stored | {one.resource.key: one for of in made if (one := _made_of(of)) is not None}
        return [stored[key] for key in sorted(stored) if namespace is None or key[0] == namespace]

    def resource(self, kind: Kind, key: tuple[str, str]) -> Stored | None:
        if kind is Profile and (made := profiles.origin(key[1])) is not None:
            parent = self._desired[made[0]].get(made[1])
            return _made_of(parent) if parent is not None else None
        return self._desired[kind].get(key)

    def node(self, name: str) -> Node | None:
        """With the addresses at which it is reached, also where only its agent knows them."""
        stored = self._desired[Node].get(("", name))
        if stored is None or not isinstance(stored.resource, Node):
            return None
        return with_found(stored.resource, self._node_addresses.get(name))

    def nodes(self) -> Iterator[Node]:
        """The same of all, by name."""
        for _, name in sorted(self._desired[Node]):
            if (node := self.node(name)) is not None:
                yield node

    def addresses_of(self, resource: Resource) -> ServiceAddresses | None:
        """What address management gave a Service, or why it did not."""
        return self.service_addresses.get(resource.key) if isinstance(resource, Service) else None

    def policy_status(self, resource: Resource) -> PolicyStatus | None:
        return self.policy_statuses.get((resource.TOKEN, *resource.key))

    def said_of(self, resource: Resource) -> object:
        """What its document shows beside the resource itself: another value is news for whoever watches it."""
        return self.policy_status(resource), self.addresses_of(resource)

    def shown(self, fact: Fact) -> Iterator[tuple[Kind, tuple[str, str]]]:
        """The objects of which the document may be another after the fact."""
        kind = self.kind_of(fact.family)
        if kind is not None:
            key = fact.key[0], fact.key[1]
            yield kind, key
            if profile := profiles.name_of(kind, key):
                yield Profile, ("", profile)
        elif fact.family == POLICY_STATUS and (told := KINDS.get(fact.key[0])) is not None:
            yield told, (fact.key[1], fact.key[2])
        elif fact.family == SERVICE_ADDRESSES:
            yield Service, (fact.key[0], fact.key[1])

    def current(self, kind: Kind, key: tuple[str, str]) -> Fact:
        stored = self._desired[kind].get(key)
        if stored is not None:
            return Fact(DESIRED[kind], key, stored.resource, stored.sequence)
        return Fact(DESIRED[kind], key, None)

    # --- decisions

    def decide(self, request: Request, stamp: Stamp, fresher: Mapping[Key, Fact] | None = None) -> Decision:
        """What the request would write. `fresher` holds facts, by (kind token, namespace, name), that the mirror may
        not have heard of yet."""
        newer = fresher or {}

        def current(kind: Kind, key: tuple[str, str]) -> Fact:
            return newer.get((kind.TOKEN, *key)) or self.current(kind, key)

        if isinstance(request, Delete):
            decision = self._decide_delete(request, current)
        elif isinstance(request, Split):
            decision = self._decide_split(request, stamp, current)
        elif isinstance(request, Put):
            decision = self._decide_put(request, stamp, current)
        else:
            decision = self._decide_apply(request.documents, stamp, current)
        if isinstance(decision, Planned) and len(decision.writes) > MAX_WRITES:
            changed = len(decision.writes)
            return Refused("too_large", f"{changed} objects change; one request can change {MAX_WRITES} at once")
        return decision

    def _decide_apply(self, documents: Sequence[Read], stamp: Stamp, current: Current) -> Decision:
        accepted = [read for read in documents if isinstance(read, Accepted)]
        faults = [fault for read in documents if isinstance(read, Rejected) for fault in read.faults]
        faults += _given_twice(accepted)
        if not faults:
            faults += self._conflicts(accepted)
        if faults:
            rejected = len({fault.document for fault in faults})
            error = f"{rejected} of {len(documents)} documents cannot be accepted: nothing was changed"
            return Refused("invalid", error, tuple(sorted(faults, key=lambda fault: fault.document)))
        results, writes = [], []
        for read in accepted:
            result, write = _store(read, stamp, current)
            results.append(result)
            if write is not None and (said := self._why_not_here(current(write.kind, write.key).value)):
                return Refused("conflict", said)
            if write is not None:
                writes.append(write)
        writes.sort(key=lambda write: _ORDER[write.kind])
        told = advice([read.resource for read in accepted], self.everything_of)
        results = [replace(r, warnings=(*r.warnings, *told.get((r.kind, r.key), ()))) for r in results]
        return Planned(tuple(results), tuple(writes))

    def everything_of(self, kind: Kind) -> Iterator[Resource]:
        """Of a kind, as it was written."""
        return (stored.resource for stored in self._desired[kind].values())

    def _decide_put(self, request: Put, stamp: Stamp, current: Current) -> Decision:
        read = request.document
        if isinstance(read, Accepted) and (type(read.resource), read.resource.key) != (request.kind, request.key):
            asked = _display(request.kind, request.key)
            return Refused("invalid", f"the document is {read.resource.display}, the address says {asked}")
        before = current(request.kind, request.key)
        stale = _stale(before, request.only_if)
        return stale if stale is not None else self._decide_apply([read], stamp, current)

    def _decide_delete(self, request: Delete, current: Current) -> Decision:
        results, writes = [], []
        leaving = set(request.targets)
        beside = Beside(self._staying(leaving), self.blocks.values(), self.endpoints.values())
        for kind, key in dict.fromkeys(request.targets):
            if said := profiles.why_not_deleted(kind, key):
                return Refused("conflict", said)
            before = current(kind, key)
            if before.value is None:
                if request.missing_ok:
                    results.append(Result(kind, key, "missing"))
                    continue
                return Refused("missing", f"{_display(kind, key)} does not exist")
            stale = _stale(before, request.only_if)
            if stale is not None:
                return stale
            kept = self._why_not_here(before.value) or why_kept(before.value, self._staying(leaving))
            if kept:
                return Refused("conflict", kept)
            results.append(Result(kind, key, "deleted", tuple(dependants(before.value, beside))))
            writes.append(Write(kind, key, None, before.sequence))
        writes.sort(key=lambda write: _ORDER[write.kind], reverse=True)
        return Planned(tuple(results), tuple(writes))

    def _decide_split(self, request: Split, stamp: Stamp, current: Current) -> Decision:
        """The parts are written before the pool goes: whoever reads along finds a pool around every block."""
        before = current(IPPool, ("", request.pool))
        if before.value is None:
            return Refused("missing", f"{_display(IPPool, ('', request.pool))} does not exist")
        if said := self._why_not_here(before.value):
            return Refused("conflict", said)
        try:
            parts = split(before.value, request.count)
        except CannotSplit as error:
            return Refused("conflict", str(error))
        results, writes = [], []
        for part in parts:
            result, write = _store(Accepted(part), stamp, current)
            if result.outcome != "created":
                return Refused("conflict", f"{part.display} exists already: rename or delete it first")
            results.append(result)
            writes += [write] if write is not None else []
        warnings = tuple(asking_by_name(request.pool, self._everything()))
        results.append(Result(IPPool, before.value.key, "deleted", warnings))
        writes.append(Write(IPPool, before.value.key, None, before.sequence))
        return Planned(tuple(results), tuple(writes))

    def _conflicts(self, accepted: Sequence[Accepted]) -> Iterator[Fault]:
        """What the objects may not be beside each other, beside the others, or in place of what they replace."""
        arriving = {(type(read.resource), read.resource.key): read.resource for read in accepted}

        def beside(resource: Resource) -> Iterator[Resource]:
            where = (type(resource), resource.key)
            for other in self._everything():
                replaced = (type(other), other.key)
                if replaced == where or replaced not in arriving:
                    yield other
            yield from (other for key, other in arriving.items() if key != where)

        for read in accepted:
            for fault in validate_against(read.resource, beside(read.resource)):
                yield replace(fault, document=read.document)

    def _why_not_here(self, before: Resource | None) -> str:
        return why_not_here(before, {component for component, _ in self.statuses})

    def _staying(self, leaving: set[tuple[Kind, tuple[str, str]]]) -> Iterator[Resource]:
        return (other for other in self._everything() if (type(other), other.key) not in leaving)

    def _everything(self) -> Iterator[Resource]:
        return (stored.resource for stored in chain.from_iterable(map(dict.values, self._desired.values())))


def _store(read: Accepted, stamp: Stamp, current: Current) -> tuple[Result, Write | None]:
    kind, key = type(read.resource), read.resource.key
    before = current(kind, key)
    if before.value is None:
        metadata = msgspec.structs.replace(
            read.resource.metadata,
            uid=read.resource.metadata.uid or next(stamp.uids),
            creation_timestamp=stamp.time,
        )
    else:
        known = before.value.metadata
        metadata = msgspec.structs.replace(
            read.resource.metadata, uid=known.uid, creation_timestamp=known.creation_timestamp
        )
    after = msgspec.structs.replace(read.resource, metadata=metadata)
    if after == before.value:
        return Result(kind, key, "unchanged", read.warnings), None
    outcome: Literal["created", "configured"] = "created" if before.value is None else "configured"
    return Result(kind, key, outcome, read.warnings), Write(kind, key, after, before.sequence)


def _stale(before: Fact, only_if: int | None) -> Refused | None:
    now = before.sequence if before.value is not None else 0
    if only_if is None or only_if == now:
        return None
    state = f"is at resourceVersion {now}" if now else "does not exist"
    wanted = f"expected {only_if}" if only_if else "it was to be created"
    return Refused("conflict", f"{before.family.name.removeprefix('desired ')} {before.key[1]} {state}, {wanted}")


def _given_twice(accepted: Iterable[Accepted]) -> list[Fault]:
    first: dict[tuple[Kind, tuple[str, str]], int] = {}
    faults = []
    for read in accepted:
        where = first.setdefault((type(read.resource), read.resource.key), read.document)
        if where != read.document:
            reason = f"{read.resource.display} is given twice, first in document {where}"
            faults.append(Fault(document=read.document, path="", reason=reason))
    return faults


def _made_of(stored: Stored) -> Stored | None:
    profile = profiles.made_of(stored.resource)
    return None if profile is None else Stored(profile, stored.sequence)


def _display(kind: Kind, key: tuple[str, str]) -> str:
    return "/".join(filter(None, (kind.KIND, *key)))
