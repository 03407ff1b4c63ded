"""rtnetlink requests as bytes: pure, one function per thing that the node does to its kernel.

Numbers are those of the kernel's uapi headers (linux/rtnetlink.h, if_link.h, neighbour.h). Every function returns one
complete request for `NetlinkSocket.transact`; addresses come packed, devices by index. Proved by reading back what the
kernel holds, in tests/kernel/test_rtnl.py.
"""

from __future__ import annotations

import struct
from typing import Literal

from services.node_dataplane.netlink.framing import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    attribute,
    message,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10
IFF_UP, IFF_RUNNING = 0x1, 0x40

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO = 1, 3, 4, 5, 18
IFLA_IFALIAS, IFLA_GROUP, IFLA_NET_NS_FD = 20, 27, 28
IFLA_MASTER, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 10, 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 3, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_UDP_CSUM = 15, 17, 18

IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_TARGET_NETNSID = 1, 2, 8, 10
_IFA_F_NODAD = 0x02
IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RT_TABLE_MAIN = 254
RTN_UNICAST, RTN_BLACKHOLE = 1, 6
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTNH_F_ONLINK = 4
PROTOCOL = 84
"""rtm_protocol of every route that is ours; nobody else's number in iproute2's rt_protos."""

NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
_NTF_SELF = 0x02

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_IPV4_VIA = struct.Struct("=IHHII BBBBBBBBI HH4s HHI HH4s".replace(" ", ""))
"""nlmsghdr, rtmsg, and the attributes destination, device, gateway."""
_NEIGHBOUR = struct.Struct("=BxxxiHBB")

_SET = NLM_F_REQUEST | NLM_F_ACK
_NEW = _SET | NLM_F_CREATE | NLM_F_EXCL
_PUT = _SET | NLM_F_CREATE | NLM_F_REPLACE
_FIRST = _SET | NLM_F_CREATE

Presence = Literal["new", "put", "first"]
"""`new`: refused with EEXIST when something of that key is there; `put`: replaces it; `first`: goes before it."""
_PRESENCES: dict[Presence, int] = {"new": _NEW, "put": _PUT, "first": _FIRST}


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def hardware(address: str) -> bytes:
    """`ee:ee:...` as six bytes."""
    return bytes.fromhex(address.replace(":", ""))


def _nested(type_: int, *inner: bytes) -> bytes:
    return attribute(type_ | NLA_F_NESTED, b"".join(inner))


# --- links


def veth(
    name: str,
    mac: bytes,
    mtu: int,
    *,
    group: int,
    peer_name: str,
    peer_mac: bytes | None,
    peer_index: int,
    peer_netns_fd: int,
) -> bytes:
    """Create a pair; the peer is born inside the namespace of `peer_netns_fd` under its final name.

    Both ends are down: a create with IFF_UP fails, as the peer is not there yet. `peer_index` 0: any."""
    peer = _LINK.pack(AF_UNSPEC, 0, peer_index, 0, 0) + b"".join(
        (
            attribute(IFLA_IFNAME, text(peer_name)),
            attribute(IFLA_MTU, u32(mtu)),
            attribute(IFLA_NET_NS_FD, u32(peer_netns_fd)),
            attribute(IFLA_ADDRESS, peer_mac) if peer_mac else b"",
        )
    )
    body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + b"".join(
        (
            attribute(IFLA_IFNAME, text(name)),
            attribute(IFLA_ADDRESS, mac),
            attribute(IFLA_MTU, u32(mtu)),
            attribute(IFLA_GROUP, u32(group)),
            _nested(
                IFLA_LINKINFO,
                attribute(IFLA_INFO_KIND, b"veth"),
                _nested(IFLA_INFO_DATA, _nested(_VETH_INFO_PEER, peer)),
            ),
        )
    )
    return message(RTM_NEWLINK, _NEW, body)


def vxlan(
    name: str,
    mac: bytes,
    mtu: int,
    *,
    vni: int,
    port: int,
    local: bytes,
    underlay: int,
    outer_checksum: bool | None = None,
) -> bytes:
    """Create a VXLAN device that learns nothing: peers come as forwarding entries only. Up at once.

    `outer_checksum`: whether the outer UDP header has one. None: where it must, over IPv6 (RFC 8200); over IPv4 a
    kernel that masquerades such a packet gets it wrong (`offload_trial`)."""
    checksum = len(local) == 16 if outer_checksum is None else outer_checksum
    body = _LINK.pack(AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + b"".join(
        (
            attribute(IFLA_IFNAME, text(name)),
            attribute(IFLA_ADDRESS, mac),
            attribute(IFLA_MTU, u32(mtu)),
            _nested(
                IFLA_LINKINFO,
                attribute(IFLA_INFO_KIND, b"vxlan"),
                _nested(
                    IFLA_INFO_DATA,
                    attribute(IFLA_VXLAN_ID, u32(vni)),
                    attribute(IFLA_VXLAN_LINK, u32(underlay)),
                    attribute(IFLA_VXLAN_LOCAL if len(local) == 4 else IFLA_VXLAN_LOCAL6, local),
                    attribute(IFLA_VXLAN_LEARNING, b"\0"),
                    attribute(IFLA_VXLAN_PORT, struct.pack(">H", port)),
                    attribute(IFLA_VXLAN_UDP_CSUM, bytes([checksum])),
                ),
            ),
        )
    )
    return message(RTM_NEWLINK, _NEW, body)


def vxlan_move(index: int, local: bytes, underlay: int) -> bytes:
    """Give a VXLAN device another local address of the same family and another device below; what is on it stays."""
    body = _LINK.pack(AF_UNSPEC, 0, index, 0, 0) + _nested(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, b"vxlan"),
        _nested(
            IFLA_INFO_DATA,
            attribute(IFLA_VXLAN_LINK, u32(underlay)),
            attribute(IFLA_VXLAN_LOCAL if len(local) == 4 else IFLA_VXLAN_LOCAL6, local),
        ),
    )
    return message(RTM_NEWLINK, _SET, body)


