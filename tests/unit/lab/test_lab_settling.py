"""When an expectation counts as met: the rules of `engine.settle`, on checks that answer by script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tortie.lab.checks import Check, Verdict
from tortie.lab.engine import settle


class Script:
    """A check that answers with one verdict after the other, the last one for ever."""

    def __init__(self, answers: Iterable[bool]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def attempt(self) -> Verdict:
        self.asked += 1
        holds = self._answers[min(self.asked, len(self._answers)) - 1]
        return Verdict(holds, f"answer {self.asked}")

    def check(self, *, lasting: bool) -> Check:
        return Check("allow", "a -> b", "an answer", self.attempt, lasting)


async def outcome(script: Script, *, lasting: bool = True, patience_s: float = 0.2) -> bool:
    (finding,) = await settle([script.check(lasting=lasting)], patience_s=patience_s)
    return finding.verdict.holds


async def test_it_is_tried_until_it_holds() -> None:
    script = Script([False, False, True])
    assert await outcome(script, lasting=False)
    assert script.asked == 3


async def test_it_fails_when_time_is_up() -> None:
    assert not await outcome(Script([False]))


async def test_it_is_tried_at_least_once() -> None:
    assert await outcome(Script([True]), patience_s=0.0)


async def test_what_should_last_is_tried_once_more_at_the_end() -> None:
    script = Script([True])
    assert await outcome(script)
    assert script.asked == 2


async def test_what_held_for_a_moment_only_has_failed() -> None:
    script = Script([True, False])
    (finding,) = await settle([script.check(lasting=True)], patience_s=0.2)
    assert not finding.verdict.holds
    assert finding.verdict.seen == "answer 1; a moment later: answer 2"


async def test_every_check_has_its_verdict_in_order() -> None:
    scripts: Iterator[Script] = map(Script, ([True], [False], [False, True]))
    findings = await settle([script.check(lasting=False) for script in scripts], patience_s=0.2)
    assert [finding.verdict.holds for finding in findings] == [True, False, True]


async def test_no_checks() -> None:
    assert await settle([], patience_s=2.0) == []
