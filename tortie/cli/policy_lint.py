"""`tortie policy lint`: policies that are accepted and yet do not do what they say."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tortie.cli import sources
from tortie.cli.client import Client, segment
from tortie.cli.errors import CommandError
from tortie.cli.options import Api, Files, Recursive

if TYPE_CHECKING:
    from bus_schemas.resources import Resource


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


class _Wrong(CommandError):
    exit_code = 2


def command(
    filename: Files = None,
    recursive: Recursive = False,
    offline: Annotated[bool, typer.Option("--offline", help="Judge the files alone, without the cluster.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
    api: Api = "",
) -> None:
    """Name policies that do not do what they say: of the cluster, or of the manifests of -f as if they were applied.

    A warning is a mistake; a note is what has no effect now (a selector that matches nothing yet).

    Exit code 0: nothing, or notes only, 1: warnings, 2: it cannot be said.
    """
    from bus_schemas.lint import Landscape, lint

    given = _manifests(filename or [], recursive=recursive)
    present = [] if offline else _present(Client(api))
    replaced = {(type(resource), resource.key) for resource in given}
    beside = [resource for resource in present if (type(resource), resource.key) not in replaced]
    landscape = Landscape.from_resources([*given, *beside], cluster=not offline)
    findings = lint(given if filename else beside, landscape)
    if output is Output.JSON:
        from msgspec import to_builtins

        print(json.dumps(to_builtins(findings), indent=2))
    else:
        for finding in findings:
            print(f"{finding.severity}: {finding.object}: {finding.text}")
        if not findings:
            print("nothing to remark")
    if any(finding.severity == "warning" for finding in findings):
        raise typer.Exit(1)


def _manifests(names: list[str], *, recursive: bool) -> list[Resource]:
    from bus_schemas.manifests import Rejected, read

    outcomes = [o for source in sources.read(names, recursive=recursive) for o in read(source.text, source.name)]
    faults = [str(fault) for outcome in outcomes if isinstance(outcome, Rejected) for fault in outcome.faults]
    if faults:
        raise _Wrong("the manifests are wrong", faults)
    return [outcome.resource for outcome in outcomes if not isinstance(outcome, Rejected)]


def _present(client: Client) -> list[Resource]:
    from bus_schemas.manifests import Accepted, read_object
    from bus_schemas.resources import KINDS

    outcomes = (read_object(item) for token in KINDS for item in client.get(f"/v1/{segment(token)}")["items"])
    return [outcome.resource for outcome in outcomes if isinstance(outcome, Accepted)]
