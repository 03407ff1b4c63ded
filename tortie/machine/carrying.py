"""Carries out a plan, step by step, and says what became of each. A step that fails does not keep the others from being
done: what is left is in the next plan."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from services.node_dataplane.bird.driver import BirdDriver
from services.node_dataplane.errors import BirdError
from tortie.machine.plan import Step
from tortie.machine.reading import Places

GONE = ("No such process", "No such file or directory", "Cannot find device", "Cannot assign requested address")
"""What programs say of something that is not there any more: it went with what was removed before."""
BUSY = "in use by a kernel component"
"""The kernel lets go of a set a moment after the rule that used it is gone."""
TRIES, PAUSE_S = 40, 0.05


def carry_out(step: Step, places: Places, backup: Path) -> str:
    """What went wrong; empty when it is done."""
    try:
        match step.way:
            case "command":
                return _command(step)
            case "move":
                source = places.at(step.object)
                target = backup / step.object.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source, target)
            case "delete":
                _delete(Path(step.object))
            case "bird":
                asyncio.run(_end_bird(Path(step.object)))
    except FileNotFoundError as error:
        return "" if step.way == "delete" else f"{error.filename}: {error.strerror}"
    except (OSError, BirdError, shutil.Error) as error:
        return str(error)
    return ""


def _command(step: Step) -> str:
    for _ in range(TRIES):
        done = subprocess.run(step.command, input=step.input or None, capture_output=True, text=True, check=False)
        said = done.stderr.strip() or done.stdout.strip()
        if done.returncode == 0 or BUSY not in said:
            break
        time.sleep(PAUSE_S)
    return "" if done.returncode == 0 or any(text in said for text in GONE) else said or f"exit code {done.returncode}"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
        _prune(path.parent)


def _prune(directory: Path) -> None:
    """The socket's own directory, when nothing else is in it."""
    if directory.name == "tortie" and directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


async def _end_bird(directory: Path) -> None:
    found: Callable[[], bool] = lambda: False  # noqa: E731 - its routes are not wanted any more
    driver = BirdDriver(directory, has_routes=found)
    driver.wanted = None
    try:
        await driver.converge()
    finally:
        driver.close()
