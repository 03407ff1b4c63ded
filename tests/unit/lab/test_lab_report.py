from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console

from tortie.lab import report
from tortie.lab.checks import Check, Verdict
from tortie.lab.engine import Finding, Result, StepResult


async def _never() -> Verdict:
    raise AssertionError("a report tries nothing")


CHECK = Check("deny", "a/x -> b/y tcp/80", "no answer at all: dropped", _never)
FINDING = Finding(CHECK, Verdict(False, "answered after 1.2 ms", ("tortie lab probe a/x b/y tcp/80", "/log/agent.log")))
PASSED = Result("dir/01-one.yaml", "one", [StepResult("look", 0.5)], took_s=2.0)
FAILED = Result("dir/02-two.yaml", "two", [StepResult("[apply] it", 2.0, (FINDING,))], took_s=5.0)
SKIPPED = Result("dir/03-three.yaml", "three", skipped="it needs the moon")
BROKEN = Result("dir/04-four.yaml", "four", fault="api ended with 1")


def shown(result: Result) -> str:
    console = Console(file=io.StringIO(), width=100)
    progress = report.Progress(console, "x", live=True)
    for number, step in enumerate(result.steps, 1):
        progress.step_ended(number, step)
    progress.close()
    report.outcome(console, result, kept=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_failure_tells_what_was_expected_what_was_seen_and_where_to_look() -> None:
    text = shown(FAILED)
    for part in ("[apply] it", *(str(CHECK), CHECK.expected, FINDING.verdict.seen), *FINDING.verdict.look):
        assert part in text
    assert "tortie lab run --keep dir/02-two.yaml" in text


def test_a_skipped_one_tells_why() -> None:
    assert "skipped: it needs the moon" in shown(SKIPPED)


def test_what_broke_is_told() -> None:
    assert "api ended with 1" in shown(BROKEN)
    assert not BROKEN.passed


def test_the_summary_counts() -> None:
    console = Console(file=io.StringIO(), width=100)
    report.summary(console, [PASSED, FAILED, SKIPPED, BROKEN], 12.34)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "1 passed, 2 failed, 1 skipped in 12.3 s" in text
    assert "dir/02-two.yaml" in text


def test_junit(tmp_path: Path) -> None:
    report.write_junit(tmp_path / "r.xml", [PASSED, FAILED, SKIPPED])
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "answered after 1.2 ms" in (failure.text or "")


def test_json(tmp_path: Path) -> None:
    report.write_json(tmp_path / "r.json", [PASSED, FAILED, SKIPPED])
    assert [result["outcome"] for result in json.loads((tmp_path / "r.json").read_text())] == [
        "passed",
        "failed",
        "skipped",
    ]
