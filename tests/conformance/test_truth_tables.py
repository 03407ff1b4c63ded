"""Other projects' truth tables and probes, judged in memory: by the manifests read naively, by the compiled policy, by
the rules that the kernel would hold. Whoever is wrong is named with the cells.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.support import truth_tables
from tests.support.policy_judges import JUDGES

FILES = (*truth_tables.FILES, *truth_tables.PROBE_FILES)


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("read", [case for file in FILES for case in truth_tables.unread(file)])
def test_truth_table(read: Callable[[], truth_tables.Case], judge: str) -> None:
    case, seen = read(), JUDGES[judge]()
    for resource in case.start:
        seen.put(resource)
    for number, step in enumerate(case.steps, 1):
        seen.become(step)
        assert step.tables or step.probes, f"step {number} asks for nothing"
        for table in step.tables:
            complaint = table.difference(partial(seen.reaches, table))
            assert not complaint, f"step {number}: {complaint}"
        wrong = [probe for probe in step.probes if not seen.agrees(probe)]
        assert not wrong, f"step {number}: {wrong}"
