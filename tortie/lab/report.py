"""What a person sees while scenarios run: live on a terminal, plain lines in a log; JUnit and JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from tortie.lab.cluster import Cluster
from tortie.lab.engine import Finding, Result, StepResult
from tortie.lab.scenario import Step

OK, BAD, SKIPPED = "[green]✓[/]", "[red]✗[/]", "[yellow]-[/]"


class Progress:
    """Tells of one scenario as it goes (an `engine.Listener`). `live` shows what is being done now on a terminal."""

    def __init__(self, console: Console, title: str, *, live: bool) -> None:
        self._console = console
        self._live: Status | None = None
        self._title = title
        if live and console.is_terminal:
            self._live = console.status("")
            self._live.start()

    def phase(self, text: str) -> None:
        if self._live is not None:
            self._live.update(f"{escape(self._title)}: {escape(text)}")

    def up(self, cluster: Cluster, took_s: float) -> None:
        what = f"{len(cluster.topology.nodes)} nodes and {len(cluster.pods)} pods up, lab {cluster.name}"
        self._line("[dim]·[/]", f"[dim]{escape(what)}[/]", took_s)

    def step_began(self, number: int, step: Step) -> None:
        self.phase(step.do)

    def step_ended(self, number: int, result: StepResult) -> None:
        count = f" [dim]({len(result.findings)} checks)[/]" if result.findings else ""
        self._line(OK if result.passed else BAD, f"{escape(result.do)}{count}", result.took_s)
        if result.fault:
            self._console.print(f"      [red]{escape(result.fault)}[/]", highlight=False)
        for finding in result.failures:
            self._failure(finding)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _failure(self, finding: Finding) -> None:
        say = self._console.print
        say(f"      [red]{escape(str(finding.check))}[/]", highlight=False, soft_wrap=True)
        say(f"        expected  {escape(finding.check.expected)}", highlight=False, soft_wrap=True)
        seen = finding.verdict.seen.replace("\n", "\n                  ")
        say(f"        seen      {escape(seen)}", highlight=False, soft_wrap=True)
        for number, place in enumerate(finding.verdict.look):
            say(f"        {'look at ' if not number else '        '}  {escape(place)}", highlight=False, soft_wrap=True)

    def _line(self, mark: str, text: str, took_s: float) -> None:
        self._console.print(f"  {mark} [dim]{took_s:6.2f} s[/]  {text}", highlight=False, soft_wrap=True)


def heading(console: Console, path: Path) -> None:
    console.print(f"[bold]{escape(path.stem)}[/]", highlight=False, soft_wrap=True)


def outcome(console: Console, result: Result, *, kept: bool) -> None:
    """The last lines of one scenario."""
    if result.skipped:
        console.print(f"  {SKIPPED} skipped: {escape(result.skipped)}", highlight=False, soft_wrap=True)
        return
    if result.fault:
        console.print(f"  {BAD} [red]{escape(result.fault)}[/]", highlight=False, soft_wrap=True)
    for line in result.complaints:
        console.print(f"      [dim]{escape(line)}[/]", highlight=False, soft_wrap=True)
    if result.steps and not result.passed and not kept:
        command = f"tortie lab run --keep {result.source}"
        console.print(f"      this lab is gone; one that stays to be looked at: {escape(command)}", soft_wrap=True)


def summary(console: Console, results: Sequence[Result], took_s: float) -> None:
    failed = [result for result in results if not result.passed]
    skipped = [result for result in results if result.skipped]
    parts = [f"{len(results) - len(failed) - len(skipped)} passed"]
    parts += [f"[red]{len(failed)} failed[/]"] if failed else []
    parts += [f"[yellow]{len(skipped)} skipped[/]"] if skipped else []
    console.print(f"{', '.join(parts)} in {took_s:.1f} s", highlight=False)
    for result in failed:
        console.print(f"  {BAD} {escape(result.source)}", highlight=False, soft_wrap=True)


def write_json(path: Path, results: Iterable[Result]) -> None:
    path.write_text(json.dumps([_plain(result) for result in results], indent=2) + "\n")


def _plain(result: Result) -> dict[str, Any]:
    return {
        "source": result.source,
        "name": result.name,
        "outcome": _word(result),
        "reason": result.skipped or result.fault,
        "up_s": round(result.up_s, 3),
        "took_s": round(result.took_s, 3),
        "steps": [
            {
                "do": step.do,
                "took_s": round(step.took_s, 3),
                "passed": step.passed,
                "fault": step.fault,
                "failures": [_text(finding) for finding in step.failures],
            }
            for step in result.steps
        ],
    }


def write_junit(path: Path, results: Sequence[Result]) -> None:
    """One suite, one case a scenario: what continuous integration servers read."""
    suite = ElementTree.Element(
        "testsuite",
        name="tortie lab",
        tests=str(len(results)),
        failures=str(sum(not result.passed for result in results)),
        skipped=str(sum(bool(result.skipped) for result in results)),
    )
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=Path(result.source).stem, name=result.name, time=f"{result.took_s:.3f}"
        )
        if result.skipped:
            ElementTree.SubElement(case, "skipped", message=result.skipped)
        elif not result.passed:
            ElementTree.SubElement(case, "failure", message="expectations failed").text = describe(result)
    ElementTree.ElementTree(suite).write(path, encoding="unicode", xml_declaration=True)


def describe(result: Result) -> str:
    """Everything that went wrong in a scenario, as plain text."""
    lines = [result.fault] if result.fault else []
    for step in result.steps:
        if not step.passed:
            lines += [f"step: {step.do}", *filter(None, [step.fault]), *(_text(finding) for finding in step.failures)]
    lines += result.complaints
    return "\n".join(lines)


def _text(finding: Finding) -> str:
    look = "".join(f"\n  look at   {place}" for place in finding.verdict.look)
    return f"{finding.check}\n  expected  {finding.check.expected}\n  seen      {finding.verdict.seen}{look}"


def _word(result: Result) -> str:
    return "skipped" if result.skipped else "passed" if result.passed else "failed"
