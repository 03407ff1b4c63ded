"""`tortie events`: what happens, as it happens."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.options import Api

app = typer.Typer()


class Output(StrEnum):
    HUMAN = "human"
    JSON = "json"


@app.callback()
def _group() -> None:
    """Keeps `tail` a command of its own while it is the only one."""


@app.command()
def tail(
    domain: Annotated[
        list[str] | None, typer.Option("--domain", "-d", help="Only these: ipam, route, policy, node, bus. Repeatable.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=1000, help="First so many of the past.")] = 10,
    since: Annotated[
        str, typer.Option("--since", help="First everything since so long ago (90s, 15m, 2h, 7d), instead.")
    ] = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.HUMAN,
    api: Api = "",
) -> None:
    """Show the last few events, then follow what comes until interrupted."""
    past = {"since": since} if since else {"last": str(lines)}
    query = {"domain": ",".join(domain or ()) or None, **past}
    for _, data in Client(api).stream("/v1/events", query):
        print(data if output is Output.JSON else _line(json.loads(data)))
        sys.stdout.flush()


def _line(event: dict[str, Any]) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    what = f"{event['domain']}.{event['what']}"
    details = " ".join(f"{key}={value}" for key, value in sorted(event.get("detail", {}).items()))
    parts = (moment, what.ljust(20), event.get("node") or "-", event.get("object") or "-", event["message"], details)
    return "  ".join(filter(None, parts))
