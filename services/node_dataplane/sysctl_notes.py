"""What the node's kernel settings were before the agent changed them: `sysctl.json` in its directory, by which `tortie
node cleanup` puts them back. A setting is noted once, before it is first changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from services.node_dataplane import sysctl
from services.node_dataplane.errors import StoreError

FILE = "sysctl.json"


class SysctlNotes:
    def __init__(self, directory: Path) -> None:
        """Raises StoreError."""
        self._path = directory / FILE
        self._noted: dict[str, tuple[str, str]] = {}
        """Path below /proc/sys/net -> (what it was, what it is ours to be)."""
        try:
            self._noted = msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[str, str]])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(f"cannot read {self._path}: {error}; without it nothing is put back at the end") from error

    def write(self, settings: Iterable[tuple[str, str]]) -> None:
        """Set (path below /proc/sys/net, value) pairs. Raises OSError that names the setting."""
        wanted = list(settings)
        noted = dict(self._noted)
        for path, value in wanted:
            before = sysctl.read(path)
            if before != value:
                noted.setdefault(path, (before, value))
        if noted != self._noted:
            aside = self._path.with_name(f".{FILE}.new")
            aside.write_bytes(msgspec.json.encode(noted))
            os.replace(aside, self._path)
            self._noted = noted
        sysctl.write(wanted)
