"""The bytes of a watch -> its lines, wherever the network cut them. Pure."""

from __future__ import annotations

from services.kube_bridge.errors import Unreachable

MAX_LINE = 32 * 1024 * 1024
"""An object of etcd has at most 1.5 MB; what is longer is not the line of a watch."""


class Lines:
    def __init__(self, most: int = MAX_LINE) -> None:
        self._most = most
        self._begun: list[bytes] = []
        """Pieces of the line that has not ended yet."""
        self._length = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete with it, without the empty ones. Raises Unreachable: a line has no end."""
        if b"\n" not in chunk:
            self._hold(chunk)
            return []
        first, *rest = chunk.split(b"\n")
        lines = [b"".join((*self._begun, first)), *rest[:-1]]
        self._begun, self._length = [], 0
        self._hold(rest[-1])
        return [line for line in lines if line.strip()]

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._begun.append(piece)
            self._length += len(piece)
        if self._length > self._most:
            raise Unreachable(f"a line of more than {self._most} bytes")

    @property
    def cut(self) -> bool:
        """The stream ended in the middle of a line."""
        return self._length > 0
