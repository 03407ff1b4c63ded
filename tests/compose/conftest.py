"""One Docker, one image and one cluster for all tests of the containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import compose
from tests.support.agent import REPOSITORY
from tests.support.compose import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Docker with the image, and no container. Wheels and base come from outside: it has no way out
    (`TORTIE_BASE_DIRECTORY`: what `scripts/base-image make` made)."""
    if not os.environ.get("TORTIE_COMPOSE"):
        pytest.skip("takes minutes: `make compose-test` runs it")
    if absent := compose.absent():
        pytest.skip(f"not on this machine: {', '.join(absent)}")
    directory = tmp_path_factory.mktemp("compose")
    base = Path(os.environ.get("TORTIE_BASE_DIRECTORY") or directory / "base")
    if not base.exists():
        compose.script("base-image", "make", str(base))
    compose.script("wheelhouse", str(directory / "wheels"))
    with compose.docker(directory) as machine:
        machine.run(str(REPOSITORY / "scripts" / "base-image"), "import", str(base), compose.BASE, limit_s=600.0)
        made = Stack(machine, directory / "wheels")
        built = made.typed("make image", where=REPOSITORY)
        assert built.returncode == 0, built.stderr[-3000:]
        yield made
