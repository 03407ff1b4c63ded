"""Which truth-table cases are judged by real packets, and in which order.

TORTIE_PACKETS=all: every case of FILES. Otherwise a spread: in the files' order, each case that shows a trait (family,
feature, tag, kind of action, plan of addresses) which fewer than SHOWN of the cases taken before it show. They run
sorted by the addresses of their pods, so that one set of pods serves as many cases as possible.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import pytest

from bus_schemas.resources import Pod
from tests.support import truth_tables
from tests.support.truth_tables import Case

FILES: Final = ("k8s_e2e.json", "cyclonus.json", *truth_tables.PROBE_FILES)
SHOWN: Final = 2


def parameters() -> list[Any]:
    """The cases as test parameters; one skipped parameter for a file that is absent."""
    missing = [file for file in FILES if not (truth_tables.directory() / file).is_file()]
    if missing:
        return [parameter for file in missing for parameter in truth_tables.parameters(file)]
    cases = [case for file in FILES for case in truth_tables.cases(file)]
    if os.environ.get("TORTIE_PACKETS") != "all":
        cases = spread(cases)
    return [pytest.param(case, id=case.id) for case in sorted(cases, key=_addresses)]


def spread(cases: Iterable[Case]) -> list[Case]:
    shown: Counter[str] = Counter()
    taken = []
    for case in cases:
        traits = case.traits | set(_addresses(case)[:1])  # the first pod's address tells the plans apart
        if any(shown[trait] < SHOWN for trait in traits):
            taken.append(case)
            shown.update(traits)
    return taken


def _addresses(case: Case) -> tuple[str, ...]:
    return tuple(pod.status.pod_ips[0] for pod in case.start if isinstance(pod, Pod))
