"""What the kernel says it holds, as the rows that drivers compare with what they want. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

from services.node_dataplane.netlink import rtnl
from services.node_dataplane.netlink.framing import attributes

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_I32 = struct.Struct("=i")


class Vxlan(NamedTuple):
    vni: int
    port: int
    local: bytes
    underlay: int
    learning: bool


class Link(NamedTuple):
    device: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    running: bool
    """Up, and the kernel has announced the carrier: packets pass."""
    peer: int
    """Device number of the other end of a veth, in the namespace where that one is; 0 when it has none."""
    kind: str
    group: int
    vxlan: Vxlan | None = None
    alias: str = ""
    master: int = 0
    """Device number of the bridge (or bond ...) that it is a port of; 0: none."""
    peer_netnsid: int = -1
    """The number by which this namespace knows that of the other end of a veth; -1: the same one, or no veth."""


class Address(NamedTuple):
    device: int
    packed: bytes
    prefix: int
    flags: int = 0
    """IFA_F_*, of linux/if_addr.h."""


_IPV6_METRIC = 1024
"""Of an IPv6 route that asks for none (IP6_RT_PRIO_USER)."""


class Route(NamedTuple):
    destination: bytes
    prefix: int
    device: int
    gateway: bytes | None
    onlink: bool
    blackhole: bool
    protocol: int
    metric: int
    """0: what the kernel gives to a route that asks for none."""
    table: int = rtnl.RT_TABLE_MAIN


class Neighbour(NamedTuple):
    device: int
    packed: bytes
    """The address; of a forwarding entry the remote node's."""
    mac: bytes
    permanent: bool


def _u32(payload: bytes) -> int:
    return int(struct.unpack("=I", payload)[0])


def link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = dict(attributes(body[16:]))
    kind, vxlan = "", None
    if rtnl.IFLA_LINKINFO in found:
        info = dict(attributes(found[rtnl.IFLA_LINKINFO]))
        kind = info.get(rtnl.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
        if kind == "vxlan" and rtnl.IFLA_INFO_DATA in info:
            data = dict(attributes(info[rtnl.IFLA_INFO_DATA]))
            vxlan = Vxlan(
                _u32(data[rtnl.IFLA_VXLAN_ID]),
                int.from_bytes(data[rtnl.IFLA_VXLAN_PORT], "big"),
                data.get(rtnl.IFLA_VXLAN_LOCAL) or data.get(rtnl.IFLA_VXLAN_LOCAL6) or b"",
                _u32(data[rtnl.IFLA_VXLAN_LINK]) if rtnl.IFLA_VXLAN_LINK in data else 0,
                bool(data.get(rtnl.IFLA_VXLAN_LEARNING, b"\0")[0]),
            )
    return Link(
        device=index,
        name=found[rtnl.IFLA_IFNAME].rstrip(b"\0").decode(),
        mac=found.get(rtnl.IFLA_ADDRESS, b""),
        mtu=_u32(found[rtnl.IFLA_MTU]) if rtnl.IFLA_MTU in found else 0,
        up=bool(flags & rtnl.IFF_UP),
        running=bool(flags & rtnl.IFF_RUNNING),
        peer=_u32(found[rtnl.IFLA_LINK]) if rtnl.IFLA_LINK in found else 0,
        kind=kind,
        group=_u32(found[rtnl.IFLA_GROUP]) if rtnl.IFLA_GROUP in found else 0,
        vxlan=vxlan,
        alias=found.get(rtnl.IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        master=_u32(found[rtnl.IFLA_MASTER]) if rtnl.IFLA_MASTER in found else 0,
        peer_netnsid=_I32.unpack(found[rtnl.IFLA_LINK_NETNSID])[0] if rtnl.IFLA_LINK_NETNSID in found else -1,
    )


def address(body: bytes) -> Address:
    _, prefix, flags, _, index = _ADDRESS.unpack_from(body)
    found = dict(attributes(body[8:]))
    if rtnl.IFA_FLAGS in found:
        flags = _u32(found[rtnl.IFA_FLAGS])
    return Address(index, found.get(rtnl.IFA_LOCAL) or found.get(rtnl.IFA_ADDRESS) or b"", prefix, flags)


def route(body: bytes) -> Route:
    family, prefix, _, _, table, protocol, _, kind, flags = _ROUTE.unpack_from(body)
    found = dict(attributes(body[12:]))
    blackhole = kind == rtnl.RTN_BLACKHOLE
    metric = _u32(found[rtnl.RTA_PRIORITY]) if rtnl.RTA_PRIORITY in found else 0
    return Route(
        destination=found.get(rtnl.RTA_DST, bytes(4 if family == rtnl.AF_INET else 16)),
        prefix=prefix,
        # IPv6 hangs its blackholes on the loopback link, which nobody asked for.
        device=_u32(found[rtnl.RTA_OIF]) if rtnl.RTA_OIF in found and not blackhole else 0,
        gateway=found.get(rtnl.RTA_GATEWAY),
        onlink=bool(flags & rtnl.RTNH_F_ONLINK),
        blackhole=blackhole,
        protocol=protocol,
        metric=0 if family == rtnl.AF_INET6 and metric == _IPV6_METRIC else metric,
        table=_u32(found[rtnl.RTA_TABLE]) if rtnl.RTA_TABLE in found else table,
    )


def neighbour(body: bytes) -> Neighbour:
    _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    found = dict(attributes(body[12:]))
    return Neighbour(
        index, found.get(rtnl.NDA_DST, b""), found.get(rtnl.NDA_LLADDR, b""), bool(state & rtnl.NUD_PERMANENT)
    )
