"""A real nats-server for each test, on a free port and a directory of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings


class Nats(EmbeddedNats):
    """An EmbeddedNats (`url`, `start`, `stop`, `kill`) that can also be restarted and wiped. The port stays."""

    async def restart(self) -> None:
        """kill -9, and up again on the same store."""
        await self.kill()
        await self.start()

    async def wipe(self) -> None:
        """Up again with nothing in the store."""
        await self.kill()
        shutil.rmtree(self.store)
        await self.start()

    def settings(self, **more: Any) -> ServiceSettings:
        return ServiceSettings(nats_url=self.url, health_listen="", **{"instance": "test", **more})

    def bus(self, name: str = "test", *, health: Health | None = None, **more: Any) -> AbstractAsyncContextManager[Bus]:
        """A Bus on this server, connecting."""
        return Bus.connect(self.settings(**more), name=name, health=health or Health())


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Nats]:
    async with Nats(tmp_path / "nats") as server:
        yield server
