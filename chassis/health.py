"""Is this process alive, ready, and if not, why: the one place where every cause is named.

A *cause* (`fail`/`ok`) makes the process unready: it is not doing its work. A *note* names something that was set
aside while the work goes on (a malformed message, a wiped stream). Both are listed in the body of /readyz; an operator
should never need a log to learn why a pod is not ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from chassis.listening import listening

if TYPE_CHECKING:
    from aiohttp import web


class Health:
    """What stands in the way, by name. Synchronous and without a server of its own; `serve` shows it."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._turned = asyncio.Event()
        self.address = ""
        """Where `serve` listens: `host:port`, or `unix:/path`; empty when it does not."""

    def fail(self, cause: str, text: str) -> None:
        """Not ready, because of `cause`. A repeated cause replaces its text."""
        was_ready = self.ready
        self._causes[cause] = text
        if was_ready:
            self._turned.set()

    def ok(self, cause: str) -> None:
        if self._causes.pop(cause, None) is not None and self.ready:
            self._turned.set()

    def note(self, cause: str, text: str | None) -> None:
        """Degraded but ready; None takes the note back."""
        if text is None:
            self._notes.pop(cause, None)
        else:
            self._notes[cause] = text

    @property
    def ready(self) -> bool:
        return not self._causes

    @property
    def causes(self) -> dict[str, str]:
        return dict(self._causes)

    @property
    def notes(self) -> dict[str, str]:
        return dict(self._notes)

    async def turned(self) -> None:
        """Waits until the process became ready or unready since the last call."""
        await self._turned.wait()
        self._turned.clear()

    def sentences(self) -> tuple[str, ...]:
        """Causes, then notes, as `name: text`."""
        return tuple(f"{name}: {text}" for part in (self._causes, self._notes) for name, text in part.items())

    @asynccontextmanager
    async def serve(self, listen: str) -> AsyncIterator[None]:
        """/livez, /readyz and /metrics on `host:port` or `unix:/path`; nothing when `listen` is empty. Raises
        CannotServe."""
        if not listen:
            yield
            return
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        async with listening(app, listen, setting="TORTIE_HEALTH_LISTEN") as self.address:
            try:
                yield
            finally:
                self.address = ""

    async def _livez(self, _: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        from aiohttp import web

        body = msgspec.json.encode({"ready": self.ready, "causes": self._causes, "notes": self._notes})
        return web.Response(
            body=msgspec.json.format(body, indent=2) + b"\n",
            status=200 if self.ready else 503,
            content_type="application/json",
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
