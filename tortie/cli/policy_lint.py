"""`tortie policy lint`: policies that are accepted and yet do not do what they say."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from tortie.cli.client import Client
from tortie.cli.options import Api, Files, Recursive


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


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
    from bus_schemas.resources import KINDS
    from tortie.cli import desired

    given = desired.of_files(filename or [], recursive=recursive)
    present = [] if offline else desired.of_api(Client(api), KINDS.values())
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
