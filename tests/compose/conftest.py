"""One Docker and one image for all tests of the containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import compose, readme
from tests.support.agent import REPOSITORY
from tests.support.compose import Stack

SCRIPTS = REPOSITORY / "scripts"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Docker with the image, and no container. Wheels and base come from outside: it has no way out
    (`TORTIE_BASE_DIRECTORY`: what `scripts/base-image make` made)."""
    if not os.environ.get("TORTIE_COMPOSE"):
        pytest.skip("takes minutes: `make compose-test` runs it")
    if absent := compose.absent():
        pytest.skip(f"not on this machine: {', '.join(absent)}")
    directory = tmp_path_factory.mktemp("compose")
    made = os.environ.get("TORTIE_BASE_DIRECTORY")
    base, wheels = Path(made or directory / "base"), directory / "wheels"
    with ThreadPoolExecutor() as both:
        jobs = [both.submit(script, "wheelhouse", wheels)]
        if not made:
            jobs.append(both.submit(script, "base-image", "make", base))
        for job in jobs:
            job.result()
    with compose.docker(directory) as machine:
        machine.run(str(SCRIPTS / "base-image"), "import", str(base), limit_s=600.0)
        if not made:
            shutil.rmtree(base)
        ready = Stack(machine, wheels)
        assert readme.MAKE == "make image && cd compose"
        readme.done(ready, readme.MAKE, REPOSITORY)
        yield ready


def script(name: str, *arguments: str | Path) -> None:
    """One of scripts/, on this machine."""
    command = (SCRIPTS / name, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200.0)
    assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
