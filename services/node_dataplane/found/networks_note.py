"""The node's pod networks on disk: what an agent must know that starts on a node without a table, before the bus has
said a word (a node that booted). Nothing else is kept: pods and links are found again.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from services.node_dataplane.errors import StoreError

FILE = "pod-networks.json"


def read(directory: Path) -> tuple[str, ...]:
    """CIDRs; none when there is no note. Raises StoreError."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=tuple[str, ...])
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StoreError(f"cannot read {directory / FILE}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise StoreError(f"{directory / FILE} is not readable ({error}); delete it") from error


def write(directory: Path, networks: tuple[str, ...]) -> None:
    """Raises StoreError."""
    aside = directory / f"{FILE}.new"
    try:
        with aside.open("wb") as file:
            file.write(msgspec.json.encode(networks))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(directory / FILE)
    except OSError as error:
        raise StoreError(f"cannot write {directory / FILE}: {error.strerror}") from error
