"""Where the conformance tables of other projects are found, and how their cases become test parameters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

Case = dict[str, Any]

_REPOSITORY = Path(__file__).resolve().parents[2]


def conformance_directory() -> Path:
    """`TORTIE_CONFORMANCE`, or `shared/conformance` beside the repository."""
    return Path(os.environ.get("TORTIE_CONFORMANCE") or _REPOSITORY.parent / "shared" / "conformance")


@cache
def table(name: str) -> dict[str, Any]:
    return json.loads((conformance_directory() / name).read_text())  # type: ignore[no-any-return]


def cases(name: str, wanted: Callable[[Case], bool] = lambda case: True) -> list[Any]:
    """Every wanted case of one table as a test parameter; a single skipped one where the table is absent."""
    if not (conformance_directory() / name).is_file():
        return [pytest.param({}, id=name, marks=pytest.mark.skip(reason=f"no {conformance_directory() / name}"))]
    return [pytest.param(case, id=case["id"]) for case in table(name)["cases"] if wanted(case)]
