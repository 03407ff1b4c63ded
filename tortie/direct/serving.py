"""The api of one command: a thread with its own loop, at a unix socket in a directory of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from aiohttp import web

from chassis.bus import Bus
from chassis.errors import CannotServe
from chassis.health import Health
from chassis.listening import listening
from chassis.logs import configure
from services.api.answers import Handler, Problem
from services.api.http import application
from services.api.store import Store
from services.kube_bridge.client import Client
from services.kube_bridge.errors import KubeError, Refused
from services.kube_bridge.sources import Source
from tortie.cli.errors import Refused as No
from tortie.cli.errors import Unreachable
from tortie.cli.output import note
from tortie.direct.bus import DirectBus
from tortie.direct.scope import EVERYTHING

MAX_BODY_BYTES = 16 * 1024 * 1024
STOP_S = 5.0


class Serving:
    """Between `start` and `stop` an api listens at `address`."""

    def __init__(self, kubeconfig: str, context: str, sources: Collection[Source]) -> None:
        self.sources = frozenset(sources)
        self.address = ""
        self._kubeconfig, self._context = kubeconfig, context
        self._directory = TemporaryDirectory(prefix="tortie-")
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="direct api", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> None:
        """Returns when it can answer. Raises Unreachable, and No where the server forbids what is asked for."""
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_S)
        self._directory.cleanup()

    def _run(self) -> None:
        configure("console", "error")
        try:
            asyncio.run(self._live())
        except Exception as error:  # noqa: BLE001 - it is the command's to raise
            reason = _of_group(error)
            if not self._ready.done():
                self._ready.set_exception(reason)
            else:
                note(f"the way to Kubernetes broke: {reason}")

    async def _live(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with Client.open(self._kubeconfig, self._context) as client:
                await self._serve(client, self._stopping)
        except CannotServe as error:
            raise Unreachable(str(error)) from error

    async def _serve(self, client: Client, stopping: asyncio.Event) -> None:
        bus = DirectBus(client, self.sources, compiles=self.sources == EVERYTHING)
        as_bus = cast(Bus, bus)  # it is asked for no more than it has
        store = Store(as_bus, Health())
        app = application(store, as_bus, stopping, max_body_bytes=MAX_BODY_BYTES)
        app.middlewares.append(_in_our_words)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(bus.run()), tasks.create_task(store.mirror())]
            try:
                await self._first_read(bus, client)
                path = Path(self._directory.name) / "api.sock"
                async with listening(app, f"unix:{path}", setting="direct"):
                    self.address = f"unix:{path}"
                    self._ready.set_result(None)
                    await stopping.wait()
                    store.wake()
            finally:
                for task in running:
                    task.cancel()

    async def _first_read(self, bus: DirectBus, client: Client) -> None:
        """Returns when everything is in the mirror."""
        async with asyncio.TaskGroup() as tasks:
            either = [tasks.create_task(bus.read.wait()), tasks.create_task(bus.failed.wait())]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            for waiting in either:
                waiting.cancel()
        if bus.failure and not bus.read.is_set():
            raise Unreachable(f"Kubernetes at {client.host} cannot be read: {bus.failure}")
        absent = bus.absent
        if absent and len(absent) == len(self.sources):
            raise No(f"Kubernetes has no {absent[0].kind}: install its CRD, {absent[0].name}", status=404)
        forbidden = bus.forbidden
        if forbidden and len(forbidden) == len(self.sources):
            raise No(f"{client.host}: {forbidden[0].why}", status=403)
        for source, why in forbidden:
            note(f"not looked at: {source.name}: {why}")
        for warning in bus.warnings:
            note(f"cannot be read: {warning}")


def _of_group(error: Exception) -> Exception:
    """What a group of tasks failed of, where that is one thing."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@web.middleware
async def _in_our_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the API server says no to, as the api says no."""
    try:
        return await handler(request)
    except Refused as refused:
        raise Problem(refused.status, f"Kubernetes refused: {refused.message or refused.reason}") from refused
    except KubeError as error:
        raise Problem(503, str(error)) from error
