"""The node's own WireGuard keys: made on the node, kept in its state directory, and never anywhere else."""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from pathlib import Path

from services.node_dataplane.errors import StoreError
from services.node_dataplane.wireguard import KEY_BYTES, read_key

FILES = {4: "wireguard.key", 6: "wireguard6.key"}


def private_key(directory: Path, family: int) -> bytes:
    """The key of one family's device, made when there is none yet. Raises StoreError."""
    path = directory / FILES[family]
    try:
        return read_key(path.read_text().strip())
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise StoreError(f"{path}: {error}; delete it and a new one is made") from error


def _make(path: Path) -> bytes:
    key = clamped(secrets.token_bytes(KEY_BYTES))
    aside = path.with_suffix(".new")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(b64encode(key) + b"\n")
            file.flush()
            os.fsync(descriptor)
        aside.rename(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    return key


def clamped(random: bytes) -> bytes:
    """A private key of X25519 from random bytes (RFC 7748, 5)."""
    first, last = random[0] & 248, (random[-1] & 127) | 64
    return bytes([first]) + random[1:-1] + bytes([last])
