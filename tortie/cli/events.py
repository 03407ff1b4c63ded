"""`tortie events`: what happens, as it happens."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from bus_schemas.event_filter import EventFilter
from tortie.cli.client import Client
from tortie.cli.errors import Misused, Unreachable
from tortie.cli.event_lines import as_json, as_line
from tortie.cli.options import Api
from tortie.cli.output import note

app = typer.Typer()

RETRY_S = 0.2
RETRY_MAX_S = 5.0
GAP = "some events between here and the last one are lost: the bus does not hold them any more"


class Output(StrEnum):
    HUMAN = "human"
    JSON = "json"


@app.callback()
def _group() -> None:
    """Keeps `tail` a command of its own while it is the only one."""


@app.command()
def tail(
    domain: Annotated[
        list[str] | None,
        typer.Option(
            "--domain", "-d", help="Only these: pod, ipam, route, bgp, policy, node. Repeatable, as all here."
        ),
    ] = None,
    what: Annotated[list[str] | None, typer.Option("--what", "-w", help="Only these: denied, node.lost ...")] = None,
    node: Annotated[list[str] | None, typer.Option("--node", help="Only what happened on these nodes.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", metavar="NS", help="Only what concerns these namespaces.")
    ] = None,
    pod: Annotated[
        list[str] | None,
        typer.Option("--pod", metavar="[NS/]NAME", help="Only what concerns these pods; * is allowed."),
    ] = None,
    severity: Annotated[str, typer.Option("--severity", help="At least: info, warning, error.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=1000, help="First so many of the past.")] = 10,
    since: Annotated[
        str, typer.Option("--since", help="First everything since so long ago (90s, 15m, 2h, 7d), instead.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Go on with what comes.")] = True,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print; json: one object a line.")] = (
        Output.HUMAN
    ),
    bus: Annotated[
        str, typer.Option("--bus", metavar="URL", help="Read the bus itself, nats://host:port, without the api.")
    ] = "",
    api: Api = "",
) -> None:
    """Show the last few events, then follow what comes until interrupted.

    When the api or the bus breaks off, it is asked again until it is back, and reading goes on where it stopped.
    docs/events.md lists every event and what to do about it.
    """
    wanted = EventFilter(
        domains=frozenset(domain or ()),
        whats=frozenset(what or ()),
        nodes=frozenset(node or ()),
        namespaces=frozenset(namespace or ()),
        pods=tuple(pod or ()),
        severity=severity,
    )
    if faults := wanted.faults():
        raise Misused("; ".join(faults))
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def show(event: dict[str, Any]) -> None:
        today = time.strftime("%Y-%m-%d")
        print(as_json(event) if output is Output.JSON else as_line(event, colours=colours, today=today), flush=True)

    try:
        if bus:
            from tortie.cli.event_bus import read

            read(bus, wanted, show, last=lines, since=since, follow=follow)
        else:
            past = {"since": since} if since else {"last": str(lines)}
            for event in _by_api(Client(api), wanted, past, follow=follow):
                show(event)
    except BrokenPipeError:
        # Whoever read us has seen enough. What is left in the buffer goes nowhere, without a second complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _by_api(client: Client, wanted: EventFilter, past: Mapping[str, str], *, follow: bool) -> Iterator[dict[str, Any]]:
    """Every event once, though the api may come and go; only one that was never there is an error. Raises Unreachable,
    Refused."""
    query: dict[str, str | bool | None] = {
        "domain": ",".join(wanted.domains) or None,
        "what": ",".join(wanted.whats) or None,
        "node": ",".join(wanted.nodes) or None,
        "namespace": ",".join(wanted.namespaces) or None,
        "pod": ",".join(wanted.pods) or None,
        "severity": wanted.severity or None,
        "follow": None if follow else "false",
        "sync": True,
    }
    pause, began, broken = RETRY_S, False, False
    while True:
        place = {"after": client.place} if client.place else past
        try:
            for kind, data in client.stream("/v1/events", {**query, **place}):
                if broken:
                    note("connected again; reading goes on where it stopped")
                pause, began, broken = RETRY_S, True, False
                if kind == "GAP":
                    note(GAP)
                elif kind != "SYNC":
                    yield json.loads(data)
                elif not follow:
                    return
        except Unreachable as error:
            if not (began and follow):
                raise
            if not broken:
                note(f"{error}; trying again")
            broken = True
            time.sleep(pause)
            pause = min(2 * pause, RETRY_MAX_S)
