"""What answers in a pod: every connection and every datagram is told who it seems to come from.

The answer is one line that ends in `<address> <port>`: the source as this end sees it, which shows natOutgoing at work.
In front of it a connection of TCP is told the address at which it came: which endpoint of a service that is. All
listeners of all pods live in one event loop.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from tortie import netns
from tortie.lab import sctp
from tortie.lab.errors import CannotDo

Port = tuple[str, int]
"""("tcp", 80)."""


class Listeners:
    """The open ports of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._open: dict[Port, asyncio.Server | asyncio.DatagramTransport | _SctpPorts] = {}
        self._sctp: _SctpPorts | None = None

    @property
    def ports(self) -> list[Port]:
        return list(self._open)

    async def open(self, protocol: str, port: int) -> None:
        """An open port stays as it is. Raises CannotDo."""
        if (protocol, port) in self._open:
            return
        try:
            with netns.inside(self._namespace):
                if protocol == "sctp":
                    self._open[protocol, port] = self._sctp = self._sctp or _SctpPorts()
                    self._sctp.add(port)
                    return
                sock = _bound(protocol, port)
        except OSError as error:
            raise CannotDo(f"cannot listen on {protocol}/{port} in {self._namespace}: {error}") from error
        if protocol == "tcp":
            server = await asyncio.start_server(_answer, sock=sock)
            self._open[protocol, port] = server
        else:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(_Datagrams, sock=sock)
            self._open[protocol, port] = transport

    def close(self) -> None:
        for listener in self._open.values():
            listener.close()
        self._open.clear()
        self._sctp = None


def _bound(protocol: str, port: int) -> socket.socket:
    """A socket for both families, or for IPv4 where the kernel has no IPv6."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("", port))
    except BaseException:
        sock.close()
        raise
    return sock


def _line(peer: tuple[Any, ...]) -> bytes:
    return f"{str(peer[0]).removeprefix('::ffff:')} {peer[1]}\n".encode()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request byte, one line. A peer that resets the connection is a peer that has its answer."""
    try:
        peer = writer.get_extra_info("peername")
        if peer is not None and await reader.read(1):
            own = str(writer.get_extra_info("sockname")[0]).removeprefix("::ffff:")
            writer.write(own.encode() + b" " + _line(peer))
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """Answers a datagram with its own text (so that a late answer is told from an early one) and the line."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._transport.sendto(data + b" " + _line(addr), addr)


class _SctpPorts:
    """Answers an INIT to one of its ports with the line, to any other with an ABORT: one raw socket for each family
    sees them all. (A namespace without it answers with ICMP, for the kernel knows no SCTP there.)"""

    def __init__(self) -> None:
        """Opens in the namespace of the calling thread. Raises OSError."""
        self._ports: set[int] = set()
        self._sockets: list[socket.socket] = []
        families = (socket.AF_INET, socket.AF_INET6) if socket.has_dualstack_ipv6() else (socket.AF_INET,)
        for family in families:
            sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, sctp.PROTOCOL)
            self._sockets.append(sock)
            asyncio.get_running_loop().add_reader(sock, self._read, sock)

    def add(self, port: int) -> None:
        self._ports.add(port)

    def _read(self, sock: socket.socket) -> None:
        packet, peer = sock.recvfrom(2048)
        asked = sctp.read(sctp.payload(packet) if sock.family == socket.AF_INET else packet)
        if isinstance(asked, sctp.Init):
            listening = asked.destination in self._ports
            line = _line((peer[0], asked.source))
            sock.sendto(sctp.init_ack(asked, line) if listening else sctp.abort(asked), (peer[0], 0))

    def close(self) -> None:
        """May be called more than once: its ports share it."""
        while self._sockets:
            sock = self._sockets.pop()
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
