"""REST: what is asked for, in words of HTTP, and answered in JSON.

Paths take a kind by any of its words (`kinds`). A namespace in the path of a cluster-wide kind is passed over, and a
namespaced object without one is looked for in `default`. Every error is `{"error": sentence, "faults": [{document,
object, path, reason, line}]}`. Answers made while the bus is away carry `Tortie-Stale: <why>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from bus_schemas.manifests import Accepted, Read, Rejected, read
from bus_schemas.resources import KINDS
from chassis.bus import Bus
from services.api import compiled, explain, labels, log, node_facts, views
from services.api.answers import BODY_LIMIT, Handler, Problem, as_json, decided, document, encode, flag, invalid, json
from services.api.bgp import bgp, bgp_of, known
from services.api.hits import exists, hits
from services.api.ipam_http import IpamRest
from services.api.kinds import Kind, kinds_named, unknown_kind
from services.api.requests import Apply, Delete, Planned, Put, Stored
from services.api.sse import EventStream
from services.api.store import Store


class Rest:
    """The handlers, over one store; the bus only for the log of events."""

    def __init__(self, store: Store, bus: Bus, stopping: asyncio.Event) -> None:
        self._store = store
        self._bus = bus
        self._stopping = stopping
        self._addresses = IpamRest(store, bus)

    def routes(self) -> list[tuple[str, str, Handler, str]]:
        """(method, path, handler, what it is for): the index page, and the order of matching."""
        return [
            ("GET", "/", self.index, "this list"),
            ("POST", "/v1/apply", self.apply, "create or replace all documents of the body, or none; ?dryRun=true"),
            ("POST", "/v1/validate", self.validate, "what apply would refuse or change; nothing is written"),
            ("POST", "/v1/delete", self.delete_documents, "delete what the documents of the body name; absent is fine"),
            *self._addresses.routes(),
            (
                "GET",
                "/v1/events",
                self.events,
                "server-sent events; ?since=UNIX-TIME or 15m ?after=SEQUENCE ?last=10 ?follow=false "
                "?domain=route,policy ?what=denied ?node= ?namespace= ?pod=NS/NAME ?severity=warning",
            ),
            ("GET", "/v1/status", self.status, "components and nodes"),
            ("GET", "/v1/endpoints", self.endpoints, "pods on the network, with node and addresses"),
            ("GET", "/v1/bgp", self.bgp, "how the BGP sessions of every node stand"),
            ("GET", "/v1/nodes/{node}/bgp", self.bgp_of_node, "how those of one node stand"),
            ("GET", "/v1/nodes/{node}/facts", self.facts_of_node, "its addresses, MTU, checksum offload, and why"),
            ("GET", "/v1/hits", self.hits, "connections that policies decided; ?policy= ?namespace= ?node="),
            (
                "GET",
                "/v1/explain",
                self.explain,
                "whether policy allows a connection, and why; ?from= ?to= (NAMESPACE/POD, ADDRESS, node:NAME) "
                "?traffic=TCP/80",
            ),
            (
                "GET",
                "/v1/{kind}",
                self.list_objects,
                "list; ?namespace= ?labelSelector= ?watch=true (server-sent events)",
            ),
            ("GET", "/v1/{kind}/{name}", self.get, "one object; ?namespace="),
            (
                "PUT",
                "/v1/{kind}/{name}",
                self.put,
                "create or replace one; If-Match: RESOURCEVERSION, If-None-Match: *",
            ),
            ("DELETE", "/v1/{kind}/{name}", self.delete, "delete one; If-Match: RESOURCEVERSION"),
            ("GET", "/v1/namespaces/{namespace}/{kind}", self.list_objects, "list of one namespace"),
            ("GET", "/v1/namespaces/{namespace}/{kind}/{name}", self.get, "one object of a namespace"),
            ("PUT", "/v1/namespaces/{namespace}/{kind}/{name}", self.put, "as above"),
            ("DELETE", "/v1/namespaces/{namespace}/{kind}/{name}", self.delete, "as above"),
        ]

    # --- reading

    async def index(self, _: web.Request) -> web.Response:
        paths = [{"method": method, "path": path, "does": does} for method, path, _, does in self.routes()]
        kinds = {kind.PLURAL: {"kind": kind.KIND, "apiVersion": kind.API_VERSION} for kind in KINDS.values()}
        return web.json_response({"paths": paths, "kinds": kinds})

    async def list_objects(self, request: web.Request) -> web.StreamResponse:
        kinds = _kinds(request)
        namespace = request.match_info.get("namespace") or request.query.get("namespace") or None
        try:
            selected = labels.parse(request.query.get("labelSelector", ""))
        except labels.BadLabelSelector as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error

        def wanted(kind: Kind, resource: Any) -> bool:
            here = namespace is None or not kind.NAMESPACED or resource.metadata.namespace == namespace
            return here and selected(resource.metadata.labels)

        stale = self._store.readable()
        if flag(request, "watch"):
            return await self._watch(request, kinds, wanted)
        found = [s for kind in kinds for s in self._store.core.resources(kind) if wanted(kind, s.resource)]
        return json({"apiVersion": "v1", "kind": "List", "items": [self._document(stored) for stored in found]}, stale)

    def _document(self, stored: Stored) -> dict[str, Any]:
        core = self._store.core
        return document(stored, core.policy_status(stored.resource), core.addresses_of(stored.resource))

    async def _watch(self, request: web.Request, kinds: Sequence[Kind], wanted: Any) -> web.StreamResponse:
        with self._store.watching(kinds, wanted) as watcher:
            async with EventStream(request, self._stopping) as stream:
                synced = False
                while await stream.woken(watcher.woken):
                    watcher.woken.clear()
                    for told in watcher.watch.take():
                        await stream.send(told.event, encode(self._document(told.object)))
                    if not synced:
                        await stream.send("SYNC", b"{}")
                        synced = True
            return stream.response

    async def get(self, request: web.Request) -> web.Response:
        stale = self._store.readable()
        kind, key = self._existing(request)
        stored = self._store.core.resource(kind, key)
        assert stored is not None
        return json(self._document(stored), stale, etag=stored.sequence)

    async def events(self, request: web.Request) -> web.StreamResponse:
        query = {name: ",".join(request.query.getall(name)) for name in request.query}
        try:
            followed = flag(request, "follow") if "follow" in query else True
            wish = log.asked(query, follow=followed, sync=flag(request, "sync"))
        except ValueError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
        async with EventStream(request, self._stopping) as stream:
            await log.follow(self._bus, stream, wish, owner=self._store.core.owner)
        return stream.response

    async def status(self, _: web.Request) -> web.Response:
        return json(views.status(self._store.core), self._store.readable())

    async def endpoints(self, _: web.Request) -> web.Response:
        return json({"items": views.endpoints(self._store.core)}, self._store.readable())

    async def bgp(self, _: web.Request) -> web.Response:
        return json({"items": bgp(self._store.core)}, self._store.readable())

    async def facts_of_node(self, request: web.Request) -> web.Response:
        stale, core, node = self._store.readable(), self._store.core, request.match_info["node"]
        if not node_facts.known(core, node):
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no node {node!r}")
        return json(node_facts.facts_of(core, node), stale)

    async def bgp_of_node(self, request: web.Request) -> web.Response:
        stale, core, node = self._store.readable(), self._store.core, request.match_info["node"]
        if not known(core, node):
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no node {node!r}")
        return json(bgp_of(core, node), stale)

    async def hits(self, request: web.Request) -> web.Response:
        asked = {name: request.query.get(name, "") for name in ("policy", "namespace", "node")}
        stale, core = self._store.readable(), self._store.core
        items = hits(core.hits.values(), **asked)
        if asked["policy"] and not items and not exists(core.everything_of, asked["policy"], asked["namespace"]):
            where = f" in namespace {asked['namespace']}" if asked["namespace"] else ""
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no policy {asked['policy']!r}{where}")
        return json({"items": items}, stale)

    async def explain(self, request: web.Request) -> web.Response:
        stale = self._store.readable()
        core = self._store.core
        given = {name: request.query.get(name, "") for name in ("from", "to", "traffic")}
        if missing := [name for name, text in given.items() if not text]:
            raise Problem(HTTPStatus.BAD_REQUEST, f"{' and '.join(missing)} must be given")
        try:
            source, question = explain.find_end(core, given["from"]), explain.asked(given["traffic"])
            destination, question = explain.find_service(core, explain.find_end(core, given["to"]), question)
            known = await compiled.read(self._bus, *explain.wanted(core, source, destination))
            answer = explain.explain(core, source, destination, question, known)
        except explain.CannotTell as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return json(answer, stale)

    # --- writing

    async def apply(self, request: web.Request) -> web.Response:
        documents = await _documents(request)
        dry_run = flag(request, "dryRun")
        return decided(await self._store.commit(Apply(documents), dry_run=dry_run), documents, dry_run=dry_run)

    async def validate(self, request: web.Request) -> web.Response:
        documents = await _documents(request)
        return decided(await self._store.commit(Apply(documents), dry_run=True), documents, dry_run=True)

    async def delete_documents(self, request: web.Request) -> web.Response:
        documents = await _documents(request)
        faults = [fault for read in documents if isinstance(read, Rejected) for fault in read.faults]
        if faults:
            raise invalid("a document cannot be read: nothing was deleted", faults, documents)
        targets = [(type(r.resource), r.resource.key) for r in documents if isinstance(r, Accepted)]
        return decided(await self._store.commit(Delete(targets, missing_ok=True)), documents)

    async def put(self, request: web.Request) -> web.Response:
        documents = await _documents(request)
        if len(documents) != 1:
            raise Problem(HTTPStatus.BAD_REQUEST, f"the body holds {len(documents)} documents, not one")
        kind, key = _addressed(request, documents[0])
        decision = await self._store.commit(Put(kind, key, documents[0], only_if=_condition(request)))
        response = decided(decision, documents)
        stored = self._store.core.resource(kind, key)
        if stored is None:
            return response
        created = isinstance(decision, Planned) and decision.results[0].outcome == "created"
        return json(document(stored), "", etag=stored.sequence, status=201 if created else 200)

    async def delete(self, request: web.Request) -> web.Response:
        self._store.readable()
        decision = await self._store.commit(Delete([self._existing(request)], only_if=_condition(request)))
        return decided(decision, ())

    def _existing(self, request: web.Request) -> tuple[Kind, tuple[str, str]]:
        """The object that a path names. A word may mean two kinds: it is the one that has such an object."""
        kinds = _kinds(request)
        keys = [(kind, _key(request, kind)) for kind in kinds]
        found = [(kind, key) for kind, key in keys if self._store.core.resource(kind, key) is not None]
        if not found:
            missing = "/".join(filter(None, (keys[0][0].KIND, *keys[0][1])))
            raise Problem(HTTPStatus.NOT_FOUND, f"{missing} does not exist")
        if len(found) > 1:
            words = " or ".join(f"{kind.TOKEN} ({kind.API_VERSION})" for kind, _ in found)
            raise Problem(HTTPStatus.CONFLICT, f"{request.match_info['name']} is of two kinds: say {words}")
        return found[0]


def application(store: Store, bus: Bus, stopping: asyncio.Event, *, max_body_bytes: int) -> web.Application:
    app = web.Application(middlewares=[as_json], client_max_size=max_body_bytes)
    app[BODY_LIMIT] = max_body_bytes
    for method, path, handler, _ in Rest(store, bus, stopping).routes():
        app.router.add_route(method, path, handler)
    return app


# --- requests


def _kinds(request: web.Request) -> tuple[Kind, ...]:
    word = request.match_info["kind"]
    kinds = kinds_named(word)
    if not kinds:
        raise Problem(HTTPStatus.NOT_FOUND, unknown_kind(word), unknown="kind")
    return kinds


def _key(request: web.Request, kind: Kind) -> tuple[str, str]:
    name = request.match_info["name"]
    if not kind.NAMESPACED:
        return "", name
    return request.match_info.get("namespace") or request.query.get("namespace") or "default", name


def _addressed(request: web.Request, document: Read) -> tuple[Kind, tuple[str, str]]:
    """The kind and key that a PUT is for: where the word means two kinds, the document's own."""
    kinds = _kinds(request)
    said = type(document.resource) if isinstance(document, Accepted) else None
    kind = said if said in kinds and said is not None else kinds[0]
    return kind, _key(request, kind)


def _condition(request: web.Request) -> int | None:
    if request.headers.get("If-None-Match") == "*":
        return 0
    match = request.headers.get("If-Match")
    if match is None or match == "*":
        return None
    version = match.strip().strip('"')
    if not version.isdecimal() or int(version) == 0:
        raise Problem(HTTPStatus.BAD_REQUEST, f"If-Match: {match} is not a resourceVersion")
    return int(version)


async def _documents(request: web.Request) -> Sequence[Read]:
    body = await request.read()
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is not UTF-8") from error
    documents = await asyncio.to_thread(lambda: list(read(text)))
    if not documents:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body holds no document")
    return documents
