"""Tries out whether this kernel spoils the checksum of a tunnelled packet that it masquerades (`checksums` says when).

In a network namespace that exists for some milliseconds, with the node's own kernel, a datagram goes into a VXLAN
device whose outer packet is then given another source:

    datagram -> vxlan -> out0 (snat) ==veth== in0 -> a packet socket: the outer UDP checksum must be right, or none

What a network card does with the packet afterwards cannot be seen from here, and is not claimed.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from ipaddress import ip_address

from services.node_dataplane import offload
from services.node_dataplane.checksums import Trial
from services.node_dataplane.errors import NodeError
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.nft.errors import NftError, NftUnavailable
from services.node_dataplane.nft.libnftables import Libnftables
from services.node_dataplane.tunnelled_checksum import outer_checksum, outer_is_right

PORT = 4789
PATIENCE_S = 1.0
_CLONE_NEWNET = 0x40000000
_ETH_P_IP = 0x0800
_US, _PEER, _SNAT = (ip_address(text).packed for text in ("192.0.2.1", "192.0.2.2", "192.0.2.9"))
"""Outer addresses; all of TEST-NET-1."""
_INNER_US, _INNER_PEER = (ip_address(text).packed for text in ("198.51.100.1", "198.51.100.2"))
_PEER_MAC, _VTEP_MAC, _PEER_VTEP_MAC = (bytes.fromhex(f"0200000000{n:02x}") for n in (2, 3, 4))
_RULES = """
table ip trial {
    chain out {
        type nat hook postrouting priority 100
        udp dport 4789 snat to 192.0.2.9
    }
}
"""


class TrialFailed(NodeError):
    """The trial came to no end; the text says why."""


def trial(*, leave_to_device: bool = True, outer_checksum: bool | None = None) -> Trial:
    """Of a device as `overlay` makes it, or (to see that the trial can tell) one whose outer packets have checksums, or
    that leaves nothing to the hardware.

    Blocks for some tens of milliseconds, at most a second and a half; in a thread of its own, as it changes the
    thread's namespace."""
    found: list[Trial] = []

    def run() -> None:
        try:
            found.append(_judged(_masqueraded(leave_to_device, outer_checksum)))
        except (OSError, NftError, NftUnavailable, TrialFailed) as error:
            found.append(Trial(None, f"it could not be tried out on this machine: {error}"))

    thread = threading.Thread(target=run, name="offload-trial")
    thread.start()
    thread.join()
    return found[0]


def _judged(packet: bytes) -> Trial:
    if outer_is_right(packet):
        return Trial(False, "tried out: this kernel gets a tunnelled packet that it masquerades right")
    return Trial(
        True,
        f"tried out: this kernel writes a wrong checksum (0x{outer_checksum(packet):04x}) into the outer header of a "
        "tunnelled packet that it masquerades",
    )


def _masqueraded(leave_to_device: bool, outer_checksum: bool | None) -> bytes:
    """The packet as it leaves, from its outer IPv4 header on. Raises OSError, NftError, TrialFailed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"a network namespace: {os.strerror(number)}")
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    kernel = NetlinkSocket(NETLINK_ROUTE)
    try:
        _build(kernel, here, outer_checksum)
        offload.switch("out0", on=False)  # The last one computes what is still missing, so that it can be read.
        offload.switch("vx0", on=leave_to_device)
        with (
            Libnftables() as nft,
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP)) as wire,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            nft.run(_RULES)
            wire.bind(("in0", _ETH_P_IP))
            sender.sendto(b"is this still right?", (str(ip_address(_INNER_PEER)), 9))
            return _read(wire)
    finally:
        kernel.close()
        os.close(here)


def _build(kernel: NetlinkSocket, here: int, outer_checksum: bool | None) -> None:
    kernel.execute(
        [
            rtnl.veth(
                *("out0", bytes.fromhex("020000000001"), 1500),
                group=0,
                peer_name="in0",
                peer_mac=_PEER_MAC,
                peer_index=0,
                peer_netns_fd=here,
            )
        ],
        "make a veth pair",
    )
    out, far = _index(kernel, "out0"), _index(kernel, "in0")
    kernel.execute(
        [
            rtnl.link_change(far, up=True),
            rtnl.link_change(out, up=True),
            rtnl.address(out, _US, 24),
            rtnl.neighbour(out, _PEER, _PEER_MAC),
            rtnl.vxlan(
                *("vx0", _VTEP_MAC, 1450),
                vni=1,
                port=PORT,
                local=_US,
                underlay=out,
                outer_checksum=outer_checksum,
            ),
        ],
        "make a tunnel",
    )
    tunnel = _index(kernel, "vx0")
    kernel.execute(
        [
            rtnl.address(tunnel, _INNER_US, 24),
            rtnl.neighbour(tunnel, _INNER_PEER, _PEER_VTEP_MAC),
            rtnl.forwarding(tunnel, _PEER_VTEP_MAC, _PEER),
        ],
        "set up a tunnel",
    )


def _index(kernel: NetlinkSocket, name: str) -> int:
    row = kernel.get(rtnl.link_get(name))
    if row is None:
        raise TrialFailed(f"{name} was made and is not there")
    return readback.link(row[1]).device


def _read(wire: socket.socket) -> bytes:
    until = time.monotonic() + PATIENCE_S
    while (left := until - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            packet = wire.recv(2048)
        except TimeoutError:
            break
        head = (packet[0] & 0x0F) * 4
        if packet[9] != socket.IPPROTO_UDP or len(packet) < head + 8:
            continue
        if struct.unpack_from("!H", packet, head + 2)[0] != PORT:
            continue
        if packet[12:16] != _SNAT:
            raise TrialFailed("the packet was not given another source")
        return packet
    raise TrialFailed("no tunnelled packet was seen")