def link_add(name: str, kind: str, *, mtu: int) -> bytes:
    """Create a device of a kind that needs no more words. It is down."""
    body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + b"".join(
        (
            attribute(IFLA_IFNAME, text(name)),
            attribute(IFLA_MTU, u32(mtu)),
            _nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode())),
        )
    )
    return message(RTM_NEWLINK, _NEW, body)


def link_change(
    index: int, *, up: bool | None = None, mtu: int = 0, mac: bytes = b"", alias: str | None = None
) -> bytes:
    """Change what is given of an existing link; the alias `` is none."""
    body = _LINK.pack(AF_UNSPEC, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)
    body += (attribute(IFLA_MTU, u32(mtu)) if mtu else b"") + (attribute(IFLA_ADDRESS, mac) if mac else b"")
    body += b"" if alias is None else attribute(IFLA_IFALIAS, alias.encode())
    return message(RTM_NEWLINK, _SET, body)


def link_group(name: str, group: int) -> bytes:
    """Put a link into a group of devices: refused with ENODEV when there is no such link."""
    body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_IFNAME, text(name)) + attribute(IFLA_GROUP, u32(group))
    return message(RTM_SETLINK, _SET, body)


def links_delete(group: int) -> bytes:
    """Delete every link of a group in one grace period of the kernel, where one by one each takes its own 20 ms."""
    return message(RTM_DELLINK, _SET, _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_GROUP, u32(group)))


def link_delete(index: int) -> bytes:
    return message(RTM_DELLINK, _SET, _LINK.pack(AF_UNSPEC, 0, index, 0, 0))


def link_get(name: str) -> bytes:
    body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_IFNAME, text(name))
    return message(RTM_GETLINK, NLM_F_REQUEST, body)


def link_get_index(index: int, *, netnsid: int | None = None) -> bytes:
    """`netnsid`: in the namespace that this number stands for in ours (as in `readback.Link.peer_netnsid`)."""
    body = _LINK.pack(AF_UNSPEC, 0, index, 0, 0)
    body += b"" if netnsid is None else attribute(IFLA_TARGET_NETNSID, u32(netnsid))
    return message(RTM_GETLINK, NLM_F_REQUEST, body)


def links_dump() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, _LINK.pack(AF_UNSPEC, 0, 0, 0, 0))


# --- addresses


def address(index: int, packed: bytes, prefix: int, *, remove: bool = False) -> bytes:
    """A global address on a link; IPv6 without duplicate address detection, so it is usable at once."""
    family, flags = (AF_INET, 0) if len(packed) == 4 else (AF_INET6, _IFA_F_NODAD)
    body = _ADDRESS.pack(family, prefix, flags, RT_SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if remove:
        return message(RTM_DELADDR, _SET, body)
    return message(RTM_NEWADDR, _PUT, body)


def addresses_dump(family: int = AF_UNSPEC, index: int = 0, *, netnsid: int | None = None) -> bytes:
    """`netnsid` as with `link_get_index`."""
    body = _ADDRESS.pack(family, 0, 0, 0, index)
    body += b"" if netnsid is None else attribute(IFA_TARGET_NETNSID, u32(netnsid))
    return message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, body)


# --- routes


def route(
    destination: bytes,
    prefix: int,
    *,
    index: int = 0,
    gateway: bytes | None = None,
    onlink: bool = False,
    blackhole: bool = False,
    metric: int = 0,
    protocol: int = PROTOCOL,
    presence: Presence = "new",
    acknowledge: bool = True,
) -> bytes:
    """A route of the main table. Without a gateway it has scope link; `blackhole` has neither link nor gateway.
    `metric` 0: the kernel's own, 0 or, for IPv6, 1024. Of `presence`, `first` makes an
    IPv6 route share packets with one of the same metric; where the very same route is there it is refused, as `new`."""
    return _route(
        RTM_NEWROUTE,
        _PRESENCES[presence],
        (destination, prefix, index, gateway, onlink, blackhole, metric, protocol),
        acknowledge,
    )


