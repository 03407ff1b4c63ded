"""`tortie policy hits`: how often each policy decided."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.options import Api, Namespace
from tortie.cli.tables import render

_HEADINGS = [
    "POLICY",
    "DIRECTION",
    "ALLOWED",
    "DENIED",
    "PASSED",
    "WOULD-ALLOW",
    "WOULD-DENY",
    "NODES",
    "SINCE",
]
_FIGURES = ("allowed", "denied", "passed", "wouldAllow", "wouldDeny")


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def command(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="[POLICY]", help="NAME, KIND/NAME or KIND/NAMESPACE/NAME; all without it.", show_default=False
        ),
    ] = "",
    namespace: Namespace = "",
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="Only what this node counted.")] = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    api: Api = "",
) -> None:
    """Show how many connections each policy allowed, denied and passed on, and would have with the staged policies.

    `tier/NAME` is what nothing in a tier decided, `profile` what nothing at all did. Counted are first
    packets; nodes tell what they counted every few seconds (15, if not set otherwise).

    Exit code 1: there is no such policy.
    """
    client = Client(api)
    query = {"policy": policy or None, "namespace": namespace or None, "node": node or None}
    report = client.get("/v1/hits", query)
    if client.stale:
        print(f"tortie: this may be out of date: {client.stale}", file=sys.stderr)
    if output is Output.JSON:
        print(json.dumps(report, indent=2))
    elif output is Output.YAML:
        from bus_schemas.manifests.writing import dump

        print(dump(report), end="")
    elif report["items"]:
        print(render(_HEADINGS, map(_row, report["items"])))
    else:
        print("nothing was decided yet", file=sys.stderr)


def _row(item: dict[str, Any]) -> list[str]:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(item["since"]))
    figures = [str(item[figure]) for figure in _FIGURES]
    return [item["title"], item["direction"], *figures, str(len(item["nodes"])), since]
