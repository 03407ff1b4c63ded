"""`tortie status`: which components and nodes are alive, and what keeps them from being ready."""

from __future__ import annotations

import sys
import time
from typing import Any

import typer

from tortie.cli.client import Client
from tortie.cli.options import Api
from tortie.cli.tables import render


def command(api: Api = "") -> None:
    """Exit code 1 when something is not ready."""
    client = Client(api)
    report = client.get("/v1/status")
    if client.stale:
        print(f"tortie: this may be out of date: {client.stale}", file=sys.stderr)
    now = time.time()
    components = [
        [c["component"], c["instance"], _ready(c), _age(now - c["started"]), c["version"], "; ".join(c["causes"])]
        for c in report["components"]
    ]
    print(render(["COMPONENT", "INSTANCE", "READY", "AGE", "VERSION", "CAUSE"], components))
    if report["nodes"]:
        nodes = [
            [
                n["name"],
                ",".join(n["addresses"]),
                _ready(n),
                str(n["pods"]),
                ",".join(n["blocks"]),
                "; ".join(n["causes"]),
            ]
            for n in report["nodes"]
        ]
        print()
        print(render(["NODE", "ADDRESS", "READY", "PODS", "BLOCKS", "CAUSE"], nodes))
    if not all(row["ready"] for row in (*report["components"], *report["nodes"])):
        raise typer.Exit(1)


def _ready(row: dict[str, Any]) -> str:
    return "yes" if row["ready"] else "no"


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
