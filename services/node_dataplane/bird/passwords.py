"""Passwords of BGP sessions: files of mounted Secrets, `<directory>/<name of the secret>/<key>`. They are read again at
every look, so that a rotated one is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from bus_schemas.bgp import Secret, Speaker
from services.node_dataplane.errors import BirdError

LONGEST = 79
"""Bytes that TCP's MD5 option takes (TCP_MD5SIG_MAXKEYLEN is 80, with the end)."""


class Passwords(NamedTuple):
    known: Mapping[Secret, str]
    missing: Mapping[Secret, str]
    """Why it cannot be had."""


def secrets_of(speaker: Speaker) -> set[Secret]:
    """Those that sessions of the record name."""
    options = [session.options for session in speaker.sessions] + [w.options for w in speaker.workloads]
    if speaker.mesh is not None:
        options.append(speaker.mesh.options)
    return {option.password for option in options if option.password is not None}


def read(directory: Path | None, secrets: Iterable[Secret]) -> Passwords:
    known: dict[Secret, str] = {}
    missing: dict[Secret, str] = {}
    for secret in secrets:
        try:
            known[secret] = _read(directory, secret)
        except BirdError as error:
            missing[secret] = str(error)
    return Passwords(known, missing)


def _read(directory: Path | None, secret: Secret) -> str:
    if directory is None:
        raise BirdError("TORTIE_BGP_SECRETS_DIR does not say where the agent finds Secrets")
    if any(part in ("", ".", "..") or "/" in part for part in (secret.name, secret.key)):
        raise BirdError(f"{secret.name}/{secret.key} is not the name of a Secret and its key")
    path = directory / secret.name / secret.key
    try:
        text = path.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BirdError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not text or len(text.encode()) > LONGEST or not text.isprintable() or '"' in text:
        raise BirdError(f"{path} is not a password that BIRD and TCP take: 1 to {LONGEST} printable bytes, no quotes")
    return text
