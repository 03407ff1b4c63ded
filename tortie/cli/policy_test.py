"""`tortie policy test`: allow and deny lines judged against manifests, without a cluster, a kernel or root."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tortie.cli import sources
from tortie.cli.errors import Misused
from tortie.cli.options import Files, Recursive
from tortie.cli.policy_explain import way_lines

if TYPE_CHECKING:
    from tortie.policy.judging import Check, Result


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


def command(
    files: Annotated[list[str], typer.Argument(metavar="FILE|DIRECTORY...", show_default=False)],
    filename: Files = None,
    recursive: Recursive = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write a JUnit report.")] = None,
) -> None:
    """Judge the allow and deny lines of test files, offline.

    A file has pods, policies, and lines such as `shop/web -> shop/db tcp/5432` under `allow` or `deny`; or it is a
    scenario of `tortie lab run`, of which what needs a kernel is named and left out. The manifests of -f are there
    from the start.

    Exit code 0: every line holds, 1: one does not, 2: a file cannot be read.
    """
    from tortie.cli import desired
    from tortie.lab.errors import ScenarioFault
    from tortie.policy import cases, judging

    manifests = desired.of_files(filename or [], recursive=recursive)
    results: list[Result] = []
    for source in sources.read(files, recursive=recursive):
        try:
            results.append(judging.judge(cases.read(source.text, source.name), source.name, manifests))
        except ScenarioFault as error:
            raise Misused(str(error)) from error
    if output is Output.JSON:
        print(json.dumps([judging.plain(result) for result in results], indent=2))
    else:
        _show(results)
    if junit is not None:
        _write_junit(junit, results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _show(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for result in results:
        console.print(
            Text(result.source if result.name == result.source else f"{result.source}: {result.name}", "bold")
        )
        step = None
        for check in result.checks:
            if check.step != step:
                step = check.step
                console.print(Text(f"  {step}"))
            console.print(Text(f"    {_line(check)}", _STYLES[check.outcome]))
            if check.outcome == "FAIL":
                for style, line in _path(check):
                    console.print(Text(line, style))
        for text in result.not_judged:
            console.print(Text(f"  not judged (it needs a kernel): {text}", "yellow"))
        for text in result.warnings:
            console.print(Text(f"  warning: not compiled, and closed instead: {text}", "yellow"))
        if result.fault:
            console.print(Text(f"  FAIL  {result.fault}", "red"))
    console.print(Text(summary(results)))


_STYLES = {"ok": "green", "FAIL": "bold red", "not judged": "yellow"}


def _line(check: Check) -> str:
    about = f": {check.why}" if check.outcome != "ok" and check.why else ""
    return f"{check.outcome:<4}  {check.kind:<5} {check.traffic}{about}"


def _path(check: Check) -> list[tuple[str, str]]:
    import msgspec

    return [line for way in check.ways for line in way_lines(msgspec.to_builtins(way), "          ")]


def summary(results: Sequence[Result]) -> str:
    """`41 checks: 40 ok, 1 failed; 3 not judged`."""
    checks = [check for result in results for check in result.checks]
    failed = sum(len(result.failures) for result in results)
    ok = sum(check.outcome == "ok" for check in checks)
    left_out = len(checks) - ok - failed + sum(len(result.not_judged) for result in results)
    faulty = sum(bool(result.fault) for result in results)
    text = f"{len(checks)} checks in {len(results)} file{'s' if len(results) > 1 else ''}: {ok} ok, {failed} failed"
    text += f"; {left_out} not judged" if left_out else ""
    return text + (f"; {faulty} files could not be judged to their end" if faulty else "")


def _write_junit(path: Path, results: Sequence[Result]) -> None:
    """One suite a file, one case a line."""
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites")
    for result in results:
        cases = [check for check in result.checks if check.outcome != "not judged"]
        skipped = len(result.checks) - len(cases) + len(result.not_judged)
        counts = {"tests": len(result.checks) + len(result.not_judged) + bool(result.fault), "skipped": skipped}
        counts |= {"failures": len(result.failures) + bool(result.fault)}
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": result.name, **{k: str(v) for k, v in counts.items()}}
        )
        for check in result.checks:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{result.name}.{check.step}", name=f"{check.kind} {check.traffic}"
            )
            if check.outcome == "FAIL":
                text = "\n".join(line for _, line in _path(check))
                ElementTree.SubElement(case, "failure", message=check.why).text = text
            elif check.outcome == "not judged":
                ElementTree.SubElement(case, "skipped", message=check.why)
        for text in result.not_judged:
            case = ElementTree.SubElement(suite, "testcase", classname=result.name, name=text)
            ElementTree.SubElement(case, "skipped", message="it needs a kernel")
        if result.fault:
            case = ElementTree.SubElement(suite, "testcase", classname=result.name, name="the file as a whole")
            ElementTree.SubElement(case, "failure", message=result.fault)
    ElementTree.ElementTree(root).write(path, encoding="unicode", xml_declaration=True)
