"""A scenario whose kernel is not this one: run in a virtual machine, from file to result as `runs` does it here."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tortie.lab import requirements, scenario, vm
from tortie.lab.engine import Result, StepResult
from tortie.lab.errors import LabError, MachineLacks

_RESULT = "result.json"


async def lacks(path: Path) -> list[str]:
    """What the scenario needs and this kernel has not; nothing where the file has a fault, for others to name."""
    try:
        return await requirements.lacks_of_kernel(scenario.read(path.read_text(), str(path)))
    except (LabError, OSError):
        return []


async def run(path: Path, lacking: list[str], *, patience_s: float | None = None) -> Result:
    """Its report appears as it goes. Where the tools are missing the scenario is skipped, and the reason says what to
    install."""
    began = time.monotonic()
    result = Result(str(path), path.stem)
    try:
        machine = vm.find()
        with vm.shared_directory() as shared:
            (shared / path.name).write_bytes(path.read_bytes())
            words: tuple[str, ...] = (sys.executable, "-m", "tortie", "lab", "run", str(shared / path.name))
            if patience_s is not None:
                words += ("--patience", f"{patience_s:g}")
            status = await vm.run(machine, (*words, "--json", str(shared / _RESULT)), shared)
            _read(result, shared / _RESULT, status)
    except MachineLacks as error:
        result.skipped = f"it needs the kernel's {', '.join(lacking)}, which this kernel has not; {error}"
    result.took_s = time.monotonic() - began
    return result


def _read(result: Result, path: Path, status: int) -> None:
    if not path.exists():
        result.fault = f"the virtual machine ended with {status} and without a result"
        return
    (said,) = json.loads(path.read_text())
    result.name, result.up_s = said["name"], said["up_s"]
    if said["outcome"] == "skipped":
        result.skipped = said["reason"]
        return
    result.fault = said["reason"]
    for step in said["steps"]:
        fault = step["fault"] or "; ".join(step["failures"])
        result.steps.append(StepResult(step["do"], step["took_s"], fault=fault))
