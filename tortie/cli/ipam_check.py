"""`tortie ipam check`: whether the address records make sense, beside what the nodes say they use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.errors import Misused
from tortie.cli.options import Api
from tortie.cli.output import Output, print_as, say_if_stale
from tortie.cli.tables import render

TIMEOUT_S = 120.0
SHOWN = 10
"""Notes that are printed without --show-problem-ips."""

QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("records that cannot be read, or are being rebuilt", ("unreadable", "records are being rebuilt")),
    ("pools that overlap others", ("pool overlap",)),
    ("blocks that are malformed or overlap", ("malformed block", "block overlap")),
    ("blocks outside of every pool, or of another size", ("block outside pools", "block of another size")),
    ("blocks of nodes that are gone", ("block of a node that is gone",)),
    ("affinities and blocks that do not match", ("affinity without block", "block without affinity")),
    ("handles that do not match the blocks", ("malformed handle", "handle without allocation")),
    ("allocations without a matching handle", ("allocation without handle",)),
    ("IPs that are used twice", ("address used twice",)),
    ("IPs that are allocated to another handle or node", ("allocated to another handle", "allocated to another node")),
    ("IPs that are in use, inside of a pool, and not allocated", ("in use but not allocated",)),
    ("IPs that are in use and in no pool", ("in use outside pools",)),
    ("IPs that are allocated and not in use", ("allocated but not in use",)),
)
"""What is looked for, in this order -> the words of a report's `problems[].kind`."""

NOT_JUDGED = {
    "settling": "that were given or let go a moment ago, and are not judged yet",
    "unknown": "of which only the node knows, and has not spoken yet",
}
"""`addresses[].state` -> what it means."""

_ABOUT_ADDRESSES = "IPs "
_ALL = ["IP", "STATE", "NODE", "USED BY", "HANDLE", "BLOCK"]


def command(
    show_all_ips: Annotated[bool, typer.Option("--show-all-ips", help="Also every address that is given.")] = False,
    show_problem_ips: Annotated[
        bool, typer.Option("--show-problem-ips", help="Name each address that is not as it should be.")
    ] = False,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|json|yaml",
            help="Keep the report in a file, which `tortie ipam release --from-report` reads; or print it.",
        ),
    ] = "",
    api: Api = "",
) -> None:
    """Compare blocks, handles, pools, nodes and what the nodes use with each other. Exit code 1: there are problems.

    What looks wrong is looked at twice, a second apart, so that changes under way are no problems. Nothing is changed.
    """
    client = Client(api, timeout_s=TIMEOUT_S)
    report = client.get("/v1/ipam/check")
    if output in (Output.JSON, Output.YAML):
        print_as(report, Output(output))
    else:
        print(told(report, all_ips=show_all_ips, problem_ips=show_problem_ips))
        if output:
            _keep(report, Path(output))
    say_if_stale(client)
    if report["problems"]:
        raise typer.Exit(1)


def _keep(report: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise Misused(f"the report cannot be written to {path}: {error.strerror}") from error
    print(f"Report written to {path}.")


def told(report: dict[str, Any], *, all_ips: bool, problem_ips: bool) -> str:
    lines = ["Checking IPAM for inconsistencies...", "", *_counted(report), ""]
    if all_ips:
        lines += [render(_ALL, map(_row, report["addresses"])), ""]
    problems = report["problems"]
    for question, kinds in QUESTIONS:
        found = [problem for problem in problems if problem["kind"] in kinds]
        lines.append(f"Found {len(found)} {question}.")
        if problem_ips or not question.startswith(_ABOUT_ADDRESSES):
            lines += [f"  {problem['text']}" for problem in found]
    for state, words in NOT_JUDGED.items():
        if count := sum(row["state"] == state for row in report["addresses"]):
            lines.append(f"Found {count} IPs {words}.")
    lines += ["", *_noted(report["notes"], every=problem_ips)]
    unnamed = {kind for question, kinds in QUESTIONS if question.startswith(_ABOUT_ADDRESSES) for kind in kinds}
    if not problem_ips and any(problem["kind"] in unnamed for problem in problems):
        lines.append("--show-problem-ips names the addresses.")
    count = len(problems)
    lines.append(f"Check complete; found {count} problem{'' if count == 1 else 's'}.")
    return "\n".join(lines)


def _counted(report: dict[str, Any]) -> list[str]:
    counts = report["counts"]
    lines = [
        f"Found {counts['blocks']} IPAM blocks with {counts['allocations']} allocations, "
        f"{counts['affinities']} affinities, {counts['handles']} handles.",
        f"Found {counts['pools']} IP pools and {counts['reservations']} reservations.",
        f"Found {counts['nodes']} nodes, of which {counts['holdings']} said what they hold.",
        f"Found {counts['endpoints']} workload endpoints; {counts['used']} IPs are held by somebody.",
        f"Found {counts['candidates']} candidates for release.",
    ]
    if report["busiest"]:
        lines.append(f"Nodes with the most allocations (the median has {report['median']:g}):")
        lines += [f"  {row['node']} has {row['addresses']}" for row in report["busiest"]]
    return lines


def _noted(notes: list[dict[str, Any]], *, every: bool) -> list[str]:
    if not notes:
        return []
    shown = notes if every else notes[:SHOWN]
    left = len(notes) - len(shown)
    more = [f"  and {left} more: see --show-problem-ips"] if left else []
    return ["Worth knowing:", *(f"  {found['text']}" for found in shown), *more, ""]


def _row(row: dict[str, Any]) -> list[str]:
    return [row.get("ip", ""), *(row.get(name) or "-" for name in ("state", "node", "holder", "handle", "block"))]