def route_via(
    destination: bytes, prefix: int, index: int, gateway: bytes, *, onlink: bool, presence: Presence
) -> bytes:
    """The `route` that comes by the thousand, of the same bytes in a single call: IPv4, by a gateway, of metric 0, and
    not acknowledged. `prefix` is not 0."""
    return _IPV4_VIA.pack(
        _IPV4_VIA.size,
        RTM_NEWROUTE,
        _PRESENCES[presence] & ~NLM_F_ACK,
        *(0, 0, AF_INET, prefix, 0, 0, RT_TABLE_MAIN, PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST),
        *(RTNH_F_ONLINK if onlink else 0, 8, RTA_DST, destination, 8, RTA_OIF, index, 8, RTA_GATEWAY, gateway),
    )


def route_delete(
    destination: bytes,
    prefix: int,
    *,
    index: int = 0,
    gateway: bytes | None = None,
    blackhole: bool = False,
    metric: int = 0,
    exact: bool = False,
    acknowledge: bool = True,
) -> bytes:
    """Delete a route of ours: the protocol is part of what must match, so nobody else's can go. `metric` 0: the most
    preferred one. `exact`: of an IPv4 route without gateway, too, only one without. An IPv6 route with a gateway must
    be named by it: without, the kernel takes everything away that shares packets with it, whoever's that is."""
    what = (destination, prefix, index, gateway, False, blackhole, metric, PROTOCOL)
    return _route(RTM_DELROUTE, _SET, what, acknowledge, exact=exact)


def _route(
    type_: int,
    flags: int,
    what: tuple[bytes, int, int, bytes | None, bool, bool, int, int],
    acknowledge: bool,
    *,
    exact: bool = True,
) -> bytes:
    destination, prefix, index, gateway, onlink, blackhole, metric, protocol = what
    family = AF_INET if len(destination) == 4 else AF_INET6
    if not exact:
        scope = RT_SCOPE_NOWHERE
    elif gateway is not None or blackhole or family == AF_INET6:
        scope = RT_SCOPE_UNIVERSE
    else:
        scope = RT_SCOPE_LINK
    kind = RTN_BLACKHOLE if blackhole else RTN_UNICAST
    body = _ROUTE.pack(
        family, prefix, 0, 0, RT_TABLE_MAIN, protocol, scope, kind, RTNH_F_ONLINK if onlink and gateway else 0
    )
    if prefix:
        body += attribute(RTA_DST, destination)
    if index:
        body += attribute(RTA_OIF, u32(index))
    if gateway is not None:
        body += attribute(RTA_GATEWAY, gateway)
    if metric:
        body += attribute(RTA_PRIORITY, u32(metric))
    return message(type_, flags if acknowledge else flags & ~NLM_F_ACK, body)


def route_lookup(packed: bytes) -> bytes:
    """The route that a packet of the node's own to the address would take; none: ENETUNREACH, EHOSTUNREACH."""
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = _ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, packed)
    return message(RTM_GETROUTE, NLM_F_REQUEST, body)


def routes_dump(family: int, protocol: int = PROTOCOL) -> bytes:
    """The main table's routes of one family; `protocol` 0: everybody's."""
    body = _ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, protocol, 0, 0, 0)
    return message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, body)


# --- neighbours and forwarding entries


def neighbour(index: int, packed: bytes, mac: bytes, *, remove: bool = False, acknowledge: bool = True) -> bytes:
    """A permanent neighbour: the kernel never asks for it and never forgets it."""
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = _NEIGHBOUR.pack(family, index, NUD_PERMANENT, 0, 0) + attribute(NDA_DST, packed)
    return _neighbour(body, mac, remove, acknowledge)


def forwarding(index: int, mac: bytes, remote: bytes, *, remove: bool = False, acknowledge: bool = True) -> bytes:
    """VXLAN forwarding entry: frames for `mac` go to the node at `remote`."""
    body = _NEIGHBOUR.pack(AF_BRIDGE, index, NUD_PERMANENT | NUD_NOARP, _NTF_SELF, 0) + attribute(NDA_DST, remote)
    return _neighbour(body, mac, remove, acknowledge)


def _neighbour(body: bytes, mac: bytes, remove: bool, acknowledge: bool) -> bytes:
    body += attribute(NDA_LLADDR, mac)
    type_, flags = (RTM_DELNEIGH, _SET) if remove else (RTM_NEWNEIGH, _PUT)
    return message(type_, flags if acknowledge else flags & ~NLM_F_ACK, body)


def neighbours_dump(family: int, index: int) -> bytes:
    """Of one link. `family` AF_BRIDGE: its forwarding entries."""
    if family == AF_BRIDGE:
        body = _NEIGHBOUR.pack(AF_BRIDGE, index, 0, 0, 0)
    else:
        body = _NEIGHBOUR.pack(family, 0, 0, 0, 0) + attribute(NDA_IFINDEX, u32(index))
    return message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, body)
