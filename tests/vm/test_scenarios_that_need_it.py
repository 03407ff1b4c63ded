"""The scenarios that name parts of the kernel: `tests/system` passes them by where the kernel has them not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kernels import needs
from tests.support.lab import lab_name, scenario_directory, scenario_files
from tests.system.test_scenarios import Silent
from tortie.lab import report, runs, scenario

pytestmark = [pytest.mark.root, pytest.mark.lab]


def files() -> list[object]:
    found = []
    for path in scenario_files():
        kinds = scenario.read(path.read_text(), str(path)).kernel
        if kinds:
            found.append(pytest.param(path, id=path.stem, marks=needs(*kinds)))
    return found or [pytest.param(Path(), marks=pytest.mark.skip(reason=f"no scenarios in {scenario_directory()}"))]


@pytest.mark.parametrize("path", files())
async def test_scenario(path: Path) -> None:
    result = await runs.run(path, lab_name(), Silent())
    assert not result.skipped, result.skipped
    assert result.passed, report.describe(result)
