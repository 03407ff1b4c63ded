"""A stream of numbered packets between two namespaces, each way, and which of them did not arrive."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.netns import Namespace, bind_udp

EVERY_S = 0.005
PORT = 7000
_NUMBER = struct.Struct("!Q")
_RECEIVE_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33


class Way:
    """One direction. Packets lie in the receiver's buffer until they are counted."""

    def __init__(self, source: Namespace, destination: Namespace, address: str) -> None:
        self._receiver = bind_udp(destination, address, PORT)
        self._receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._receiver.setblocking(False)
        with source.inside():
            self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._to = (address, PORT)
        self.sent = 0
        self.seen: set[int] = set()

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()

    def send(self) -> None:
        """An error of the node's, such as no route, is a packet lost."""
        try:
            self._sender.sendto(_NUMBER.pack(self.sent), self._to)
        except OSError:
            pass
        self.sent += 1

    def count(self) -> None:
        while True:
            try:
                self.seen.add(_NUMBER.unpack(self._receiver.recv(64))[0])
            except BlockingIOError:
                return

    @property
    def lost(self) -> set[int]:
        return set(range(self.sent)) - self.seen


class PacketStream:
    def __init__(self, *ways: Way) -> None:
        self._ways = ways
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            for way in self._ways:
                way.send()
                way.count()

    def begin(self) -> None:
        self._thread.start()

    def end(self, deadline_s: float = 10.0) -> None:
        """No more is sent; returns when all has arrived, or will not."""
        self._over.set()
        self._thread.join()
        last = time.monotonic() + deadline_s
        while any(way.lost for way in self._ways) and time.monotonic() < last:
            for way in self._ways:
                way.count()
            threading.Event().wait(EVERY_S)

    @property
    def sent(self) -> int:
        return sum(way.sent for way in self._ways)

    @property
    def lost(self) -> int:
        return sum(len(way.lost) for way in self._ways)


@contextmanager
def packets(left: Namespace, left_address: str, right: Namespace, right_address: str) -> Iterator[PacketStream]:
    """Runs during the body; judge it afterwards."""
    ways = Way(left, right, right_address), Way(right, left, left_address)
    stream = PacketStream(*ways)
    stream.begin()
    try:
        yield stream
    finally:
        stream.end()
        for way in ways:
            way.close()
