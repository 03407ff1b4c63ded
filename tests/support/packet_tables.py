"""Whole reachability tables by real packets: every cell is probed side by side, out of one event loop.

    field = Field()                              who listens where
    field.add(pod, netns, addresses)             the pod's ears: what it is asked for, on each of its addresses
    seen = await field.glance(expected)          one try a cell: enough to see that a change has arrived
    seen = await field.stare(expected)           three tries a cell, silence believed only at the end

An answer names the pod that gave it, so one from the wrong pod is not taken for the right one. Every try is a flow of
its own: source ports of UDP and SCTP are counted up, so that no remembered connection lets a packet pass that policy
would drop (the kernel's random choice meets an old one every few thousand probes). SCTP is spoken by raw packets
(`tortie.lab.sctp`), because few kernels have it; the filter on the way does not see a difference.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from itertools import count, cycle, groupby
from typing import Any, Final, NamedTuple

from bus_schemas.ids import PodKey
from tortie import netns
from tortie.lab import probes, sctp

TRIES: Final = 3
SPACING_S: Final = 0.15
PATIENCE_S: Final = 0.45
GLANCE_S: Final = 0.1

ANSWER_BYTES: Final = 512
"""More than the longest name of a pod."""

SILENT: Final = "silent"
ANSWERED: Final = "answered"
"""Anything else that is seen says what came back instead."""

_NO_WAIT = struct.pack("ii", 1, 0)
_SOURCE_PORTS = range(10000, 61000)


class Way(NamedTuple):
    source: PodKey
    destination: PodKey
    protocol: str
    """TCP, UDP or SCTP."""
    port: int
    family: int = 4

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} {self.protocol}/{self.port} by IPv{self.family}"


Expected = Mapping[Way, bool]
Seen = Mapping[Way, str]
Hear = Callable[[Way, str], None]
Answered = Callable[[bytes], None]
"""Takes what the other end said."""
Refused = Callable[[str], None]
"""Takes the reason."""
TakeBack = Callable[[], None]
"""Gives a try up. May be called more than once."""


def as_expected(expected: Expected, seen: Seen) -> bool:
    return all(seen[way] == (ANSWERED if allowed else SILENT) for way, allowed in expected.items())


class Field:
    """The pods that listen, and the probes among them."""

    def __init__(self) -> None:
        self._ears: dict[PodKey, dict[int, _Ears]] = {}

    def add(self, pod: PodKey, namespace: str, addresses: Sequence[str]) -> None:
        """One address, or one of each family."""
        known = [ip_address(address) for address in addresses]
        self._ears[pod] = {ip.version: _Ears(str(pod).encode(), namespace, str(ip)) for ip in known}

    def families(self, pod: PodKey) -> Collection[int]:
        return self._ears[pod].keys()

    def address(self, pod: PodKey, family: int) -> str:
        return self._ears[pod][family].address

    def remove(self, pod: PodKey) -> None:
        for ears in self._ears.pop(pod).values():
            ears.close()

    def close(self) -> None:
        for pod in list(self._ears):
            self.remove(pod)

    async def glance(self, expected: Expected) -> Seen:
        """One try of every way; ends with the last answer that is expected, or after GLANCE_S."""
        survey = _Survey(expected, wanted=[way for way, allowed in expected.items() if allowed])
        with self._tried(expected, survey.hear):
            await survey.whole(GLANCE_S)
        return survey.seen

    async def stare(self, expected: Expected) -> Seen:
        """Up to TRIES tries of every way, SPACING_S apart, all open until PATIENCE_S after the first: a late answer
        still counts. Ends early when every way was answered."""
        survey = _Survey(expected, wanted=expected)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with ExitStack() as open_tries:
            for number in range(1, TRIES + 1):
                open_tries.enter_context(self._tried(survey.unanswered, survey.hear))
                until = began + (SPACING_S * number if number < TRIES else PATIENCE_S)
                if await survey.whole(until - loop.time()):
                    break
        return survey.seen

    @contextmanager
    def _tried(self, ways: Collection[Way], hear: Hear) -> Iterator[None]:
        """One packet for each way; answers are heard until the body ends."""
        for way in ways:
            self._ears[way.destination][way.family].listen(way.protocol, way.port)
        with ExitStack() as stack:
            for (source, family), some in groupby(sorted(ways, key=_asker), key=_asker):
                ears = self._ears[source][family]
                with netns.inside(ears.namespace):
                    for way in some:
                        stack.callback(self._ask(ears, way, hear))
            yield

    def _ask(self, ears: _Ears, way: Way, hear: Hear) -> TakeBack:
        """Sends one try out of the namespace in which the caller stands; the answer takes it back."""
        to = self._ears[way.destination][way.family]

        def judge(answer: bytes) -> None:
            hear(way, ANSWERED if answer == to.name else f"answered by {answer.decode() or 'nobody'}")

        def refused(reason: str) -> None:
            hear(way, f"refused: {reason}")

        return _ASK[way.protocol](ears, to.address, way.port, judge, refused)


def _asker(way: Way) -> tuple[PodKey, int]:
    return way.source, way.family


class _Survey:
    """What was heard of some ways."""

    def __init__(self, ways: Collection[Way], *, wanted: Collection[Way]) -> None:
        """It is whole when the wanted ways were heard of."""
        self._seen: dict[Way, str] = {}
        self._ways = ways
        self._wanted = set(wanted)
        self._whole = asyncio.Event()

    def hear(self, way: Way, what: str) -> None:
        """The first answer counts, unless a later one is not what it should be."""
        if self._seen.get(way) in (None, ANSWERED):
            self._seen[way] = what
        self._wanted.discard(way)
        if not self._wanted:
            self._whole.set()

    async def whole(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._whole.wait()
        except TimeoutError:
            return False
        return True

    @property
    def unanswered(self) -> list[Way]:
        return [way for way in self._ways if way not in self._seen]

    @property
    def seen(self) -> Seen:
        return {way: self._seen.get(way, SILENT) for way in self._ways}


class _Ears:
    """One pod's open ports on one of its addresses, and its raw socket for SCTP, which both asks and answers."""

    def __init__(self, name: bytes, namespace: str, address: str) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.source_ports = cycle(_SOURCE_PORTS)
        self._asked: dict[tuple[int, int], Answered] = {}
        self._tags = count(1)
        self._open: set[tuple[str, int]] = set()
        self._stack = ExitStack()
        self.close = self._stack.close
        with netns.inside(namespace):
            self._raw = self._stack.enter_context(
                socket.socket(self.family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, sctp.PROTOCOL)
            )
        _when_readable(self._stack, self._raw, self._sctp)

    def listen(self, protocol: str, port: int) -> None:
        """Once for each port."""
        if (protocol, port) in self._open:
            return
        self._open.add((protocol, port))
        if protocol == "SCTP":
            return  # by the raw socket
        with netns.inside(self.namespace):
            sock = self._socket(socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM, port)
        if protocol == "TCP":
            sock.listen(1024)
            _when_readable(self._stack, sock, self._accept)
        else:
            _when_readable(self._stack, sock, self._datagram)

    def _socket(self, kind: int, port: int) -> socket.socket:
        sock = self._stack.enter_context(socket.socket(self.family, kind | socket.SOCK_NONBLOCK))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.address, port))
        return sock

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            with connection:
                try:
                    connection.send(self.name)
                except ConnectionError:
                    pass  # it has had enough

    def _datagram(self, sock: socket.socket) -> None:
        while True:
            try:
                _, asker = sock.recvfrom(ANSWER_BYTES)
            except BlockingIOError:
                return
            sock.sendto(self.name, asker)

    # --- SCTP

    def ask_sctp(self, address: str, port: int, answered: Answered) -> TakeBack:
        asked = sctp.Init(next(self.source_ports), port, next(self._tags))
        self._asked[asked.source, asked.tag] = answered
        self._raw.sendto(sctp.init(asked), (address, 0))

        def take_back() -> None:
            self._asked.pop((asked.source, asked.tag), None)

        return take_back

    def _sctp(self, sock: socket.socket) -> None:
        while True:
            try:
                packet, peer = sock.recvfrom(2048)
            except BlockingIOError:
                return
            if self.family == socket.AF_INET:
                packet = sctp.payload(packet)
            match sctp.read(packet):
                case sctp.Init(destination=port) as asked if ("SCTP", port) in self._open:
                    sock.sendto(sctp.init_ack(asked, self.name), (peer[0], 0))
                case sctp.InitAck() as answer:
                    self._asked.get((answer.destination, answer.tag), _too_late)(answer.cookie)


