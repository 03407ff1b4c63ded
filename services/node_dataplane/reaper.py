"""Removes pod links in batches, off the event loop: all that wait pay the kernel's grace period (20 ms) once."""

from __future__ import annotations

import asyncio

from services.node_dataplane.links import PodLinks


class Reaper:
    def __init__(self, links: PodLinks) -> None:
        self._links = links
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()

    async def remove(self, name: str) -> None:
        """Returns when the link is gone. Raises OSError."""
        waiting = self._pending.get(name)
        if waiting is None:
            waiting = self._pending[name] = asyncio.get_running_loop().create_future()
            self._wake.set()
        await asyncio.shield(waiting)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._pending = self._pending, {}
            try:
                await asyncio.to_thread(self._links.remove, list(batch))
            except OSError as error:
                for waiting in batch.values():
                    waiting.set_exception(error)
                    waiting.exception()  # Retrieved here: the caller may have been cancelled meanwhile.
            else:
                for waiting in batch.values():
                    waiting.set_result(None)
