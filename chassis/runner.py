"""How a service lives: settings, logs, health, bus, then `serve` until it is told to stop.

    run ──▶ settings ──▶ uvloop ──▶ TaskGroup { health server, bus, heartbeat, serve(context) }
                                        SIGTERM, SIGINT ──▶ context.stopping ──▶ serve returns ──▶ the rest is cancelled
                                        a second signal ──▶ out at once
                                        END_S later and still here ──▶ where every thread stands, and out

Exit codes: 0 told to stop and done; 1 an invariant was broken, or what was told to stop did not (the traceback is in
the log; whoever supervises us starts us again); 2 the environment does not make valid settings, or asks for what this
machine does not give (an address in use); 130 a second signal.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import uvloop

from bus_schemas.ids import NodeName
from chassis import logs, settings
from chassis.bus import Bus
from chassis.errors import CannotServe, SettingsError
from chassis.health import Health
from chassis.heartbeat import Heartbeat
from chassis.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)

DRAIN_S = 10.0
"""How long a service may take to come to its end after the first signal."""
END_S = 20.0
"""How long the process may: a thread that blocks in the kernel or in a library cannot be cancelled."""


@dataclass
class Context(Generic[S]):
    """What a service is given."""

    name: str
    settings: S
    bus: Bus
    health: Health
    log: Any
    stopping: asyncio.Event
    """Set by the first signal: finish what is begun, then return."""
    heartbeat: Heartbeat
    """What the process says about itself; a service may add to it."""


class _Overdue(Exception):
    """The service did not come to its end in time."""


def run(name: str, settings_type: type[S], serve: Callable[[Context[S]], Awaitable[None]]) -> int:
    """Runs one service in the foreground; the process's exit code."""
    try:
        loaded = settings.from_environment(settings_type)
    except SettingsError as error:
        for fault in error.faults:
            print(f"tortie {name}: {fault}", file=sys.stderr)
        return 2
    logs.configure(loaded.log_format, loaded.log_level)
    log = logs.logger(name)
    try:
        uvloop.run(_live(name, loaded, serve, log))
    except Exception as error:
        obstacles = _obstacles(error)
        for obstacle in obstacles:
            print(f"tortie {name}: {obstacle}", file=sys.stderr)
        if obstacles:
            return 2
        log.error("broken", error=str(error), exc_info=error)
        return 1
    log.info("stopped")
    return 0


def _obstacles(error: Exception) -> list[str]:
    """The sentences of a failure that is the operator's to mend and nothing else; empty for any other failure."""
    if isinstance(error, CannotServe):
        return [str(error)]
    if not isinstance(error, ExceptionGroup):
        return []
    parts = [_obstacles(part) for part in error.exceptions]
    return [sentence for part in parts for sentence in part] if all(parts) else []


async def _live(name: str, loaded: S, serve: Callable[[Context[S]], Awaitable[None]], log: Any) -> None:
    stopping = asyncio.Event()
    _on_signals(stopping, log)
    health = Health()
    async with health.serve(loaded.health_listen), Bus.connect(loaded, name=name, health=health) as bus:
        log.info("started", instance=loaded.instance, health=health.address, nats=_hosts(loaded.nats_url))
        node: NodeName | None = getattr(loaded, "node_name", None)  # an agent is known by its node's name
        heartbeat = Heartbeat(bus, name, node or loaded.instance, health, started=time.time(), node=node)
        context = Context(name, loaded, bus, health, log, stopping, heartbeat)
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(heartbeat.run(), name="heartbeat")
            serving = tasks.create_task(_serve(serve, context), name=name)
            tasks.create_task(_bounded(stopping, serving), name="drain")
            await asyncio.wait([serving])
            stopping.set()
            beating.cancel()


async def _serve(serve: Callable[[Context[S]], Awaitable[None]], context: Context[S]) -> None:
    await serve(context)
    assert context.stopping.is_set(), f"{context.name} returned before it was told to stop"


async def _bounded(stopping: asyncio.Event, serving: asyncio.Task[None]) -> None:
    await stopping.wait()
    done, _ = await asyncio.wait([serving], timeout=DRAIN_S)
    if not done:
        raise _Overdue(f"did not come to its end within {DRAIN_S:g} s")


def _on_signals(stopping: asyncio.Event, log: Any) -> None:
    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(130)
        log.info("stopping", signal=signal.Signals(number).name)
        faulthandler.dump_traceback_later(END_S, exit=True)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def _hosts(urls: str) -> list[str]:
    """The servers without user and password."""
    return [url.rpartition("://")[2].rpartition("@")[2] for url in urls.split(",")]
