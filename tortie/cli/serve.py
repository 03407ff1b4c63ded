"""`tortie serve`: one service, in the foreground, set by the environment.

A service is a module `services.<name>.service` with `serve` and a `settings.Settings`; `nats` is the embedded server.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tortie.cli.errors import Misused

SERVICES = {
    "api": "api",
    "ipam": "ipam",
    "route-distribution": "route_distribution",
    "policy-compiler": "policy_compiler",
    "node-dataplane": "node_dataplane",
    "kube-bridge": "kube_bridge",
}
NATS = "nats"

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": []}
"""The help names the settings of the service, so this command prints its own."""


def command(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Which one.", show_default=False)] = "",
    store: Annotated[Path, typer.Option("--store", help="nats: where the streams are kept.")] = Path("tortie-nats"),
    host: Annotated[str, typer.Option("--host", help="nats: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="nats: the port to listen on.")] = 4222,
    help_: Annotated[bool, typer.Option("--help", "-h", help="Show the settings of the service.")] = False,
) -> None:
    service = service.replace("_", "-")  # as metrics, status and logs spell it
    if service not in (*SERVICES, NATS, "") or (not service and not help_):
        raise Misused(f"serve needs one of {', '.join((*SERVICES, NATS))}")
    if help_:
        print(_usage(service))
    elif service == NATS:
        raise typer.Exit(_serve_nats(store, host, port))
    else:
        from chassis.runner import run

        module = SERVICES[service]
        for other in SERVICES:
            _settings(other)  # so that a variable of another service is known as such, not refused as misspelt
        shell = importlib.import_module(f"services.{module}.service")
        raise typer.Exit(run(module, _settings(service), shell.serve))


def _settings(service: str) -> Any:
    return importlib.import_module(f"services.{SERVICES[service]}.settings").Settings


def _serve_nats(store: Path, host: str, port: int) -> int:
    import asyncio
    import signal

    from chassis.embedded import EmbeddedNats
    from chassis.errors import Unusable

    async def serve() -> int:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with EmbeddedNats(store, host=host, port=port) as server, asyncio.TaskGroup() as tasks:
            print(f"nats-server at {server.url}, streams in {store}", flush=True)
            ended = tasks.create_task(server.ended())
            told = tasks.create_task(stopping.wait())
            await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            told.cancel()
        if stopping.is_set():
            return 0
        print(f"nats-server ended by itself, see {server.log}", file=sys.stderr)
        return 1

    try:
        return asyncio.run(serve())
    except (Unusable, OSError) as error:
        print(f"tortie: no nats-server at {host}:{port}: {error}", file=sys.stderr)
        return 2


def _usage(service: str) -> str:
    if not service:
        names = "\n".join(f"  {name}" for name in (*SERVICES, NATS))
        return (
            "Usage: tortie serve SERVICE\n\nRuns a service in the foreground until SIGTERM or SIGINT.\n\n"
            f"Services:\n{names}\n\n`tortie serve SERVICE --help` lists its settings."
        )
    if service == NATS:
        return (
            "Usage: tortie serve nats [--store DIRECTORY] [--host ADDRESS] [--port PORT]\n\n"
            "Runs a nats-server with JetStream for development and small clusters.\n\n"
            "  --store  where the streams are kept   [tortie-nats]\n"
            "  --host   the address to listen on     [127.0.0.1]\n"
            "  --port   the port to listen on        [4222]"
        )
    from chassis.settings import describe

    settings = "\n".join(
        f"  {setting.variable}  [{setting.default}]\n      {setting.doc}" for setting in describe(_settings(service))
    )
    return f"Usage: tortie serve {service}\n\nSettings, from the environment:\n\n{settings}"
