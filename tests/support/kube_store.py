"""The store of the stand-in for an API server: objects, a history of changes, versions, patches. No I/O.

It keeps what the bridge could trip over: one growing version for everything, conflicts, compaction (410), status apart
from the rest, finalizers, generation, names that exist already, CRDs that come and go. Calico's kinds are pruned,
defaulted and validated by their definitions (`crd_server`).
"""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from services.kube_bridge.sources import SOURCES
from tests.support.crd_server import admitted, definitions

Object = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"


class ApiError(Exception):
    def __init__(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.headers = code, reason, message, headers or {}

    @property
    def body(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": self.reason,
            "message": self.message,
            "code": self.code,
        }


@dataclass
class Resource:
    """One resource of the API, as the server has it."""

    root: str
    plural: str
    kind: str
    namespaced: bool
    custom: bool
    status: bool = True
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return self.root.removeprefix("/apis/").removeprefix("/api/")


def _admitted(value: Object, before: Object | None) -> Object:
    """What a server keeps of an object of Calico's kinds."""
    if (value.get("apiVersion"), value.get("kind")) not in definitions():
        return value
    kept, faults = admitted(value, before)
    if faults:
        raise ApiError(422, "Invalid", "; ".join(faults))
    return kept


@dataclass(frozen=True)
class Change:
    version: int
    resource: str
    type: str
    object: Object


def every_resource() -> dict[str, Resource]:
    found = {
        source.collection: Resource(
            source.root, source.plural, source.kind, source.resource.NAMESPACED, source.custom, status=True
        )
        for source in SOURCES
    }
    for root, plural, kind in (
        ("/apis/coordination.k8s.io/v1", "leases", "Lease"),
        ("/apis/events.k8s.io/v1", "events", "Event"),
    ):
        found[f"{root}/{plural}"] = Resource(root, plural, kind, True, False, status=False)
    return found


class Store:
    def __init__(self) -> None:
        self.resources = every_resource()
        self.version = 100
        self.compacted = 0
        """What was known before this version is forgotten."""
        self.history: deque[Change] = deque(maxlen=200_000)
        self.listeners: list[Callable[[Change], None]] = []
        for name in ("kube-system", "default"):
            self.create("/api/v1/namespaces", "", {"metadata": {"name": name}})

    @property
    def cluster(self) -> str:
        uid: str = self.resources["/api/v1/namespaces"].objects["", "kube-system"]["metadata"]["uid"]
        return uid

    def resource(self, collection: str) -> Resource:
        found = self.resources.get(collection)
        if found is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return found

    def trial(self) -> Store:
        """A copy: what is written to it shows what would become of it (`dryRun=All`)."""
        made = copy.copy(self)
        made.resources = {name: replace(found, objects=dict(found.objects)) for name, found in self.resources.items()}
        made.history, made.listeners = deque(), []
        return made

    # --- reading

    def get(self, collection: str, namespace: str, name: str) -> Object:
        found = self.resource(collection).objects.get((namespace, name))
        if found is None:
            raise ApiError(404, "NotFound", f'{collection.rpartition("/")[2]} "{name}" not found')
        return found

    def page(self, collection: str, namespace: str, limit: int, token: str) -> tuple[list[Object], str, int]:
        """Objects, the next token, and how many remain. A token holds its version: a compacted one is expired."""
        objects = self.resource(collection).objects
        keys = sorted(key for key in objects if not namespace or key[0] == namespace)
        version, after = self.version, ("", "")
        if token:
            said, space, name = token.split("|")
            version, after = int(said), (space, name)
            if version < self.compacted:
                raise ApiError(410, "Expired", "The provided continue parameter is too old")
        keys = [key for key in keys if not token or key > after]
        chosen = keys[:limit] if limit else keys
        rest = len(keys) - len(chosen)
        more = f"{version}|{chosen[-1][0]}|{chosen[-1][1]}" if rest else ""
        return [objects[key] for key in chosen], more, rest

    def since(self, collection: str, version: int) -> Iterator[Change]:
        if version < self.compacted:
            raise ApiError(410, "Expired", f"too old resource version: {version} ({self.compacted})")
        if version > self.version:
            raise ApiError(504, "Timeout", f"Too large resource version: {version}, current: {self.version}")
        newer = itertools.takewhile(lambda change: change.version > version, reversed(self.history))
        yield from reversed([change for change in newer if change.resource == collection])

    # --- writing

    def create(self, collection: str, namespace: str, body: Object) -> Object:
        resource = self.resource(collection)
        made = copy.deepcopy(body)
        made["apiVersion"], made["kind"] = resource.api_version, resource.kind
        metadata = made.setdefault("metadata", {})
        name = metadata.get("name") or f"{metadata.get('generateName', 'x')}{uuid4().hex[:5]}"
        if resource.namespaced:
            metadata["namespace"] = namespace or metadata.get("namespace", "default")
        key = (metadata.get("namespace", ""), name)
        if key in resource.objects:
            raise ApiError(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
        metadata.update(name=name, uid=str(uuid4()), generation=1)
        metadata.setdefault("creationTimestamp", CREATED)
        return self._store(collection, key, _admitted(made, None), "ADDED")

    def replace(self, collection: str, namespace: str, name: str, body: Object) -> Object:
        before = self.get(collection, namespace, name)
        self._check(before, body)
        after = copy.deepcopy(body)
        after["metadata"] = {**before["metadata"], **after.get("metadata", {})}
        if self.resource(collection).status and "status" in before:
            after["status"] = before["status"]
        return self._update(collection, (namespace, name), before, after)

    def patch(self, collection: str, namespace: str, name: str, body: Any, how: str, *, status: bool) -> Object:
        before = self.get(collection, namespace, name)
        if status and not self.resource(collection).status:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        after = patched(before, body, how)
        self._check(before, body if isinstance(body, dict) else {})
        if status:
            after = {**before, "status": after.get("status", {})}
        elif "status" in before and self.resource(collection).status:
            after["status"] = before["status"]
        return self._update(collection, (namespace, name), before, after)

    def delete(self, collection: str, namespace: str, name: str) -> Object:
        before = self.get(collection, namespace, name)
        if before["metadata"].get("finalizers"):
            after = copy.deepcopy(before)
            after["metadata"]["deletionTimestamp"] = CREATED
            return self._update(collection, (namespace, name), before, after)
        return self._forget(collection, (namespace, name))

    def compact(self) -> None:
        """Versions up to now are forgotten."""
        self.compacted = self.version + 1
        self.version += 1

    def drop_crd(self, collection: str) -> None:
        """As when a CRD is deleted: its objects first, then the resource."""
        for key in list(self.resource(collection).objects):
            self._forget(collection, key)
        del self.resources[collection]

    def _check(self, before: Object, body: Object) -> None:
        wanted = (body.get("metadata") or {}).get("resourceVersion")
        if wanted and wanted != before["metadata"]["resourceVersion"]:
            name = before["metadata"]["name"]
            raise ApiError(409, "Conflict", f'Operation cannot be fulfilled on "{name}": the object has been modified')

    def _update(self, collection: str, key: tuple[str, str], before: Object, after: Object) -> Object:
        after = _admitted(after, before)
        metadata = after["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            return self._forget(collection, key)
        if {**after, "metadata": {**metadata, "resourceVersion": ""}} == {
            **before,
            "metadata": {**before["metadata"], "resourceVersion": ""},
        }:
            return before  # nothing changed: no new version, as in Kubernetes
        if after.get("spec") != before.get("spec"):
            metadata = {**metadata, "generation": metadata.get("generation", 1) + 1}
        return self._store(collection, key, {**after, "metadata": metadata}, "MODIFIED")

    def _store(self, collection: str, key: tuple[str, str], made: Object, type_: str) -> Object:
        self.version += 1
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(self.version)}}
        self.resources[collection].objects[key] = made
        self._tell(Change(self.version, collection, type_, made))
        return made

    def _forget(self, collection: str, key: tuple[str, str]) -> Object:
        self.version += 1
        gone = self.resources[collection].objects.pop(key)
        gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
        self._tell(Change(self.version, collection, "DELETED", gone))
        return gone

    def _tell(self, change: Change) -> None:
        self.history.append(change)
        for listener in self.listeners:
            listener(change)


def patched(before: Object, body: Any, how: str) -> Object:
    """By content type: RFC 7386 merge, RFC 6902 JSON patch, Kubernetes' strategic merge (conditions by type)."""
    if how == "application/json-patch+json":
        return _json_patch(before, body)
    if how in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        merged = _merged(before, body, strategic="strategic" in how)
        assert isinstance(merged, dict)
        return merged
    raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {how}")


def _merged(before: Any, patch: Any, *, strategic: bool, name: str = "") -> Any:
    if strategic and name == "conditions" and isinstance(patch, list):
        found = {condition["type"]: condition for condition in before or []}
        for condition in patch:
            found[condition["type"]] = {**found.get(condition["type"], {}), **condition}
        return list(found.values())
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value, strategic=strategic, name=key)
    return merged


def _json_patch(before: Object, operations: list[Any]) -> Object:
    after = copy.deepcopy(before)
    for operation in operations:
        *path, last = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]]
        at: Any = after
        for token in path:
            at = at[int(token)] if isinstance(at, list) else at[token]
        if operation["op"] == "remove":
            del at[int(last) if isinstance(at, list) else last]
        elif operation["op"] == "test":
            if at[last] != operation["value"]:
                raise ApiError(422, "Invalid", f"the test of {operation['path']} failed")
        elif isinstance(at, list) and last == "-":
            at.append(operation["value"])
        else:
            at[int(last) if isinstance(at, list) else last] = operation["value"]
    return after
