"""The pods of this node on disk: what a restarted agent knows before the bus has said a word.

One file, `endpoints.json`, replaced as a whole (written aside, fsync, rename, fsync of the directory), so that an
endpoint's removal and the debt of its address are one durable step. `owed` are handles whose addresses must still be
given back: a pod is deleted even while the bus is away, and the address returns once it is back. `warm` are addresses
that are kept for pods to come; that one of them becomes a pod's is one durable step, too.

Changes are synchronous; `save` makes everything changed so far durable, and concurrent callers share one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import msgspec

from bus_schemas.ids import HandleId, PodKey
from services.node_dataplane.errors import StoreError
from services.node_dataplane.plugins import Plugin, Warm

__all__ = ["EndpointStore", "Plugin", "Warm"]

FILE = "endpoints.json"
VERSION = 1


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    endpoints: tuple[Plugin, ...] = ()
    owed: tuple[HandleId, ...] = ()
    warm: tuple[Warm, ...] = ()


class EndpointStore:
    def __init__(self, directory: Path) -> None:
        """Reads what an earlier life left. Raises StoreError."""
        self._path = directory / FILE
        self.found = False
        """Whether an earlier life left notes."""
        self._plugins: dict[PodKey, Plugin] = {}
        self._owed: dict[HandleId, None] = {}
        self._warm: dict[HandleId, Warm] = {}
        self._changes = 0
        self._saved = 0
        self._writing = asyncio.Lock()
        self._at_work = threading.Lock()
        """Who waits for a write may be cancelled, its thread is not: the next write must not meet it in the file."""
        self._written = 0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror}") from error
        try:
            file = msgspec.json.decode(data, type=_File)
        except msgspec.DecodeError as error:
            raise StoreError(
                f"{self._path} is not readable ({error}); move it away to have this node's pods read back from the bus"
            ) from error
        if file.version != VERSION:
            raise StoreError(f"{self._path} has version {file.version}, this agent reads {VERSION}")
        self.found = True
        self._plugins = {plugin.pod: plugin for plugin in file.endpoints}
        self._owed = dict.fromkeys(file.owed)
        self._warm = {warm.handle: warm for warm in file.warm}

    # --- what is plugged in

    def get(self, pod: PodKey) -> Plugin | None:
        return self._plugins.get(pod)

    def of_container(self, container: str) -> Plugin | None:
        return next((p for p in self._plugins.values() if p.endpoint.container == container), None)

    def of_link(self, link: str) -> Plugin | None:
        return next((p for p in self._plugins.values() if p.endpoint.link == link), None)

    def all(self) -> list[Plugin]:
        return [self._plugins[pod] for pod in sorted(self._plugins)]

    def put(self, plugin: Plugin) -> None:
        """What it asks for is in use again, so it is no longer owed."""
        self._plugins[plugin.pod] = plugin
        for handle in plugin.asks:
            self._owed.pop(handle, None)
        self._changes += 1

    def remove(self, pod: PodKey) -> None:
        if self._plugins.pop(pod, None) is not None:
            self._changes += 1

    # --- what must be given back

    @property
    def owed(self) -> tuple[HandleId, ...]:
        return tuple(self._owed)

    def owe(self, handle: HandleId) -> None:
        if handle not in self._owed:
            self._owed[handle] = None
            self._changes += 1

    def paid(self, handle: HandleId) -> None:
        if self._owed.pop(handle, self) is None:
            self._changes += 1

    # --- what is kept for pods to come

    @property
    def warm(self) -> tuple[Warm, ...]:
        return tuple(self._warm.values())

    def keep_warm(self, warm: Warm) -> None:
        self._warm[warm.handle] = warm
        self._changes += 1

    def no_longer_warm(self, handle: HandleId) -> None:
        if self._warm.pop(handle, None) is not None:
            self._changes += 1

    # --- durability

    async def save(self) -> None:
        """Returns when everything changed before the call is on disk. Raises StoreError."""
        wanted = self._changes
        while self._saved < wanted:
            async with self._writing:
                if self._saved >= wanted:
                    return
                covers = self._changes
                file = _File(version=VERSION, endpoints=tuple(self.all()), owed=self.owed, warm=self.warm)
                data = msgspec.json.format(msgspec.json.encode(file), indent=1)
                await asyncio.to_thread(self._write_once, covers, data)
                self._saved = covers

    def _write_once(self, covers: int, data: bytes) -> None:
        with self._at_work:
            if covers > self._written:
                self._write(data)
                self._written = covers

    def _write(self, data: bytes) -> None:
        aside = self._path.with_suffix(".new")
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "wb", closefd=False) as file:
                    file.write(data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(aside, self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error
