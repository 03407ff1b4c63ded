"""Every manifest of the scenarios is read, and comes back the same when it is written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_schemas.manifests import Accepted, read, to_yaml

DIRECTORY = Path(os.environ.get("TORTIE_SCENARIOS") or Path(__file__).resolve().parents[4] / "shared" / "scenarios")
KINDS_TO_COME = ("11-", "12-")
"""Scenarios with kinds that cannot be read yet."""
PLACEHOLDERS = {"block": "10.244.1.0/24", "ip": "10.244.1.7"}


def manifests() -> list[Any]:
    """(text, name) of each `resources:` and `apply:`."""
    found = []
    for path in sorted(DIRECTORY.glob("*.yaml")):
        if path.name.startswith(KINDS_TO_COME):
            continue
        scenario = yaml.safe_load(path.read_text())
        texts = [scenario.get("resources"), *(step.get("apply") for step in scenario["steps"])]
        found += [pytest.param(text, id=f"{path.stem}-{i}") for i, text in enumerate(texts) if text]
    return found or [pytest.param("", marks=pytest.mark.skip(reason=f"no scenarios in {DIRECTORY}"))]


@pytest.mark.parametrize("text", manifests())
def test_a_scenarios_manifests_are_read(text: str) -> None:
    filled = re.sub(r"@(\w+)\([^)]*\)", lambda match: PLACEHOLDERS[match[1]], text)
    outcomes = read(filled)
    assert outcomes
    for outcome in outcomes:
        assert isinstance(outcome, Accepted), outcome
        assert outcome.warnings == ()
        assert read(to_yaml(outcome.resource)) == [Accepted(outcome.resource)]
