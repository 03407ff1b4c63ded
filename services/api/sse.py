"""One answer as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

A comment every HEARTBEAT_S keeps proxies from closing a quiet stream and finds readers that are gone.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from aiohttp import web

HEARTBEAT_S = 15.0


class EventStream:
    """Used as a context manager; the stream ends with it, when the reader leaves, or when the service stops."""

    def __init__(self, request: web.Request, stopping: asyncio.Event) -> None:
        self._request = request
        self._stopping = stopping
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        self._open = False

    async def __aenter__(self) -> EventStream:
        await self.response.prepare(self._request)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        if isinstance(error, ConnectionResetError):
            return True
        if kind is None and self._open:
            await self.response.write_eof()
        return False

    @property
    def running(self) -> bool:
        return not self._stopping.is_set()

    async def send(self, event: str, data: bytes, ident: int | None = None) -> None:
        """`data` is one line. Waits while the reader is slow."""
        head = b"" if ident is None else b"id: %d\n" % ident
        await self.response.write(head + b"event: " + event.encode() + b"\ndata: " + data + b"\n\n")

    async def beat(self) -> None:
        await self.response.write(b":\n\n")

    async def woken(self, event: asyncio.Event) -> bool:
        """Waits for the event, with heartbeats; False: the stream is to end. Whoever sets `stopping` sets the event."""
        while self.running:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await event.wait()
            except TimeoutError:
                await self.beat()
            else:
                return self.running
        return False
