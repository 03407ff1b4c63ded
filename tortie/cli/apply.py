"""`tortie apply`: manifests to the api, which takes all of them or none."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from tortie.cli.client import Client, describe_fault
from tortie.cli.errors import Misused, Refused
from tortie.cli.options import Api, Files, Recursive
from tortie.cli.sources import Joined, read


def command(
    filename: Files = None,
    recursive: Recursive = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, change nothing.")] = False,
    api: Api = "",
) -> None:
    if not filename:
        raise Misused("apply needs manifests: -f FILE, -f DIRECTORY or -f -")
    joined = Joined(read(filename, recursive=recursive))
    results = send(Client(api), "/v1/apply", joined, dry_run=dry_run)
    print_results(results, note=" (dry run)" if dry_run else "")


def send(client: Client, path: str, joined: Joined, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Posts the documents; the result of each. Raises Refused with each fault at its place in its file."""
    answer = client.request("POST", path, joined.text, {"dryRun": dry_run or None})
    if answer.status >= 400:
        faults = answer.json["faults"]
        details = [describe_fault(fault, joined.place(fault.get("line", 0))) for fault in faults]
        raise Refused(answer.json["error"], details, status=answer.status)
    results: list[dict[str, Any]] = answer.json["results"]
    return results


def print_results(results: Iterable[dict[str, Any]], note: str = "") -> None:
    """`IPPool/default created`, one line an object; warnings on stderr."""
    for result in results:
        print(f"{result['object']} {result['outcome']}{note}")
        for warning in result["warnings"]:
            print(f"warning: {result['object']}: {warning}", file=sys.stderr)
