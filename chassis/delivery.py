"""What arrives, as it is on the wire: a message with its headers and the server's inline status, and the place in a
stream that a consumer's message names in its reply subject. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_NO_HEADERS: Mapping[str, str] = {}


class Delivery:
    """One message as it arrived. The headers are read when they are asked for."""

    __slots__ = ("_headers", "_raw", "payload", "reply", "subject")

    def __init__(self, subject: str, reply: str, raw_headers: bytes | None, payload: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self.payload = payload
        self._raw = raw_headers
        self._headers: Mapping[str, str] | None = None

    @property
    def status(self) -> str:
        """The server's inline status (`503` no responders, `404`, `408` ...), empty on an ordinary message."""
        return self._raw[9:12].decode() if self._raw is not None and self._raw[8:9] == b" " else ""

    @property
    def description(self) -> str:
        """The words after the status."""
        return self._raw[13:].partition(b"\r\n")[0].decode() if self._raw is not None and self.status else ""

    def number(self, header: str) -> int | None:
        """One header that the server writes last of its name, as a number, without reading the others."""
        if self._raw is None:
            return None
        _, found, rest = self._raw.rpartition(b"\r\n%s: " % header.encode())
        return int(rest.partition(b"\r\n")[0]) if found else None

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            self._headers = _parse_headers(self._raw) if self._raw is not None else _NO_HEADERS
        return self._headers


def _parse_headers(raw: bytes) -> dict[str, str]:
    """`NATS/1.0[ status]`, then `Name: value` lines (ADR-4). Of a repeated name the last stands."""
    headers = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers


class Place(NamedTuple):
    """Where a consumer's message lies, from its reply subject."""

    consumer: str
    sequence: int
    """In the stream."""
    ordinal: int
    """In the consumer's deliveries, from 1."""
    pending: int
    """How many more there are."""


def place(reply: str) -> Place:
    """Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<ordinal>.<time>.<pending>`, or the longer form with
    `<domain>.<account>` before the stream and a random token at the end (ADR-15)."""
    tokens = reply.split(".")
    at = 2 if len(tokens) < 11 else 4
    return Place(tokens[at + 1], int(tokens[at + 3]), int(tokens[at + 4]), int(tokens[at + 6]))


def server_address(url: str) -> str:
    """`host:port` of a server's URL, without the user and password in it."""
    return url.rpartition("://")[2].rpartition("@")[2].rstrip("/")
