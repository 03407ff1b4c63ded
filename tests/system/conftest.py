"""Fixtures of the system tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import runtimes
from tests.support.faults import World, world_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """A cluster for all fault tests of a module: each leaves it as consistent as it found it."""
    async with world_of(f"faults{os.getpid()}") as made:
        yield made


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root directory of a Debian, made once for all tests of container runtimes (`TORTIE_BASE_IMAGE`: one that is
    there already)."""
    if absent := runtimes.absent():
        pytest.skip(f"not on this machine: {', '.join(absent)}")
    if given := os.environ.get("TORTIE_BASE_IMAGE"):
        return Path(given)
    directory = tmp_path_factory.mktemp("base")
    runtimes.make_base(directory)
    return directory
