"""One source, listed and watched for ever: the shell around `cursor`.

    cursor.step --> list (streamed, in pages) --> Listed --> watch --> Changed, Gone --> hear
         ^                                                     |
         +------------- failed, ended, absent -----------------+

A list counts when it is whole: one that breaks off is none. An empty one is asked for once more, past every cache,
before it is believed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec

from services.kube_bridge.client import Client
from services.kube_bridge.core import Absent, Changed, Fact, Gone, Listed
from services.kube_bridge.cursor import Cursor, Standing, Step
from services.kube_bridge.discovery import Discovery
from services.kube_bridge.errors import KubeError, OtherCluster, Refused, Stalled
from services.kube_bridge.identity import Identity
from services.kube_bridge.metrics import EVENTS_SEEN, FAILURES, LISTS
from services.kube_bridge.mirror import Name, Reader, Seen
from services.kube_bridge.settings import Settings
from services.kube_bridge.sources import Source
from services.kube_bridge.views import Bookmark, ListPage, StatusBody, WatchEvent

WATCH_S = (300, 600)
"""The server ends a watch after a time between these, so that not all end at once."""
LIST_IDLE_S = 30.0
"""A streamed list that pauses for so long is taken for one that the server cannot end: lists are read in pages then."""
END_OF_LIST = "k8s.io/initial-events-end"
BREATH = 200
"""Objects that are read before others get their turn."""

T = TypeVar("T")

_event = msgspec.json.Decoder(WatchEvent)
_bookmark = msgspec.json.Decoder(Bookmark)
_page = msgspec.json.Decoder(ListPage)
_status = msgspec.json.Decoder(StatusBody)


class Follower:
    """`run` is its task. `hear` takes what is so; `turned` is called when `cursor.standing` may have changed."""

    def __init__(
        self,
        source: Source,
        client: Client,
        identity: Identity,
        discovery: Discovery,
        settings: Settings,
        *,
        hear: Callable[[Fact], None],
        turned: Callable[[], None],
    ) -> None:
        self.source = source
        self.cursor = Cursor(
            streams=settings.kube_stream_lists, absent_s=settings.kube_absent_s, max_s=settings.kube_retry_max_s
        )
        self.settled = False
        """It was listed, or the server said why not: nothing is to be waited for."""
        self._client = client
        self._identity = identity
        self._discovery = discovery
        self._page = settings.kube_page
        self._stall_s = settings.kube_stall_s
        self._hear = hear
        self._turned = turned
        self._reader = Reader(source, "")
        self._counters = {
            kind: EVENTS_SEEN.labels(source.name, kind)
            for kind in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR")
        }

    async def run(self) -> None:
        while True:
            step = self.cursor.step()
            wait = await self._attempt(step)
            self._turned()
            await asyncio.sleep(wait * random.uniform(1.0, 1.5))

    async def _attempt(self, step: Step) -> float:
        """One list, or one watch to its end. How long to wait."""
        try:
            return await self._take(step)
        except OtherCluster as error:
            FAILURES.labels(self.source.name, "other cluster").inc()
            self.cursor.doubtful()
            return self.cursor.failed(step, error)
        except KubeError as error:
            FAILURES.labels(self.source.name, _why(error)).inc()
            wait = self.cursor.failed(step, error)
            if isinstance(error, Refused) and not error.gone:
                self.settled = True
                if error.status == 404 and step is Step.WATCH:
                    self._discovery.forget(self.source)  # its CRD may be gone: the next list asks
            return wait

    async def _take(self, step: Step) -> float:
        if step is Step.WATCH:
            if self.cursor.failures:
                await self._identity.check()
            return await self._watch()
        if self.source.custom and not await self._discovery.has(self.source):
            self._hear(Absent(self.source))
            self.settled = True
            return self.cursor.absent()
        cluster = await self._identity.check()
        self._reader = Reader(self.source, cluster)
        if step is Step.STREAM_LIST:
            return await self._stream_list()
        await self._page_list(0 if step is Step.WHOLE_LIST else self._page)
        return 0.0

    # --- lists

    async def _stream_list(self) -> float:
        """Lists, and goes on watching."""
        objects: dict[Name, Seen] = {}
        listed = False
        try:
            async with self._client.watch(
                self.source.collection,
                resource=self.source.name,
                idle_s=self._stall_s,
                sendInitialEvents="true",
                resourceVersionMatch="NotOlderThan",
                timeoutSeconds=random.randint(*WATCH_S),
            ) as batches:
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(LIST_IDLE_S) as patience:
                    async for event in _events(batches):
                        if listed:
                            self._learn(event)
                            continue
                        patience.reschedule(loop.time() + LIST_IDLE_S)
                        version = self._collect(event, objects)
                        if version:
                            patience.reschedule(None)
                            await self._believe(objects, version, "streamed")
                            listed = True
        except Stalled:
            if not listed:
                self.cursor.streams = False
            raise
        if not listed:
            raise KubeError(f"{self.source.name}: the list broke off")
        return self.cursor.ended(with_news=True)

    def _collect(self, event: WatchEvent, objects: dict[Name, Seen]) -> str:
        """One event of a list; the version of the list, once it is whole."""
        self._count(event.type)
        match event.type:
            case "ADDED" | "MODIFIED":
                seen = self._reader.read(event.object)
                objects[seen.name] = seen
            case "DELETED":
                meta = self._reader.head(event.object)
                objects.pop((meta.namespace, meta.name), None)
            case "BOOKMARK":
                mark = _decoded(_bookmark, event.object)
                if (mark.metadata.annotations or {}).get(END_OF_LIST) == "true":
                    return mark.metadata.resourceVersion
            case "ERROR":
                raise _refused(event)
            case _:
                raise KubeError(f"{self.source.name}: an event of the unknown type {event.type!r}")
        return ""

    async def _page_list(self, limit: int) -> None:
        """Without a version, so the answer is the latest: what a cache has may be older than what we have seen."""
        objects: dict[Name, Seen] = {}
        version = token = ""
        while True:
            params: dict[str, str | int] = {"limit": limit} if limit else {}
            if token:
                params["continue"] = token
            body = await self._client.get(self.source.collection, resource=self.source.name, **params)
            page = _decoded(_page, body)
            for at, raw in enumerate(page.items or ()):
                seen = self._reader.read(raw)
                objects[seen.name] = seen
                if at % BREATH == BREATH - 1:
                    await asyncio.sleep(0)
            version = version or page.metadata.resourceVersion
            token = page.metadata.continue_ or ""
            if not token:
                break
        if not version:
            raise KubeError(f"{self.source.name}: a list without a resourceVersion")
        await self._believe(objects, version, "in pages")

    async def _believe(self, objects: dict[Name, Seen], version: str, how: str) -> None:
        """Takes a whole list in. An empty one is asked for again, of the store itself."""
        if not objects:
            body = await self._client.get(self.source.collection, resource=self.source.name, limit=1)
            if _decoded(_page, body).items:
                raise KubeError(f"{self.source.name}: a list was empty although there are objects")
        LISTS.labels(self.source.name, how).inc()
        self._hear(Listed(self.source, tuple(objects.values())))
        self.settled = True
        self.cursor.listed(version)
        self._turned()

    # --- watches

    async def _watch(self) -> float:
        news = False
        async with self._client.watch(
            self.source.collection,
            resource=self.source.name,
            idle_s=self._stall_s,
            resourceVersion=self.cursor.version,
            timeoutSeconds=random.randint(*WATCH_S),
        ) as batches:
            self.cursor.opened()
            self._turned()
            async for event in _events(batches):
                self._learn(event)
                news = True
        return self.cursor.ended(with_news=news)

    def _learn(self, event: WatchEvent) -> None:
        """An event after the list. What makes no sense is answered by a new list."""
        self._count(event.type)
        if event.type == "ERROR":
            raise _refused(event)
        try:
            if event.type in ("ADDED", "MODIFIED"):
                seen = self._reader.read(event.object)
                self._hear(Changed(seen))
                version = seen.version
            elif event.type == "DELETED":
                meta = self._reader.head(event.object)
                self._hear(Gone(self.source, (meta.namespace, meta.name)))
                version = meta.resourceVersion
            elif event.type == "BOOKMARK":
                version = _decoded(_bookmark, event.object).metadata.resourceVersion
            else:
                raise KubeError(f"{self.source.name}: an event of the unknown type {event.type!r}")
        except KubeError:
            self.cursor.doubtful()
            raise
        failing = self.cursor.standing is not Standing.FOLLOWING
        self.cursor.seen(version)
        if failing:
            self._turned()

    def _count(self, type_: str) -> None:
        counter = self._counters.get(type_)
        if counter is not None:
            counter.inc()


async def _events(batches: AsyncIterator[list[bytes]]) -> AsyncIterator[WatchEvent]:
    async for lines in batches:
        for at, line in enumerate(lines):
            yield _decoded(_event, line)
            if at % BREATH == BREATH - 1:
                await asyncio.sleep(0)


def _decoded(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise KubeError(f"an answer that makes no sense: {error}") from error


def _refused(event: WatchEvent) -> Refused:
    status = _decoded(_status, event.object)
    return Refused(status.code, status.reason, status.message)


def _why(error: KubeError) -> str:
    if isinstance(error, Refused):
        return "gone" if error.gone else str(error.status)
    return "stalled" if isinstance(error, Stalled) else type(error).__name__.lower()
