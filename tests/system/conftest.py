"""Fixtures of the system tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.faults import World, world_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """A cluster for all fault tests of a module: each leaves it as consistent as it found it."""
    async with world_of(f"faults{os.getpid()}") as made:
        yield made
