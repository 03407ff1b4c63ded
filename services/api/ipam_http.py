"""REST over the addresses: views, the check, and what an operator changes. Paths below /v1/ipam.

What changes how addresses are given (configuration, pools) is desired state like all else and written by the store. An
address is given back by asking ipam, which owns the records.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from bus_schemas.ipam_check import Report, check
from bus_schemas.manifests import read_object, to_manifest
from bus_schemas.resources import IPAMConfiguration, IPPool
from bus_schemas.resources.pools import IPAM_CONFIGURATION
from bus_schemas.subjects import RELEASE
from chassis.bus import Bus
from chassis.errors import Unavailable
from services.api import ipam_views
from services.api.answers import Handler, Problem, decided, flag, json
from services.api.ipam_release import Asked, Outcome, ReleaseBody, ask, outcome
from services.api.requests import Put, Split
from services.api.store import Store

CONFIRM_S = 1.0
"""What looks wrong is looked at again after this long: it may have been a change under way."""
RELEASE_TIMEOUT_S = 5.0

T = TypeVar("T")


class SplitBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    count: int
    pool: str = ""
    cidr: str = ""


class IpamRest:
    """The handlers, over one store; the bus only to ask for releases."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus

    def routes(self) -> list[tuple[str, str, Handler, str]]:
        """As `Rest.routes`."""
        return [
            ("GET", "/v1/ipam", self.usage, "pools, blocks and how full they are; ?ip=ADDRESS: who holds it"),
            ("GET", "/v1/ipam/borrowed", self.borrowed, "addresses that nodes use out of others' blocks"),
            (
                "GET",
                "/v1/ipam/candidates",
                self.candidates,
                "what looks forgotten, and when it is released",
            ),
            ("GET", "/v1/ipam/check", self.check, "whether the records make sense, beside what is in use"),
            ("GET", "/v1/ipam/configuration", self.configuration, "how addresses are given"),
            (
                "POST",
                "/v1/ipam/configuration",
                self.configure,
                "change some fields of the IPAMConfiguration; null: as if not set; {maxBlocksPerHost: 4}",
            ),
            (
                "POST",
                "/v1/ipam/release",
                self.release,
                "give addresses back; {addresses: [{ip, handle, sequence}], force: false}",
            ),
            (
                "POST",
                "/v1/ipam/split",
                self.split,
                "replace a pool by several of equal size; {pool: NAME or cidr: CIDR, count: 2}; ?dryRun=true",
            ),
        ]

    # --- reading

    async def usage(self, request: web.Request) -> web.Response:
        stale = self._store.readable()
        ip = request.query.get("ip")
        if ip is None:
            return json(ipam_views.usage(self._store.core, time.time()), stale)
        try:
            return json({"address": ipam_views.address(self._store.core, ip, time.time())}, stale)
        except ValueError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error

    async def borrowed(self, _: web.Request) -> web.Response:
        stale = self._store.readable()
        return json({"items": ipam_views.borrowed(self._store.core)}, stale)

    async def candidates(self, _: web.Request) -> web.Response:
        stale = self._store.readable()
        return json(ipam_views.candidates(self._store.core), stale)

    async def check(self, _: web.Request) -> web.Response:
        self._store.readable()
        report = await self._checked()
        if not report.clean:
            await asyncio.sleep(CONFIRM_S)
            report = report.confirmed_by(await self._checked())
        return json(report, self._store.readable())

    async def _checked(self) -> Report:
        """In a thread: a large cluster's takes a while."""
        return await asyncio.to_thread(check, ipam_views.records(self._store.core), time.time())

    async def configuration(self, _: web.Request) -> web.Response:
        stale = self._store.readable()
        return json(ipam_views.configuration(self._store.core), stale)

    # --- changing

    async def configure(self, request: web.Request) -> web.Response:
        self._store.readable()
        changes = await _body(request, dict[str, Any])
        key = ("", IPAM_CONFIGURATION)
        stored = self._store.core.resource(IPAMConfiguration, key)
        before: dict[str, Any] = {"metadata": {"name": IPAM_CONFIGURATION}}
        if stored is not None:
            before = to_manifest(stored.resource)
        after = {
            **before,
            "apiVersion": IPAMConfiguration.API_VERSION,
            "kind": IPAMConfiguration.KIND,
            "spec": {**before.get("spec", {}), **changes},
        }
        document = read_object(after)
        only_if = 0 if stored is None else stored.sequence
        return decided(await self._store.commit(Put(IPAMConfiguration, key, document, only_if=only_if)), [document])

    async def release(self, request: web.Request) -> web.Response:
        self._store.readable()
        body = await _body(request, ReleaseBody)
        return json({"results": [await self._release(asked, body.force) for asked in body.addresses]}, "")

    async def _release(self, asked: Asked, force: bool) -> Outcome:
        request = ask(self._store.core, asked, time.time(), force=force)
        if isinstance(request, Outcome):
            return request
        assert request.address is not None
        try:
            reply = await self._bus.request(RELEASE, request, timeout_s=RELEASE_TIMEOUT_S)
        except Unavailable as error:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"address management does not answer: {error}") from error
        return outcome(request.address, reply)

    async def split(self, request: web.Request) -> web.Response:
        self._store.readable()
        body = await _body(request, SplitBody)
        dry_run = flag(request, "dryRun")
        decision = await self._store.commit(Split(self._pool(body), body.count), dry_run=dry_run)
        return decided(decision, (), dry_run=dry_run)

    def _pool(self, body: SplitBody) -> str:
        """The name of the pool that is meant."""
        if bool(body.pool) == bool(body.cidr):
            raise Problem(HTTPStatus.BAD_REQUEST, "a pool is named either by its name or by its cidr")
        for stored in self._store.core.resources(IPPool):
            assert isinstance(stored.resource, IPPool)
            if body.pool == stored.resource.metadata.name or body.cidr == stored.resource.spec.cidr:
                return stored.resource.metadata.name
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no pool {body.pool or body.cidr}")


async def _body(request: web.Request, shape: type[T]) -> T:
    """The JSON of a request, in its shape."""
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except msgspec.DecodeError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not what it should be: {error}") from error
