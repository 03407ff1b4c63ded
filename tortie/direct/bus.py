"""What stands in the place of the bus while the api's handlers work on Kubernetes itself.

    Followers (services.kube_bridge) --hear--> Core --flush--> desired facts, endpoints of pods --> DirectFeed --> Store
    Store --batch--> API server: all of it on trial (dryRun), then in earnest
    explain --get_many--> Compiler (services.policy_compiler) over the same facts

The version of an object (`resourceVersion`) is the sequence of its fact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName
from bus_schemas.resources import KINDS, Pod, Resource
from bus_schemas.subjects import (
    ATTACHMENT,
    DESIRED,
    DIRECTION,
    ENDPOINT,
    GROUP,
    HOST_ATTACHMENT,
    POLICY_STATUS,
    RULES,
    Fact,
    Family,
    Key,
)
from chassis.bus import Interest, Write
from chassis.errors import Conflict, Unavailable
from chassis.feed import Batch
from services.api.answers import Problem
from services.api.standing import STANDING
from services.kube_bridge.client import Client
from services.kube_bridge.core import Core
from services.kube_bridge.core import Fact as Told
from services.kube_bridge.cursor import Standing
from services.kube_bridge.discovery import Discovery
from services.kube_bridge.errors import KubeError, Refused
from services.kube_bridge.following import Follower
from services.kube_bridge.identity import Identity
from services.kube_bridge.mirror import MARK, Reader, Seen
from services.kube_bridge.settings import Settings
from services.kube_bridge.sources import SOURCES, Source
from services.policy_compiler.core import READS as COMPILED_FROM
from services.policy_compiler.core import Core as Compiler
from tortie.direct.writing import KUBERNETES_OWN, Object, body

ENDED = ("Succeeded", "Failed")
CONFLICT, ABSENT = 409, 404
_KIND_OF: dict[Family[Any], type[Resource]] = {DESIRED[kind]: kind for kind in KINDS.values()}


class Forbidden(NamedTuple):
    source: Source
    why: str


class DirectFeed:
    """What `Bus.follow` gives: everything at first, then what changes."""

    def __init__(self, bus: DirectBus) -> None:
        self._bus = bus
        self._first = True

    async def __aenter__(self) -> DirectFeed:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def next(self) -> Batch:
        if self._first:
            await self._bus.read.wait()
        else:
            await self._bus.moved.wait()
        self._bus.moved.clear()
        facts = [*self._bus.take(), *(self._bus.standing() if self._first else ())]
        self._first = False
        return Batch(facts, frozenset(), in_sync=True)


class DirectBus:
    """Only what the api asks of a bus."""

    def __init__(self, client: Client, sources: Collection[Source], compiles: bool) -> None:
        """`compiles`: what policies mean may be asked for."""
        self.read = asyncio.Event()
        """Every source was listed, or the server said why not."""
        self.moved = asyncio.Event()
        self.failure = ""
        """Why it cannot be read; empty: it can, as far as is known."""
        self.failed = asyncio.Event()
        self.warnings: list[str] = []
        self._client = client
        self._identity = Identity(client)
        self._settings = Settings(health_listen="")
        self._discovery = Discovery(client, self._settings.kube_absent_s)
        self._core = Core()
        self._followers = [self._follower(source) for source in SOURCES if source in sources]
        self._compiler = Compiler() if compiles else None
        self._compiled: dict[tuple[Family[Any], Key], Any] = {}
        self._plugged: dict[tuple[str, str], Key] = {}
        """Pods on the network: their endpoints' keys."""

    def _follower(self, source: Source) -> Follower:
        return Follower(
            source,
            self._client,
            self._identity,
            self._discovery,
            self._settings,
            hear=self._hear,
            turned=self._turned,
        )

    async def run(self) -> None:
        """For ever."""
        if not self._followers:
            self.read.set()
        async with asyncio.TaskGroup() as tasks:
            for follower in self._followers:
                tasks.create_task(follower.run(), name=follower.source.name)

    @property
    def forbidden(self) -> list[Forbidden]:
        return [Forbidden(found.source, found.cursor.why) for found in self._standing(Standing.FORBIDDEN)]

    @property
    def absent(self) -> list[Source]:
        """What the server does not have."""
        return [found.source for found in self._standing(Standing.ABSENT)]

    def _standing(self, standing: Standing) -> list[Follower]:
        return [follower for follower in self._followers if follower.cursor.standing is standing]

    # --- what is so

    def _hear(self, told: Told) -> None:
        self._core.apply(told)
        self._turned()

    def _turned(self) -> None:
        if not self.read.is_set():
            failing = [f for f in self._followers if f.cursor.standing is Standing.FAILING]
            if failing:
                self.failure = failing[0].cursor.why
                self.failed.set()
            if all(follower.settled for follower in self._followers):
                self.read.set()
        self.moved.set()

    def take(self) -> list[Fact]:
        """What is new."""
        for id_ in self._core.unsure():
            self._core.recall(id_, None)
        facts: list[Fact] = []
        for (kind, key), resource in self._core.flush().wanted.items():
            facts.append(self._fact(kind, key, resource))
            if kind is Pod:
                facts += self._endpoint(key, resource)
        self.warnings = [f"{trouble.display}: {'; '.join(trouble.reasons)}" for trouble in self._core.troubles]
        return [*facts, *self._compile(facts)]

    def standing(self) -> Iterable[Fact]:
        """What every cluster has, though it was never written there."""
        facts = [
            Fact(DESIRED[type(resource)], resource.key, resource, 0)
            for resource in STANDING
            if not self._core.claims(type(resource), resource.key)
        ]
        return [*facts, *self._compile(facts)]

    def _fact(self, kind: type[Resource], key: tuple[str, str], resource: Resource | None) -> Fact:
        seen = self._seen(kind, key)
        if resource is None or seen is None:
            return Fact(DESIRED[kind], key, None, 0)
        return Fact(DESIRED[kind], key, _unmarked(resource), _number(seen.version))

    def _seen(self, kind: type[Resource], key: tuple[str, str]) -> Seen | None:
        """The object that counts."""
        claims = self._core.claims(kind, key)
        return next((seen for seen in claims if seen.resource is not None), claims[0] if claims else None)

    def _endpoint(self, key: tuple[str, str], pod: Resource | None) -> list[Fact]:
        """A pod is on the network while it has a node, addresses, and runs."""
        facts = []
        endpoint: Endpoint | None = None
        if isinstance(pod, Pod) and pod.spec.node_name and pod.status.pod_ips and pod.status.phase not in ENDED:
            node = NodeName(pod.spec.node_name)
            if not pod.spec.host_network:
                endpoint = Endpoint(
                    node=node, namespace=key[0], name=key[1], container="", link="", addresses=pod.status.pod_ips
                )
        before = self._plugged.pop(key, None)
        if endpoint is not None:
            self._plugged[key] = (endpoint.node, *key)
            facts.append(Fact(ENDPOINT, (endpoint.node, *key), endpoint, 1))
        if before is not None and before != self._plugged.get(key):
            facts.insert(0, Fact(ENDPOINT, before, None, 1))
        return facts

    # --- what policies mean

    def _compile(self, facts: Iterable[Fact]) -> list[Fact]:
        """What could not be compiled, as facts; the rest is kept for `get_many`."""
        if self._compiler is None:
            return []
        for fact in facts:
            if fact.family in COMPILED_FROM:
                self._compiler.apply(fact)
        changes = self._compiler.flush()
        made: dict[tuple[Family[Any], Key], Any] = {
            **{(GROUP, (group, str(at))): value for (group, at), value in changes.groups.items()},
            **{(RULES, (rules,)): value for rules, value in changes.rules.items()},
            **{(DIRECTION, (direction,)): value for direction, value in changes.directions.items()},
            **{(ATTACHMENT, tuple(where)): value for where, value in changes.attachments.items()},
            **{(HOST_ATTACHMENT, tuple(where)): value for where, value in changes.hosts.items()},
        }
        self._compiled |= made
        return [Fact(POLICY_STATUS, tuple(where), value, 1) for where, value in changes.statuses.items()]

    # --- what the api asks of a bus

    def follow(self, *_: Interest, packed: bool = False) -> DirectFeed:
        return DirectFeed(self)

    async def connected(self) -> None:
        return None

    async def get_many(self, keys: Sequence[tuple[Family[Any], Key]]) -> list[Fact]:
        return [
            await self._again(_KIND_OF[family], (key[0], key[1]))
            if family in _KIND_OF
            else Fact(family, key, self._compiled.get((family, key)), 1)
            for family, key in keys
        ]

    async def _again(self, kind: type[Resource], key: tuple[str, str]) -> Fact:
        """What the server has now of an object that was not as it was believed to be."""
        seen = self._seen(kind, key)
        source = seen.source if seen is not None else await self._home(kind)
        name = seen.name if seen is not None else key
        try:
            raw = await self._client.get(source.object(*name), resource=source.name)
        except Refused as refused:
            if refused.status != ABSENT:
                raise
            return Fact(DESIRED[kind], key, None, 0)
        found = Reader(source, "").read(raw)
        resource = None if found.resource is None else _unmarked(found.resource)
        return Fact(DESIRED[kind], key, resource, _number(found.version))

    async def batch(self, writes: Sequence[Write]) -> list[int]:
        """All of it on trial first. Raises Conflict, Problem, KubeError."""
        own = [w for w in writes if _KIND_OF[w.family] in KUBERNETES_OWN]
        if own:
            display = "/".join(filter(None, (_KIND_OF[own[0].family].KIND, *own[0].key)))
            raise Problem(CONFLICT, f"{display} has more than Tortie knows of: change it with kubectl")
        if len(writes) > 1:
            for write in writes:
                await self._send(write, trial=True)
        sequences: list[int] = []
        for write in writes:
            try:
                sequences.append(await self._send(write, trial=False))
            except (KubeError, Conflict) as error:
                if not sequences:
                    raise
                raise Problem(CONFLICT, f"{len(sequences)} of {len(writes)} objects are written: {error}") from error
        return sequences

    async def _send(self, write: Write, *, trial: bool) -> int:
        """The new version; 0: it is gone."""
        kind, key = _KIND_OF[write.family], (write.key[0], write.key[1])
        seen = self._seen(kind, key)
        source = seen.source if seen is not None else await self._home(kind)
        name = seen.name if seen is not None else key
        params: dict[str, str | int] = {"dryRun": "All"} if trial else {}
        before = await self._raw(source, name)
        version = _number(before["metadata"]["resourceVersion"]) if before is not None else 0
        if write.expected is not None and write.expected != version:
            raise Conflict(write.family.subject(*key), expected=write.expected, actual=version)
        if write.message is None:
            if before is not None:
                options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
                options |= {"preconditions": {"resourceVersion": before["metadata"]["resourceVersion"]}}
                await self._client.request(
                    "DELETE", source.object(*name), resource=source.name, params=params, body=options
                )
            return 0
        assert isinstance(write.message, Resource)
        made = body(source, write.message, before)
        try:
            if before is None:
                collection = source.object(key[0], "").rstrip("/") if key[0] else source.collection
                answer = await self._client.request("POST", collection, resource=source.name, params=params, body=made)
            else:
                made["metadata"]["name"] = name[1]
                answer = await self._client.request(
                    "PUT", source.object(*name), resource=source.name, params=params, body=made
                )
        except Refused as refused:
            if refused.status == CONFLICT:
                raise Conflict(write.family.subject(*key), expected=version, actual=None) from refused
            raise
        after: Object = msgspec.json.decode(answer)
        return _number(after["metadata"]["resourceVersion"])

    async def _raw(self, source: Source, name: tuple[str, str]) -> Object | None:
        try:
            found: Object = msgspec.json.decode(await self._client.get(source.object(*name), resource=source.name))
        except Refused as refused:
            if refused.status != ABSENT:
                raise
            return None
        return found

    async def _home(self, kind: type[Resource]) -> Source:
        """Where a new object of the kind goes: the first of its resources that the server has. Raises Problem."""
        candidates = [source for source in SOURCES if source.resource is kind]
        for source in candidates:
            if not source.custom or await self._discovery.has(source):
                return source
        wanted = f": install its CRD, {candidates[0].name}" if candidates else ""
        raise Problem(CONFLICT, f"Kubernetes has no {kind.KIND}{wanted}")

    async def request(self, *_: object, **__: object) -> NoReturn:
        raise Unavailable("only the bus can answer this")


def _unmarked(resource: Resource) -> Resource:
    """Without the bridge's mark, which is nobody's word."""
    annotations = {name: text for name, text in resource.metadata.annotations.items() if name != MARK}
    return msgspec.structs.replace(
        resource, metadata=msgspec.structs.replace(resource.metadata, annotations=annotations)
    )


def _number(version: str) -> int:
    """A resourceVersion as a sequence. (Kubernetes 1.35: a decimal number for every server that conforms.)"""
    return int(version) if version.isdecimal() else 1
