"""`tortie node status`: a node's BGP sessions, in the tables that users of calicoctl know."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tortie.cli.client import Client, segment
from tortie.cli.options import Api
from tortie.cli.output import Format, Output, print_as, say_if_stale

Json = dict[str, Any]

HEADINGS = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"]
TYPES = {"mesh": "node-to-node mesh", "node": "node specific", "global": "global", "local": "pod of this node"}
EVERY_S = 1.0
DAY_S = 86400


def command(
    node: Annotated[
        str,
        typer.Option(
            "--node", metavar="NODE", help="Which node. Without it this machine, or every node if it is none."
        ),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print it again whenever it changes.")] = False,
    output: Format = Output.TABLE,
    api: Api = "",
) -> None:
    """Show how the BGP sessions of a node stand.

    Exit code 1: there is no such node.
    """
    client = Client(api)
    before: list[Json] | None = None
    while True:
        reports = _ask(client, node)
        if reports != before:
            _print(client, reports, output, single=bool(node), watch=watch)
            before = reports
        if not watch:
            return
        time.sleep(EVERY_S)


def _ask(client: Client, node: str) -> list[Json]:
    if node:
        return [client.get(f"/v1/nodes/{segment(node)}/bgp")]
    items: list[Json] = client.get("/v1/bgp")["items"]
    here = os.environ.get("TORTIE_NODE") or socket.gethostname()
    return [item for item in items if item["node"] == here] or items


def _print(client: Client, reports: Sequence[Json], output: Output, *, single: bool, watch: bool) -> None:
    value = reports[0] if single else {"items": list(reports)}
    if watch and output is Output.JSON:
        print(json.dumps(value))
    elif not print_as(value, output):
        if watch:
            print(time.strftime("--- %Y-%m-%d %H:%M:%S"))
        print("\n\n".join(described(report, time.time(), named=len(reports) > 1) for report in reports))
    sys.stdout.flush()
    say_if_stale(client)


def described(report: Json, now: float, *, named: bool = False) -> str:
    """One node's sessions in words and tables."""
    lines = [f"Node {report['node']}"] if named else []
    lines.append(f"Tortie process is {'' if report['agent'] else 'not '}running.")
    if report["running"] is None:
        return "\n".join([*lines, "None of the BGP backend processes (BIRD) is running: the node speaks no BGP."])
    if not report["running"]:
        lines.append(f"BIRD is not running: {report['fault'] or 'no reason is known'}")
    elif report["fault"]:
        lines.append(f"BIRD runs, but: {report['fault']}")
    for family in (4, 6):
        sessions = [session for session in report["sessions"] if session["family"] == family]
        lines += ["", f"IPv{family} BGP status"]
        lines.append(boxed(HEADINGS, [_row(s, now) for s in sessions]) if sessions else f"No IPv{family} peers found.")
    return "\n".join(lines)


def _row(session: Json, now: float) -> list[str]:
    port = f" port {session['port']}" if session["port"] != 179 else ""
    peer = f"{session['peer']}{port}"
    return [peer, TYPES[session["type"]], session["state"], _since(session["since"], now), session["info"]]


def _since(at: float, now: float) -> str:
    """The time of the last day, the date of what is older; empty when it is not known."""
    if not at:
        return ""
    return time.strftime("%H:%M:%S" if now - at < DAY_S else "%Y-%m-%d", time.localtime(at))


def boxed(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in a frame, its headings centred."""
    widths = [max(len(line[i]) for line in (headings, *rows)) for i in range(len(headings))]
    rule = f"+{'+'.join('-' * (width + 2) for width in widths)}+"
    head = f"|{'|'.join(f' {text.center(width)} ' for text, width in zip(headings, widths, strict=True))}|"
    body = [f"|{'|'.join(f' {text.ljust(width)} ' for text, width in zip(row, widths, strict=True))}|" for row in rows]
    return "\n".join([rule, head, rule, *body, rule])
