"""WireGuard's generic netlink, as bytes: pure, one function per request, one reader.

Numbers are those of linux/wireguard.h and linux/genetlink.h. Set requests change what they name and leave the rest;
a device is set up with `device`, each peer with a `peer` of its own, so a request never outgrows an attribute (64 KiB).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from services.node_dataplane.netlink import rtnl
from services.node_dataplane.netlink.framing import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    attributes,
    message,
)

NAME = "wireguard"
ALLOWED_AT_ONCE = 1000
"""Networks in one request."""

_CONTROL = 0x10
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_GET_DEVICE, _SET_DEVICE = 0, 1
_IFINDEX, _PRIVATE_KEY, _PUBLIC_KEY, _LISTEN_PORT, _PEERS = 1, 3, 4, 6, 8
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEP_ALIVE, _PEER_HANDSHAKE, _PEER_ALLOWED = 1, 3, 4, 5, 6, 9
_REMOVE_ME, _REPLACE_ALLOWED = 1, 2
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_PREFIX = 1, 2, 3

_HEADER = struct.Struct("=BBH")
_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")
_TIME = struct.Struct("=qq")

Network = tuple[bytes, int]
"""Packed address and prefix length."""


class Peer(NamedTuple):
    key: bytes
    endpoint: bytes
    """Packed address; empty: none is known."""
    port: int
    keep_alive_s: int
    allowed: Set[Network]
    handshake: int = 0
    """Unix time in seconds of the last one; 0: there was none yet."""


class Device(NamedTuple):
    private_key: bytes
    """Empty: it has none."""
    public_key: bytes
    port: int
    peers: dict[bytes, Peer]


def family_request() -> bytes:
    body = _HEADER.pack(_GET_FAMILY, 1, 0) + attribute(_FAMILY_NAME, NAME.encode() + b"\0")
    return message(_CONTROL, NLM_F_REQUEST, body)


def family(body: bytes) -> int:
    """The number by which the kernel knows WireGuard's requests."""
    return int(_U16.unpack(dict(attributes(body[_HEADER.size :]))[_FAMILY_ID])[0])


def device_dump(family: int, index: int) -> bytes:
    body = _HEADER.pack(_GET_DEVICE, 1, 0) + attribute(_IFINDEX, _U32.pack(index))
    return message(family, NLM_F_REQUEST | NLM_F_DUMP, body)


def device(bodies: Iterable[bytes]) -> Device:
    """From a dump: a device with many peers, and a peer with many networks, come in several pieces."""
    private_key, public_key, port = b"", b"", 0
    peers: dict[bytes, Peer] = {}
    for body in bodies:
        found = dict(attributes(body[_HEADER.size :]))
        private_key = found.get(_PRIVATE_KEY, private_key)
        public_key = found.get(_PUBLIC_KEY, public_key)
        port = _U16.unpack(found[_LISTEN_PORT])[0] if _LISTEN_PORT in found else port
        for _, payload in attributes(found.get(_PEERS, b"")):
            peer = _peer(payload)
            before = peers.get(peer.key)
            peers[peer.key] = before._replace(allowed=before.allowed | peer.allowed) if before else peer
    return Device(private_key, public_key, port, peers)


def _peer(payload: bytes) -> Peer:
    found = dict(attributes(payload))
    endpoint, port = _read_endpoint(found.get(_PEER_ENDPOINT, b""))
    allowed = set()
    for _, network in attributes(found.get(_PEER_ALLOWED, b"")):
        parts = dict(attributes(network))
        allowed.add((parts[_ALLOWED_ADDRESS], parts[_ALLOWED_PREFIX][0]))
    return Peer(
        found[_PEER_KEY],
        endpoint,
        port,
        _U16.unpack(found[_PEER_KEEP_ALIVE])[0] if _PEER_KEEP_ALIVE in found else 0,
        frozenset(allowed),
        _TIME.unpack(found[_PEER_HANDSHAKE])[0] if _PEER_HANDSHAKE in found else 0,
    )


def device_set(family: int, index: int, *, private_key: bytes = b"", port: int = 0) -> bytes:
    """Change what is given."""
    parts = attribute(_PRIVATE_KEY, private_key) if private_key else b""
    parts += attribute(_LISTEN_PORT, _U16.pack(port)) if port else b""
    return _set(family, index, parts)


def peer_set(family: int, index: int, peer: Peer, *, replace: bool) -> list[bytes]:
    """Add the peer or change it; `replace`: it shall have no networks but these. An empty endpoint leaves it as it is.

    A network that another peer has moves."""
    ordered = sorted(peer.allowed)
    requests = []
    for start in range(0, max(len(ordered), 1), ALLOWED_AT_ONCE):
        parts = [attribute(_PEER_KEY, peer.key)]
        if replace and not start:
            parts.append(attribute(_PEER_FLAGS, _U32.pack(_REPLACE_ALLOWED)))
        if peer.endpoint:
            parts.append(attribute(_PEER_ENDPOINT, _endpoint(peer.endpoint, peer.port)))
        parts.append(attribute(_PEER_KEEP_ALIVE, _U16.pack(peer.keep_alive_s)))
        parts.append(_allowed(ordered[start : start + ALLOWED_AT_ONCE]))
        requests.append(_set(family, index, _peers(b"".join(parts))))
    return requests


def peer_remove(family: int, index: int, key: bytes) -> bytes:
    parts = attribute(_PEER_KEY, key) + attribute(_PEER_FLAGS, _U32.pack(_REMOVE_ME))
    return _set(family, index, _peers(parts))


def _set(family: int, index: int, parts: bytes) -> bytes:
    body = _HEADER.pack(_SET_DEVICE, 1, 0) + attribute(_IFINDEX, _U32.pack(index)) + parts
    return message(family, NLM_F_REQUEST | NLM_F_ACK, body)


def _peers(parts: bytes) -> bytes:
    return attribute(_PEERS | NLA_F_NESTED, attribute(NLA_F_NESTED, parts))


def _allowed(networks: Sequence[Network]) -> bytes:
    entries = (
        attribute(_ALLOWED_FAMILY, _U16.pack(rtnl.AF_INET if len(packed) == 4 else rtnl.AF_INET6))
        + attribute(_ALLOWED_ADDRESS, packed)
        + attribute(_ALLOWED_PREFIX, bytes([prefix]))
        for packed, prefix in networks
    )
    return attribute(_PEER_ALLOWED | NLA_F_NESTED, b"".join(attribute(NLA_F_NESTED, entry) for entry in entries))


def _endpoint(packed: bytes, port: int) -> bytes:
    """A sockaddr_in or sockaddr_in6."""
    if len(packed) == 4:
        return struct.pack("=H", rtnl.AF_INET) + struct.pack("!H", port) + packed + bytes(8)
    return struct.pack("=H", rtnl.AF_INET6) + struct.pack("!HI", port, 0) + packed + bytes(4)


def _read_endpoint(sockaddr: bytes) -> tuple[bytes, int]:
    if len(sockaddr) < 16:
        return b"", 0
    (kind,) = _U16.unpack_from(sockaddr)
    (port,) = struct.unpack_from("!H", sockaddr, 2)
    return (sockaddr[4:8] if kind == rtnl.AF_INET else sockaddr[8:24]), port
