"""`tortie ipam release`: addresses given back by hand, one by one or as a report of `tortie ipam check` names them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.errors import Misused
from tortie.cli.options import Api
from tortie.cli.output import Format, Output, note, print_as

AT_ONCE = 200
"""Addresses in one request."""
LEAKED = "leaked"
KIND, VERSION = "IPAMReport", 1
"""What a report must be (`bus_schemas.ipam_check.report`)."""

Asked = dict[str, Any]


def command(
    ip: Annotated[list[str] | None, typer.Option("--ip", metavar="ADDRESS", help="This address. Repeatable.")] = None,
    from_report: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-report",
            metavar="FILE",
            help="What the report of `tortie ipam check -o FILE` calls leaked; of several, what all of them do.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also what somebody says that he uses.")] = False,
    output: Format = Output.TABLE,
    api: Api = "",
) -> None:
    """Give addresses back that nobody uses any more. Exit code 1: one could not be released.

    A report remembers when each address was given: what was released or given anew since is left alone, however old the
    report is.
    """
    if bool(ip) == bool(from_report):
        raise Misused("which addresses? Either --ip ADDRESS or --from-report FILE")
    asked = [{"ip": text} for text in ip] if ip else in_all([read(path) for path in from_report or ()])
    client = Client(api)
    results: list[dict[str, Any]] = []
    for at in range(0, len(asked), AT_ONCE):
        body = json.dumps({"addresses": asked[at : at + AT_ONCE], "force": force})
        results += client.post("/v1/ipam/release", body)["results"]
    if not print_as(results, output):
        _print(results, one_by_one=bool(ip))
    if any(result["outcome"] in ("refused", "busy") for result in results):
        raise typer.Exit(1)


def _print(results: Sequence[dict[str, Any]], *, one_by_one: bool) -> None:
    for result in results:
        if result["outcome"] == "released":
            print(f"Successfully released IP address {result['ip']}")
        elif result["outcome"] == "unchanged":
            print(f"IP address {result['ip']} is left alone: {result['reason']}")
        else:
            note(f"IP address {result['ip']} was not released: {result['reason']}")
    if not one_by_one:
        counted = Counter(result["outcome"] for result in results)
        failed = counted["refused"] + counted["busy"]
        print(f"Released {counted['released']}, left alone {counted['unchanged']}, failed {failed}.")


def read(path: Path) -> list[Asked]:
    """The leaked addresses of a report. Raises Misused."""
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Misused(f"{path} is no report of `tortie ipam check`: {error}") from error
    if not isinstance(report, dict) or report.get("kind") != KIND:
        raise Misused(f"{path} is no report of `tortie ipam check`")
    if report.get("version") != VERSION:
        raise Misused(f"{path} is a report of version {report.get('version')}; this command reads version {VERSION}")
    return [
        {"ip": row["ip"], "handle": row["handle"], "sequence": row["sequence"]}
        for row in report["addresses"]
        if row["state"] == LEAKED
    ]


def in_all(reports: Sequence[list[Asked]]) -> list[Asked]:
    """What every report has."""
    return [asked for asked in reports[0] if all(asked in other for other in reports[1:])]
