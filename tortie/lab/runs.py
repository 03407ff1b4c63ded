"""One scenario from file to result, in a lab of its own that is gone afterwards."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tortie.lab import control, ownership, requirements, scenario
from tortie.lab.cluster import Cluster
from tortie.lab.engine import Listener, Result, Run
from tortie.lab.errors import LabError, ScenarioFault

Held = Callable[[Cluster, bool], Awaitable[None]]
"""Called with the cluster and whether a step failed, after the steps; the lab stays up until it returns."""


def files(paths: list[Path]) -> list[Path]:
    """The scenario files that the paths mean: themselves, or those of a directory by name. Raises ScenarioFault."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
            if not inside:
                raise ScenarioFault(f"{path}: there is no scenario (*.yaml) in this directory")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ScenarioFault(f"{path}: there is no such file")
    return found


async def run(
    path: Path, lab: str, listener: Listener, *, patience_s: float | None = None, hold: Held | None = None
) -> Result:
    """Runs the file's steps in the lab of that name. What goes wrong is in the result; only cancellation is raised."""
    began = time.monotonic()
    result = Result(str(path), path.stem)
    try:
        wanted = scenario.read(path.read_text(), str(path))
        result.name = wanted.name
        result.skipped = await requirements.reason_to_skip(wanted)
        if result.skipped:
            return result
        with ownership.owned(lab) as directory:
            cluster = Cluster(lab, wanted.nodes, directory, wanted.settings, network=wanted.network)
            try:
                one = Run(wanted, cluster, listener, patience_s=patience_s)
                await one.up()
                result.up_s = time.monotonic() - began
                listener.up(cluster, result.up_s)
                async with control.serve(cluster):
                    result.steps = await one.steps()
                    if hold is not None:
                        await hold(cluster, not result.passed)
            except LabError as error:
                result.fault = str(error)
            finally:
                if not result.passed:
                    result.complaints = cluster.complaints()
                await cluster.down()
    except (LabError, OSError) as error:
        result.fault = str(error)
    result.took_s = time.monotonic() - began
    return result
