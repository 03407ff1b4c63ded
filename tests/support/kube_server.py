"""A stand-in for an API server, over HTTP on a free port of loopback, with faults on command.

    Store <-- handlers (discovery, list, watch, get, create, replace, patch, delete) <-- aiohttp

Faults: `refuse` answers requests to a resource with an error; `cut` breaks every watch off in the middle of an event,
`end` ends them in order; `stop` and `start` take the server away and back on its port; `deaf` keeps connections open
and says nothing more. `requests` is what was asked.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from tests.support.kube_store import ApiError, Change, Object, Resource, Store

CHUNK = 4096
"""Events are cut into pieces of so many bytes: boundaries fall into the middle of JSON."""
LARGE_CHUNK = 256 * 1024
"""Of long lists."""
SLICE = 200
"""Events that are written before other requests get their turn."""


class KubeServer:
    def __init__(self) -> None:
        self.store = Store()
        self.requests: Counter[tuple[str, str]] = Counter()
        """By verb (LIST, WATCH, GET ...) and plural."""
        self.queries: list[tuple[str, dict[str, str]]] = []
        """Plural and parameters of every list and watch."""
        self.streams_lists = True
        self.ends_streamed_lists = True
        """Whether a streamed list has its bookmark: some servers forget it."""
        self.bookmark_s = 0.2
        self.deaf = False
        self.empty_streams = False
        """Streamed lists are empty, whatever there is."""
        self.refusals: dict[str, ApiError] = {}
        self.fail_page = 0
        """Lists in pages fail at this page."""
        self._watches: set[_Watch] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self.store.listeners.append(self._told)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, path: Path) -> Path:
        """A file that leads here."""
        cluster = {"name": "c", "cluster": {"server": self.url}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        user = {"name": "u", "user": {"token": "secret"}}
        document = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": [user]}
        path.write_text(json.dumps({**document, "current-context": "c"}))
        return path

    # --- life

    async def __aenter__(self) -> KubeServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        assert site._server is not None
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        if self._runner is None:
            return
        self.cut()
        await self._runner.cleanup()
        self._runner = None

    # --- faults

    def refuse(self, plural: str, code: int = 403, reason: str = "Forbidden", retry_after: int = 0) -> None:
        """To read it; of `PATCH nodes/status` just that."""
        headers = {"Retry-After": str(retry_after)} if retry_after else {}
        for what in [plural] if " " in plural else [f"LIST {plural}", f"WATCH {plural}"]:
            self.refusals[what] = ApiError(code, reason, f"{plural} is refused", headers)

    def allow(self, plural: str) -> None:
        for what in (plural, f"LIST {plural}", f"WATCH {plural}"):
            self.refusals.pop(what, None)

    def cut(self, plural: str = "") -> None:
        for watch in list(self._watches):
            if not plural or watch.resource.plural == plural:
                watch.cut()

    def end(self, plural: str = "") -> None:
        for watch in list(self._watches):
            if not plural or watch.resource.plural == plural:
                watch.put(None)

    def error(self, plural: str, code: int, message: str) -> None:
        """An event ERROR in the watches."""
        for watch in list(self._watches):
            if watch.resource.plural == plural:
                watch.put(("ERROR", ApiError(code, "Expired" if code == 410 else "InternalError", message).body))
                watch.put(None)

    def say(self, plural: str, type_: str, object_: Any) -> None:
        """Any event, however senseless."""
        for watch in list(self._watches):
            if watch.resource.plural == plural:
                watch.put((type_, object_))

    def watched(self, plural: str) -> int:
        return sum(watch.resource.plural == plural for watch in self._watches)

    # --- requests

    def _told(self, change: Change) -> None:
        for watch in self._watches:
            if watch.collection == change.resource and watch.wants(change.object):
                watch.put((change.type, change.object))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as error:
            return web.json_response(error.body, status=error.code, headers=error.headers)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        depth = 2 if parts[0] == "api" else 3
        root, rest = "/" + "/".join(parts[:depth]), parts[depth:]
        if not rest:
            self.requests["GET", "discovery"] += 1
            return self._discover(root)
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        collection, plural = f"{root}/{rest[0]}", rest[0]
        watches = request.query.get("watch") == "true"
        verb = {"GET": "WATCH" if watches else "GET" if len(rest) > 1 else "LIST"}.get(request.method, request.method)
        self.requests[verb, "/".join((plural, *rest[2:]))] += 1
        refusal = self.refusals.get(f"{verb} {'/'.join((plural, *rest[2:]))}")
        if refusal is not None:
            raise refusal
        resource = self.store.resource(collection)
        if verb in ("WATCH", "LIST"):
            self.queries.append((plural, dict(request.query)))
        if verb == "WATCH":
            return await self._watch(request, resource, collection, namespace)
        if verb == "LIST":
            return self._list(request, resource, collection, namespace)
        return await self._one(request, collection, namespace, rest[1:])

    async def _one(self, request: web.Request, collection: str, namespace: str, rest: list[str]) -> web.Response:
        store = self.store.trial() if request.query.get("dryRun") == "All" else self.store
        name, status = (rest[0] if rest else ""), rest[1:] == ["status"]
        match request.method:
            case "GET":
                return web.json_response(store.get(collection, namespace, name))
            case "POST":
                return web.json_response(store.create(collection, namespace, await request.json()), status=201)
            case "PUT":
                return web.json_response(store.replace(collection, namespace, name, await request.json()))
            case "DELETE":
                return web.json_response(store.delete(collection, namespace, name))
            case "PATCH":
                body = json.loads(await request.read())
                how = request.content_type
                return web.json_response(store.patch(collection, namespace, name, body, how, status=status))
        raise ApiError(405, "MethodNotAllowed", request.method)

    def _discover(self, root: str) -> web.Response:
        found = [resource for resource in self.store.resources.values() if resource.root == root]
        if not found:
            raise ApiError(404, "NotFound", "404 page not found")
        resources = []
        for resource in found:
            row = {"name": resource.plural, "kind": resource.kind, "namespaced": resource.namespaced, "verbs": []}
            resources.append(row)
            if resource.status:
                resources.append({**row, "name": f"{resource.plural}/status"})
        return web.json_response({"kind": "APIResourceList", "groupVersion": root, "resources": resources})

    def _list(self, request: web.Request, resource: Resource, collection: str, namespace: str) -> web.Response:
        limit, token = int(request.query.get("limit", 0)), request.query.get("continue", "")
        if self.fail_page and token:
            self.fail_page -= 1
            if not self.fail_page:
                raise ApiError(500, "InternalError", "the page was lost")
        objects, more, rest = self.store.page(collection, namespace, limit, token)
        metadata: Object = {"resourceVersion": str(self.store.version)}
        if more:
            metadata |= {"continue": more, "remainingItemCount": rest}
        body = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return web.Response(body=msgspec.json.encode({**body, "items": objects}), content_type="application/json")

    async def _watch(
        self, request: web.Request, resource: Resource, collection: str, namespace: str
    ) -> web.StreamResponse:
        query = request.query
        version = query.get("resourceVersion", "")
        streams = query.get("sendInitialEvents") == "true"
        if streams and not self.streams_lists:
            raise ApiError(422, "Invalid", "sendInitialEvents: Forbidden: the WatchList feature gate is not enabled")
        watch = _Watch(resource, collection, namespace)
        if streams or not version:
            for key, found in sorted(resource.objects.items()):
                if watch.wants(found) and not self.empty_streams and key is not None:
                    watch.put(("ADDED", found))
            if streams and self.ends_streamed_lists:
                watch.put(("BOOKMARK", self._bookmark(resource, {"k8s.io/initial-events-end": "true"})))
        else:
            for change in self.store.since(collection, int(version)):
                if watch.wants(change.object):
                    watch.put((change.type, change.object))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        watch.request = request
        self._watches.add(watch)
        try:
            await response.prepare(request)
            await self._serve(watch, response, float(query.get("timeoutSeconds", 3600)))
        except ConnectionError:
            return response  # the client went away, or was cut off
        finally:
            self._watches.discard(watch)
        return response

    async def _serve(self, watch: _Watch, response: web.StreamResponse, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_s
        while True:
            try:
                async with asyncio.timeout(max(0.001, min(self.bookmark_s, ends - loop.time()))):
                    events = await watch.next()
            except TimeoutError:
                if loop.time() >= ends:
                    return
                events = [("BOOKMARK", self._bookmark(watch.resource))]
            if self.deaf:
                await asyncio.Event().wait()  # until the client gives up
            for first in range(0, len(events), SLICE):
                part = events[first : first + SLICE]
                data = b"".join(_line(event) for event in part if event is not None)
                size = CHUNK if len(events) < SLICE else LARGE_CHUNK
                for at in range(0, len(data), size):
                    await response.write(data[at : at + size])
                if None in part:
                    return
                await asyncio.sleep(0)

    def _bookmark(self, resource: Resource, annotations: dict[str, str] | None = None) -> Object:
        metadata: Object = {"resourceVersion": str(self.store.version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}


def _line(event: tuple[str, Any]) -> bytes:
    return msgspec.json.encode({"type": event[0], "object": event[1]}) + b"\n"


class _Watch:
    def __init__(self, resource: Resource, collection: str, namespace: str) -> None:
        self.resource, self.collection = resource, collection
        self.request: web.Request | None = None
        self._namespace = namespace
        self._queue: list[tuple[str, Any] | None] = []
        self._news = asyncio.Event()

    def wants(self, found: Object) -> bool:
        return not self._namespace or found["metadata"].get("namespace") == self._namespace

    def put(self, event: tuple[str, Any] | None) -> None:
        self._queue.append(event)
        self._news.set()

    async def next(self) -> list[tuple[str, Any] | None]:
        await self._news.wait()
        events, self._queue = self._queue, []
        self._news.clear()
        return events

    def cut(self) -> None:
        """Half an event, then no connection."""
        transport = self.request.transport if self.request is not None else None
        if transport is not None:
            half = b'{"type":"MODIFIED","object":{"meta'
            transport.write(b"%x\r\n%s\r\n" % (len(half), half))
            transport.close()


@asynccontextmanager
async def kube_server() -> AsyncIterator[KubeServer]:
    async with KubeServer() as server:
        yield server
