"""Owns a lab in the background for `tortie lab up`, until `tortie lab down` or a signal.

The one who starts it reads its standard output: one JSON line for each phase, and at last `{"up": seconds}` or
`{"error": sentence}`. After that nothing is written, and the starter may go.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tortie.lab import control, ownership, processes, samples, scenario
from tortie.lab.cluster import Cluster
from tortie.lab.errors import LabBusy, LabError, NoSuchLab
from tortie.lab.scenario import Scenario

DOWN_DEADLINE_S = 15.0
_LOOK_EVERY_S = 0.05


def wanted(file: Path | None, nodes: int) -> Scenario:
    """The scenario whose cluster is to be kept. Raises ScenarioFault."""
    return samples.cluster(nodes) if file is None else scenario.read(file.read_text(), str(file))


async def keep(lab: str, what: Scenario) -> int:
    """Runs the lab until it is told to end; the exit code. Says on standard output how far it is."""
    down = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, down.set)
    began = time.monotonic()
    try:
        with ownership.owned(lab) as directory:
            cluster = Cluster(lab, what.nodes, directory, what.settings, network=what.network)
            try:
                await cluster.up(what.resources, what.namespaces, what.pods, lambda text: _say(phase=text))
                async with control.serve(cluster, down):
                    _say(up=round(time.monotonic() - began, 2))
                    _fall_silent()
                    await down.wait()
            finally:
                await cluster.down()
    except LabError as error:
        _say(error=str(error))
        return 1
    return 0


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def _fall_silent() -> None:
    """The starter's pipe is about to close: from here on nobody reads."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    os.close(null)


def start(lab: str, file: Path | None, nodes: int, phase: Callable[[str], None]) -> float:
    """Starts a keeper in the background and waits until its lab is up: after how many seconds. Raises LabError."""
    arguments = ["lab", "keep", lab, "--nodes", str(nodes), *(["-f", str(file.resolve())] if file else [])]
    with subprocess.Popen(
        processes.tortie_command(*arguments),
        env=processes.clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as keeper:
        assert keeper.stdout is not None
        rest = []
        try:
            for line in keeper.stdout:
                try:
                    said = json.loads(line)
                except ValueError:
                    rest.append(line)
                    continue
                if "up" in said:
                    keeper.returncode = 0  # it is nobody's child from here on: do not wait for it
                    return float(said["up"])
                if "error" in said:
                    raise LabError(said["error"])
                phase(said["phase"])
        except BaseException:
            keeper.terminate()
            raise
        raise LabError("the lab's keeper ended:\n" + "".join(rest))


async def end(lab: str) -> None:
    """Brings a lab down, whoever owns it, and removes what is left of it. Raises NoSuchLab, LabBusy."""
    if lab not in ownership.labs():
        raise NoSuchLab(f"there is no lab {lab!r}")
    owner = ownership.owner(lab)
    if owner:
        try:
            await control.request(lab, do="down")
        except LabError:
            os.kill(owner, signal.SIGTERM)
        if not await _gone(lab):
            os.kill(owner, signal.SIGKILL)
            await _gone(lab)
    if not await ownership.erase_ownerless(lab):
        raise LabBusy(f"the lab {lab!r} still belongs to process {ownership.owner(lab)}")


async def _gone(lab: str) -> bool:
    """Waits until nobody owns the lab; False when somebody still does at the deadline."""
    try:
        async with asyncio.timeout(DOWN_DEADLINE_S):
            while True:
                if not ownership.owner(lab):
                    return True
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        return False
