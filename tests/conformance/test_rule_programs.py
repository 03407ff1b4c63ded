"""Rule programs of Calico's agent with the packets that its authors sent through them, judged by the vocabulary of
compiled policy and by the rules that the kernel would hold. (No manifest stands behind them for a third judge.)
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import truth_tables
from tests.support.rule_programs import Program

FILE = "calico_rules.json"


@pytest.mark.parametrize("judge", ["compiled", "rendered"])
@pytest.mark.parametrize("case", truth_tables.raw_cases(FILE))
def test_program(case: dict[str, Any], judge: str) -> None:
    program = Program(case)
    wrong = [(seen, sent) for sent in case["packets"] if (seen := getattr(program, judge)(sent)) != sent["expect"]]
    assert not wrong
