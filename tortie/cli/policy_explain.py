"""`tortie policy explain`: whether policy allows a connection, and the path to that verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.errors import CommandError, Refused
from tortie.cli.options import Api

Report = dict[str, Any]


class Output(StrEnum):
    TEXT = "text"
    YAML = "yaml"
    JSON = "json"


class _Unanswered(CommandError):
    exit_code = 2


def command(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="NAMESPACE/POD, an address, or node:NAME.", show_default=False)
    ],
    destination: Annotated[str, typer.Argument(metavar="TO", help="The same.", show_default=False)],
    traffic: Annotated[
        str,
        typer.Argument(
            metavar="PROTO/PORT", help="TCP/80, UDP/53, TCP/http, ICMP, ICMP/8, SCTP/9000.", show_default=False
        ),
    ],
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
    api: Api = "",
) -> None:
    """Say whether policy allows a connection, and which rule decides.

    Judged is what the nodes enforce: compiled policy, as of now. Routes and listeners are not looked at.

    Exit code 0: allowed, 1: denied, 2: it cannot be said.
    """
    client = Client(api)
    try:
        report = client.get("/v1/explain", {"from": source, "to": destination, "traffic": traffic})
    except Refused as error:
        raise _Unanswered(str(error), error.details) from error
    if output is Output.JSON:
        print(json.dumps(report, indent=2))
    elif output is Output.YAML:
        from bus_schemas.manifests.writing import dump

        print(dump(report), end="")
    else:
        show(report, client.stale)
    if report["action"] != "allow":
        raise typer.Exit(1)


def show(report: Report, stale: str = "") -> None:
    """Colour on a terminal, plain lines in a pipe."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for style, line in lines(report):
        console.print(Text(line, style))
    if stale:
        console.print(Text(f"note: this may be out of date: {stale}", "yellow"))


Line = tuple[str, str]
"""A style of rich, and a line."""
_STYLES = {"allow": "green", "deny": "red", "pass": "cyan", "no match": "dim"}


def lines(report: Report) -> Iterator[Line]:
    """The verdict first, then each way."""
    yield verdict_line(report)
    if staged := report.get("previewAction"):
        word = "ALLOWED" if staged == "allow" else "DENIED"
        yield "yellow", f"with the staged policies in force: {word}"
    for way in (report["egress"], *report.get("hosts", ()), report["ingress"]):
        if way is not None:
            yield "", ""
            yield from way_lines(way)
    if report["notes"]:
        yield "", ""
    for note in report["notes"]:
        yield "yellow", f"note: {note}"


def verdict_line(report: Report) -> Line:
    word, style = ("ALLOWED", "bold green") if report["action"] == "allow" else ("DENIED", "bold red")
    ends = f"{_end(report['source'], report['sourceAddress'])} -> "
    ends += _end(report["destination"], report["destinationAddress"])
    return style, f"{word}  {ends} {report['traffic']}: {report['because']}"


def _end(name: str, address: str) -> str:
    return name if name == address else f"{name} ({address})"


def way_lines(way: Report, indent: str = "") -> Iterator[Line]:
    """One end's policies in order; under each the rules that did not match, and the one that did."""
    title = f"{way['way']} of {way['endpoint']}"
    yield "bold", f"{indent}{title}: {_word(way['action'])}"
    tier = None
    for step in way["steps"]:
        if step["kind"] == "policy" and step["tier"] != tier:
            tier = step["tier"]
            yield "", f"{indent}  tier {tier}"
        yield from _step_lines(step, indent + ("    " if step["kind"] in ("policy", "tier default") else "  "))
    if not way["steps"]:
        yield "red", f"{indent}  {way['because']}"
    if way.get("preview") is not None:
        yield "", ""
        yield "yellow", f"{indent}with the staged policies in force:"
        yield from way_lines(way["preview"], indent + "  ")


def _word(action: str) -> str:
    return "allowed" if action == "allow" else "denied"


def _step_lines(step: Report, indent: str) -> Iterator[Line]:
    outcome = step["outcome"]
    if step["kind"] in ("tier default", "default"):
        yield _STYLES[outcome], f"{indent}{_mark(outcome)} {step['says']}"
        return
    for skipped in step["skipped"] if outcome != "no match" else ():
        yield "dim", f"{indent}  {step['policy']} {skipped['rule']} ({skipped['says']}): {skipped['why']}"
    if outcome == "no match":
        about = "no rule" if step["skipped"] else "it has no rules this way"
        yield "dim", f"{indent}- {step['policy']}: {about}{' matches' if step['skipped'] else ''}"
        for skipped in step["skipped"]:
            yield "dim", f"{indent}    {skipped['rule']} ({skipped['says']}): {skipped['why']}"
        return
    rule = f" {step['rule']}: {step['says']}" if step["rule"] else ""
    why = f" ({step['why']})" if step["why"] else ""
    yield _STYLES[outcome], f"{indent}{_mark(outcome)} {step['policy']}{rule}{why}"


def _mark(outcome: str) -> str:
    return {"allow": "✓", "deny": "✗", "pass": "→"}.get(outcome, "-")