def _ask_tcp(ears: _Ears, address: str, port: int, answered: Answered, refused: Refused) -> TakeBack:
    stack = ExitStack()
    sock = stack.enter_context(socket.socket(ears.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_WAIT)  # a reset at the end: nothing stays behind

    def heard(_: socket.socket) -> None:
        try:
            answered(sock.recv(ANSWER_BYTES))
        except OSError as error:
            refused(str(error.strerror))
        stack.close()

    failed = sock.connect_ex((address, port))
    if failed == errno.EINPROGRESS:
        _when_readable(stack, sock, heard)
    else:
        refused(os.strerror(failed))
    return stack.close


def _ask_udp(ears: _Ears, address: str, port: int, answered: Answered, refused: Refused) -> TakeBack:
    stack = ExitStack()
    sock = stack.enter_context(socket.socket(ears.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))

    def heard(_: socket.socket) -> None:
        try:
            answered(sock.recv(ANSWER_BYTES))
        except OSError as error:
            refused(str(error.strerror))
        stack.close()

    if ears.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, probes.IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, probes.IPV6_RECVERR, 1)
    sock.bind(("", next(ears.source_ports)))
    try:
        sock.connect((address, port))
        sock.send(b"?")
    except OSError as error:
        refused(str(error.strerror))
    else:
        _when_readable(stack, sock, heard)
    return stack.close


def _ask_sctp(ears: _Ears, address: str, port: int, answered: Answered, refused: Refused) -> TakeBack:
    return ears.ask_sctp(address, port, answered)


def _too_late(answer: bytes) -> None:
    """The try was given up."""


_ASK: Mapping[str, Callable[[_Ears, str, int, Answered, Refused], TakeBack]] = {
    "TCP": _ask_tcp,
    "UDP": _ask_udp,
    "SCTP": _ask_sctp,
}


def _when_readable(stack: ExitStack, sock: socket.socket, do: Callable[[Any], None]) -> None:
    """Until the stack is closed."""
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, do, sock)
    stack.callback(loop.remove_reader, sock)
