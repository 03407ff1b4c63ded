"""What a packet looks like on a node's uplink: plain, in VXLAN, in IP, or in WireGuard.

A packet socket sees every frame, whatever the routes and the filters say; `classify` finds the traffic between two
addresses in a frame, whether it lies bare or inside a tunnel. Nobody can see whose traffic is in a WireGuard packet:
there the form says only that something is. Sources: packet(7), RFC 7348, RFC 2003, WireGuard's paper.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tortie import netns

_ETH_IPV4 = 0x0800
_ETH_IPV6 = 0x86DD
_ETH_ALL = 3
_IPIP = 4
_UDP = 17
_WIREGUARD_DATA = b"\x04\0\0\0"
"""Of a message that carries a packet; of one that carries nothing (a keepalive) only the length is different."""


def classify(frame: bytes, one: str, other: str) -> str | None:
    """`plain`, `vxlan/<port>` or `ipip` when the Ethernet frame carries a packet between the two addresses, and
    `wireguard/<port>` when it may."""
    ends = {ipaddress.ip_address(one).packed, ipaddress.ip_address(other).packed}
    outer = _packet(frame)
    if outer is None:
        return None
    source, destination, protocol, payload = outer
    if {source, destination} == ends:
        return "plain"
    if protocol == _IPIP:
        inner = _ipv4(payload)
        return "ipip" if inner is not None and {inner[0], inner[1]} == ends else None
    if protocol == _UDP and len(payload) > 16 and payload[8] & 0x08:
        inner = _packet(payload[16:])
        if inner is not None and {inner[0], inner[1]} == ends:
            return f"vxlan/{int.from_bytes(payload[2:4], 'big')}"
    if protocol == _UDP and payload[8:12] == _WIREGUARD_DATA and not len(payload) % 16 - 8 and len(payload) > 40:
        return f"wireguard/{int.from_bytes(payload[2:4], 'big')}"
    return None


_Packet = tuple[bytes, bytes, int, bytes]
"""Source, destination, protocol, payload."""


def _packet(frame: bytes) -> _Packet | None:
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _ETH_IPV4:
        return _ipv4(frame[14:])
    if kind == _ETH_IPV6 and len(frame) >= 54:
        packet = frame[14:]
        return packet[8:24], packet[24:40], packet[6], packet[40:]
    return None


def _ipv4(packet: bytes) -> _Packet | None:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    return packet[12:16], packet[16:20], packet[9], packet[(packet[0] & 0x0F) * 4 :]


class Capture:
    """The forms in which traffic between two addresses was seen so far."""

    def __init__(self, sock: socket.socket, one: str, other: str) -> None:
        self._sock = sock
        self._ends = (one, other)
        self.seen: set[str] = set()

    def read(self) -> None:
        """Takes in every frame that has arrived."""
        while True:
            try:
                frame = self._sock.recv(65535)
            except BlockingIOError:
                return
            form = classify(frame, *self._ends)
            if form is not None:
                self.seen.add(form)


@asynccontextmanager
async def capture(namespace: str, device: str, one: str, other: str) -> AsyncIterator[Capture]:
    """Frames on the device while the body runs, both directions."""
    loop = asyncio.get_running_loop()
    with netns.inside(namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_ALL))
    with sock:
        sock.bind((device, _ETH_ALL))
        what = Capture(sock, one, other)
        loop.add_reader(sock, what.read)
        try:
            yield what
        finally:
            loop.remove_reader(sock)
            what.read()
