"""The scenarios that this project was made from, and its own: each in a lab for itself, with real packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab import lab_name, scenario_directory, scenario_files
from tortie.lab import report, runs
from tortie.lab.cluster import Cluster
from tortie.lab.engine import StepResult
from tortie.lab.scenario import Step

pytestmark = [pytest.mark.root, pytest.mark.lab]


class Silent:
    """Tells nobody."""

    def phase(self, text: str) -> None: ...
    def up(self, cluster: Cluster, took_s: float) -> None: ...
    def step_began(self, number: int, step: Step) -> None: ...
    def step_ended(self, number: int, result: StepResult) -> None: ...


OWN = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))
NONE = pytest.param(Path(), marks=pytest.mark.skip(reason=f"no scenarios in {scenario_directory()}"))
FILES = [*OWN, *(scenario_files() or (NONE,))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_scenario(path: Path) -> None:
    result = await runs.run(path, lab_name(), Silent())
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.passed, report.describe(result)
