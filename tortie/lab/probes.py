"""Was there an answer? One probe is a few real packets from inside a namespace, and what came back.

    Answered      the other end's own answer arrived: this is `allow`
    Silent        nothing at all came back to several packets: this is `deny`
    Refused       a reset, or an ICMP error: somebody answered, so it is neither

Three tries start `SPACING_S` apart on sockets of their own (a new flow each, so that no remembered connection decides),
and all stay open until `PATIENCE_S`: a late answer to the first try still counts. Silence is believed only then.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from dataclasses import dataclass, replace

from tortie import netns
from tortie.lab import sctp
from tortie.lab.pace import SLOWNESS

TRIES = 3
SPACING_S = 0.15 * SLOWNESS
PATIENCE_S = 0.5 * SLOWNESS

IP_RECVERR = 11
IPV6_RECVERR = 25
_ICMP_ECHO = {4: 8, 6: 128}
_ICMP_ECHO_REPLY = {4: 0, 6: 129}


@dataclass(frozen=True)
class Answered:
    after_s: float
    seen_as: str = ""
    """The source address that the other end saw; unknown for ICMP."""
    by: str = ""
    """The address at which the other end was reached; known for TCP alone."""

    def __str__(self) -> str:
        seen = f", seen there as {self.seen_as}" if self.seen_as else ""
        return f"answered after {self.after_s * 1000:.1f} ms{seen}"


@dataclass(frozen=True)
class Silent:
    tries: int

    def __str__(self) -> str:
        return f"no answer to {self.tries} tries"


@dataclass(frozen=True)
class Refused:
    reason: str

    def __str__(self) -> str:
        return f"refused: {self.reason}"


Outcome = Answered | Silent | Refused


async def probe(namespace: str, address: str, protocol: str, port: int) -> Outcome:
    """What comes back from `address` to a `tcp`, `udp`, `sctp` or `icmp` probe out of the namespace."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        tries: list[asyncio.Task[Outcome]] = []
        for number in range(1, TRIES + 1):
            tries.append(group.create_task(_ATTEMPTS[protocol](namespace, address, port)))
            until = began + (SPACING_S * number if number < TRIES else PATIENCE_S)
            done, _ = await asyncio.wait(
                tries, timeout=max(until - loop.time(), 0), return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                break
        outcome = next(iter(done)).result() if done else None
        for task in tries:
            task.cancel()
    late = [task.result() for task in tries if not task.cancelled()]
    if isinstance(outcome, Answered):
        return replace(outcome, after_s=loop.time() - began)
    return outcome or (late[0] if late else Silent(TRIES))


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _socket(namespace: str, address: str, kind: int, protocol: int = 0) -> socket.socket:
    """A non-blocking socket of the namespace that hears of ICMP errors."""
    version = _version(address)
    with netns.inside(namespace):
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind | socket.SOCK_NONBLOCK, protocol)
    if kind != socket.SOCK_STREAM:
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    return sock


async def _for_ever() -> Outcome:
    """A try that can only end by being given up."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def _judged(error: OSError) -> Outcome:
    """An error in words. EPERM is the sender's own packet filter dropping the packet: silence, not an answer."""
    if error.errno == errno.EPERM:
        return await _for_ever()
    return Refused(os.strerror(error.errno) if error.errno else str(error))


async def _tcp(namespace: str, address: str, port: int) -> Outcome:
    loop = asyncio.get_running_loop()
    connected = False
    with _socket(namespace, address, socket.SOCK_STREAM) as sock:
        try:
            await loop.sock_connect(sock, (address, port))
            connected = True
            await loop.sock_sendall(sock, b"?")
            line = await loop.sock_recv(sock, 256)
        except OSError as error:
            return await _judged(error)
        except asyncio.CancelledError:
            if connected:
                return Refused("connected, but not a byte came back")
            raise
    if not line:
        return Refused("connected, and closed without an answer")
    return Answered(0.0, _seen(line), line.decode(errors="replace").split()[0])


async def _udp(namespace: str, address: str, port: int) -> Outcome:
    loop = asyncio.get_running_loop()
    with _socket(namespace, address, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, port))
            await loop.sock_sendall(sock, b"?")
            return Answered(0.0, _seen(await loop.sock_recv(sock, 256)))
        except OSError as error:
            return await _judged(error)


async def _sctp(namespace: str, address: str, port: int) -> Outcome:
    """The source port is any high one; the tag makes the answer ours."""
    loop = asyncio.get_running_loop()
    asked = sctp.Init(source=32768 + int.from_bytes(os.urandom(2)) // 2, destination=port, tag=_tag())
    aborted = False
    with _socket(namespace, address, socket.SOCK_RAW, sctp.PROTOCOL) as sock:
        try:
            sock.connect((address, 0))
            await loop.sock_sendall(sock, sctp.init(asked))
            while True:
                packet = await loop.sock_recv(sock, 2048)
                answer = sctp.read(sctp.payload(packet) if _version(address) == 4 else packet)
                if isinstance(answer, sctp.InitAck) and answer.tag == asked.tag:
                    return Answered(0.0, _seen(answer.cookie))
                aborted = aborted or (isinstance(answer, sctp.Abort) and answer.tag == asked.tag)
        except OSError as error:
            return await _judged(error)
        except asyncio.CancelledError:
            if aborted:
                return Refused("the association was aborted")
            raise


def _tag() -> int:
    return int.from_bytes(os.urandom(4)) or 1


def _seen(line: bytes) -> str:
    """The address in an answer of `listeners`: the last word but one."""
    words = line.decode(errors="replace").split()
    return words[-2] if len(words) >= 2 else ""


async def _icmp(namespace: str, address: str, port: int) -> Outcome:
    """RFC 792, RFC 4443. The kernel hands a raw socket every ICMP packet from the peer, so the answer is known by an
    identifier of its own, and fills in the ICMPv6 checksum itself."""
    loop = asyncio.get_running_loop()
    version = _version(address)
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    identity = os.urandom(4)
    echo = struct.pack("!BBH4s", _ICMP_ECHO[version], 0, 0, identity) + b"tortie lab"
    if version == 4:
        echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    with _socket(namespace, address, socket.SOCK_RAW, protocol) as sock:
        try:
            sock.connect((address, 0))
            await loop.sock_sendall(sock, echo)
            while True:
                packet = await loop.sock_recv(sock, 2048)
                reply = packet[(packet[0] & 0x0F) * 4 :] if version == 4 else packet
                if len(reply) >= 8 and reply[0] == _ICMP_ECHO_REPLY[version] and reply[4:8] == identity:
                    return Answered(0.0)
        except OSError as error:
            return await _judged(error)


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


_ATTEMPTS = {"tcp": _tcp, "udp": _udp, "sctp": _sctp, "icmp": _icmp}
