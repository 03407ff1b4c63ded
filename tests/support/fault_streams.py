"""Traffic that flows while something is broken, and what became of it.

    a ──▶ web   one connection for ever and new ones all the time: no packet may be lost
    b ──▶ web
    c ──▶ web   datagrams that must never be answered

A packet of an allowed connection counts as lost when the kernel had to send one again (TCP_INFO), so no clock of this
process decides. Every denied datagram comes from a port of its own: no remembered flow decides either.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from bus_schemas.ids import PodKey
from tests.support.waiting import within
from tortie import netns
from tortie.lab.cluster import Cluster

ECHO_PORT, TCP_PORT, UDP_PORT = 7, 80, 53
ECHO_EVERY_S = 0.02
CONNECT_EVERY_S = 0.1
KNOCK_EVERY_S = 0.02
LISTENED_S = 0.5
"""How long an answer to a denied datagram is waited for."""
SILENT_S = 40.0
"""Longer than any self-check rests in so small a cluster."""
ANSWER_S = 10.0
"""An allowed connection that takes longer than this has failed, whatever the machine is doing."""

WEB, A, B, C = (PodKey("shop", name) for name in ("web", "a", "b", "c"))
DENIED = (B, C)


_ports = itertools.cycle(range(10_000, 65_000))
"""No two datagrams of one run come from the same one."""


class Open(NamedTuple):
    """A denied datagram that was answered."""

    at: float
    way: str


class Streams:
    """Traffic as long as `running`; what went wrong is in `lost` and `open`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._address = cluster.pods[WEB].addresses[0]
        self.lost: list[str] = []
        """Allowed traffic that did not get through, or not at the first attempt."""
        self.open: list[Open] = []
        self.echoes = 0
        self.connections = 0
        self.knocks = dict.fromkeys(DENIED, 0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Streams]:
        async with asyncio.TaskGroup() as tasks:
            flows = [tasks.create_task(self._echo()), tasks.create_task(self._connect())]
            flows += [tasks.create_task(self._knock(pod)) for pod in DENIED]
            await self.more()
            yield self
            await self.more()
            for flow in flows:
                flow.cancel()

    async def more(self) -> None:
        """Returns when every stream has seen new traffic, begun and ended after the call."""
        marks = [count + 2 for count in self._counts()]

        async def all_moved() -> bool:
            return all(count >= mark for count, mark in zip(self._counts(), marks, strict=True)) or bool(self.lost)

        await within(all_moved, "traffic goes on")

    async def silent(self) -> None:
        """Returns when datagrams have gone unanswered since the last wrong answer; that there are none any more from
        then on is for the next streams to say."""

        async def unanswered() -> bool:
            return not self.open or asyncio.get_running_loop().time() > self.open[-1].at + LISTENED_S

        await within(unanswered, "denied datagrams are not answered any more", SILENT_S)

    def _counts(self) -> list[int]:
        return [self.echoes, self.connections, *self.knocks.values()]

    def _socket(self, pod: PodKey, kind: int) -> socket.socket:
        with netns.inside(self._cluster.pods[pod].netns):
            return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)

    async def _echo(self) -> None:
        """One connection, for ever: what is sent comes back, and nothing had to be sent twice."""
        loop = asyncio.get_running_loop()
        with self._socket(A, socket.SOCK_STREAM) as sock:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await loop.sock_connect(sock, (self._address, ECHO_PORT))
                while True:
                    async with asyncio.timeout(ANSWER_S):
                        await loop.sock_sendall(sock, self.echoes.to_bytes(8, "big"))
                        heard = b""
                        while len(heard) < 8:
                            heard += await loop.sock_recv(sock, 8 - len(heard))
                    assert int.from_bytes(heard, "big") == self.echoes
                    self.echoes += 1
                    if _sent_again(sock):
                        self.lost.append(f"the established connection: {_sent_again(sock)} packets were sent again")
                        return
                    await asyncio.sleep(ECHO_EVERY_S)
            except OSError as error:  # TimeoutError is one
                self.lost.append(f"the established connection: {error!r}")

    async def _connect(self) -> None:
        """New connections, one after the other."""
        loop = asyncio.get_running_loop()
        while True:
            with self._socket(A, socket.SOCK_STREAM) as sock:
                try:
                    async with asyncio.timeout(ANSWER_S):
                        await loop.sock_connect(sock, (self._address, TCP_PORT))
                        await loop.sock_sendall(sock, b"?")
                        answer = await loop.sock_recv(sock, 256)
                    if not answer or _sent_again(sock):
                        self.lost.append(f"a new connection: {answer!r}, {_sent_again(sock)} packets were sent again")
                except OSError as error:
                    self.lost.append(f"a new connection: {error!r}")
            self.connections += 1
            await asyncio.sleep(CONNECT_EVERY_S)

    async def _knock(self, pod: PodKey) -> None:
        """Datagrams that must not be answered, each from a new port."""
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[float, socket.socket]] = deque()

        def answered(sock: socket.socket) -> None:
            try:
                said = sock.recv(256)
            except OSError as error:
                said = str(error).encode()
            self.open.append(Open(loop.time(), f"{pod} -> {WEB} udp/{UDP_PORT}: {said!r}"))

        def give_up() -> None:
            _, sock = waiting.popleft()
            loop.remove_reader(sock)
            sock.close()
            self.knocks[pod] += 1

        try:
            while True:
                sock = self._socket(pod, socket.SOCK_DGRAM)
                waiting.append((loop.time() + LISTENED_S, sock))
                sock.bind(("", next(_ports)))
                sock.connect((self._address, UDP_PORT))
                sock.send(b"?")
                loop.add_reader(sock, answered, sock)
                while waiting and waiting[0][0] <= loop.time():
                    give_up()
                await asyncio.sleep(KNOCK_EVERY_S)
        finally:
            while waiting:
                give_up()

    # --- judgements

    def assert_no_wrong_verdict(self) -> None:
        assert self.open == [], f"{len(self.open)} denied datagrams were answered, first {self.open[0]}"

    def assert_nothing_lost(self) -> None:
        assert self.lost == [], f"{len(self.lost)} losses of {self.connections} connections: {self.lost[:5]}"

    @property
    def open_s(self) -> float:
        """From the first wrong answer to the last."""
        return self.open[-1].at - self.open[0].at if self.open else 0.0


_TOTAL_RETRANS = struct.Struct("=100xI")
"""`tcpi_total_retrans` of struct tcp_info, include/uapi/linux/tcp.h."""


def _sent_again(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANS.size)
    return int(_TOTAL_RETRANS.unpack(info)[0])
