"""How a command prints what the api answered: as its own table or words, or as the very answer in JSON or YAML."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from tortie.cli.client import Client


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Format = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]


def print_as(value: Any, output: Output) -> bool:
    """Prints the value as JSON or YAML; False: a table is wanted, which is the caller's business."""
    if output is Output.TABLE:
        return False
    if output is Output.JSON:
        print(json.dumps(value, indent=2))
    else:
        from bus_schemas.manifests.writing import dump

        print(dump(value), end="")
    return True


def say_if_stale(client: Client) -> None:
    if client.stale:
        note(f"this may be out of date: {client.stale}")


def note(text: str) -> None:
    print(f"tortie: {text}", file=sys.stderr)


def moment(unix: float) -> str:
    """The time here, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))
