"""A TCP connection between two pods that must outlive everything done to the way between them."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tortie import netns

PORT = 7
PIECE = 256 * 1024
"""More than fits into the buffers of a path, so that large packets must pass, both ways."""


class Conversation:
    """One connection to an echoing server."""

    def __init__(self, here: str, there: str, address: str) -> None:
        """Namespaces of the two ends, and the address of the far one."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with netns.inside(there):
            self._listener = socket.create_server((address, PORT), family=family)
        with netns.inside(here):
            self._near = socket.socket(family)
        self._near.settimeout(30)
        self._near.connect((address, PORT))
        self._far, _ = self._listener.accept()
        self._echo = threading.Thread(target=self._answer, daemon=True)
        self._echo.start()
        self._said = 0

    def _answer(self) -> None:
        with suppress(OSError):
            while data := self._far.recv(65536):
                self._far.sendall(data)

    def exchange(self, deadline_s: float) -> None:
        """Say something new and hear all of it again. Raises TimeoutError; ConnectionError when it has ended."""
        self._said += 1
        said = hashlib.shake_128(str(self._said).encode()).digest(PIECE)
        self._near.settimeout(deadline_s)
        speaking = threading.Thread(target=self._near.sendall, args=(said,))
        speaking.start()
        heard = bytearray()
        while len(heard) < len(said):
            data = self._near.recv(65536)
            if not data:
                raise ConnectionError("the other end has closed the connection")
            heard += data
        speaking.join()
        assert heard == said

    def close(self) -> None:
        for end in (self._near, self._far, self._listener):
            end.close()
        self._echo.join()


@contextmanager
def conversation(here: str, there: str, address: str) -> Iterator[Conversation]:
    made = Conversation(here, there, address)
    try:
        yield made
    finally:
        made.close()
