"""A pod's link: one veth pair, born with its far end inside the pod.

    pod                                            node
    eth0  10.244.0.5/32                            tor1a2b3c4d5e6   MAC ee:ee:ee:ee:ee:ee, proxy_arp, forwarding
      169.254.1.1 dev eth0 scope link              10.244.0.5 dev tor1a2b3c4d5e6 scope link   (see `routing`)
      default via 169.254.1.1
      169.254.1.1 lladdr ee:ee:ee:ee:ee:ee permanent

The gateway exists nowhere: the permanent neighbour makes every packet leave through eth0, where the node routes it.
The link's name is a pure function of the pod's name, which is how a restarted agent knows it as its own. `ensure` is
idempotent: a link that is right is adopted as it is, one that is not is replaced.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from ipaddress import ip_address

from bus_schemas.ids import PodKey
from services.node_dataplane import sysctl
from services.node_dataplane.errors import LinkError
from services.node_dataplane.gateway import GATEWAY4, GATEWAY6, NODE_MAC
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkError, NetlinkSocket, within
from services.node_dataplane.nft.link_groups import DOOMED
from services.node_dataplane.plugins import Plugin

PREFIX = "tor"
NAME = re.compile(PREFIX + "[0-9a-f]{11}")
_GATEWAY4 = ip_address(GATEWAY4).packed
_GATEWAY6 = ip_address(GATEWAY6).packed
_NODE_MAC = rtnl.hardware(NODE_MAC)
_BOOT = 3
_POLL_S = 0.001
_CARRIER_POLLS = 1000


def link_name(pod: PodKey) -> str:
    """`tor` and 11 hex digits of SHA-1(`<namespace>.<name>`): 14 of the kernel's 15 characters."""
    return PREFIX + sha1(f"{pod.namespace}.{pod.name}".encode(), usedforsecurity=False).hexdigest()[:11]


@dataclass(frozen=True)
class PodLink:
    name: str
    interface: str
    """In the pod, usually eth0."""
    netns: str
    """Path of the pod's network namespace."""
    addresses: tuple[str, ...]
    mtu: int
    group: int
    """Of devices, in which the table in the kernel looks for the link."""
    mac: str = ""
    """Of the pod's end; empty: any."""
    ip_forwarding: bool | None = None
    """Whether the pod may route; None: left as it is."""

    @property
    def packed(self) -> list[bytes]:
        return [ip_address(address).packed for address in self.addresses]

    @property
    def ipv6(self) -> bool:
        return any(":" in address for address in self.addresses)


@dataclass(frozen=True)
class Plugged:
    device: int
    """Index of the node's end."""
    mac: str
    """Of the pod's end."""
    created: bool


def pod_side(link: PodLink, index: int) -> list[bytes]:
    """Everything inside the pod, in one datagram; repeating it changes nothing."""
    mac = rtnl.hardware(link.mac) if link.mac else b""
    requests = [rtnl.link_change(1, up=True), rtnl.link_change(index, up=True, mtu=link.mtu, mac=mac)]
    for address in link.packed:
        gateway = _GATEWAY4 if len(address) == 4 else _GATEWAY6
        requests += [
            rtnl.address(index, address, len(address) * 8),
            rtnl.neighbour(index, gateway, _NODE_MAC),
        ]
        if len(address) == 4:
            requests.append(rtnl.route(gateway, 32, index=index, protocol=_BOOT, presence="put"))
        requests.append(
            rtnl.route(bytes(len(address)), 0, index=index, gateway=gateway, protocol=_BOOT, presence="put")
        )
    return requests


class PodLinks:
    """The driver. Not thread-safe but for `remove`, which has a socket of its own."""

    def __init__(self) -> None:
        self._node = NetlinkSocket(NETLINK_ROUTE)
        self._reaper = NetlinkSocket(NETLINK_ROUTE)

    @property
    def ports(self) -> tuple[int, ...]:
        """By which the kernel's announcements of our doings are known."""
        return self._node.port, self._reaper.port

    def close(self) -> None:
        self._node.close()
        self._reaper.close()

    def find(self, name: str) -> readback.Link | None:
        row = self._node.get(rtnl.link_get(name))
        return None if row is None else readback.link(row[1])

    def present(self) -> dict[str, readback.Link]:
        """Every link on the node that has our name."""
        links = (readback.link(body) for _, body in self._node.dump(rtnl.links_dump()))
        return {link.name: link for link in links if NAME.fullmatch(link.name) and link.kind == "veth"}

    def regroup(self, right: Callable[[str, int], int]) -> list[str]:
        """Put every link with our name where it belongs, those that are not: `right(name, group)`, see `link_groups`.
        Their names. Raises NetlinkError."""
        return self._regroup(self.present().values(), right)

    def _regroup(self, links: Iterable[readback.Link], right: Callable[[str, int], int]) -> list[str]:
        strangers = {link.name: to for link in links if (to := right(link.name, link.group)) != link.group}
        changes = [rtnl.link_group(name, group) for name, group in strangers.items()]
        for name, number in zip(strangers, self._node.transact(changes), strict=True):
            if number not in (0, errno.ENODEV):
                raise NetlinkError(number, f"cannot put {name} into the group of pods' links: {os.strerror(number)}")
        return list(strangers)

    def ensure(self, link: PodLink) -> Plugged:
        """Make the link, or adopt it where it is right already. Raises LinkError."""
        netns = _open(link.netns)
        try:
            with NetlinkSocket(NETLINK_ROUTE, netns) as pod:
                existing = self.find(link.name)
                created = False
                if existing is not None and self._peer(pod, existing, link.interface) is None:
                    self._node.execute([rtnl.link_delete(existing.device)], f"delete the stale link {link.name}")
                    existing = None
                if existing is None:
                    existing = self._create(link, netns)
                    created = True
                self._regroup([existing], lambda name, group: link.group)
                sysctl.write(sysctl.of_pod_link(link.name, ipv6=link.ipv6))
                inside = sysctl.in_pod(link.interface) if link.ipv6 else []
                if link.ip_forwarding is not None:
                    inside += sysctl.forwarding(link.ip_forwarding, ipv6=link.ipv6)
                if inside:
                    with within(netns):
                        sysctl.write(inside)
                self._node.execute([rtnl.link_change(existing.device, up=True, mtu=link.mtu)], f"set up {link.name}")
                peer = self._peer(pod, existing, link.interface)
                if peer is None:
                    raise LinkError(f"{link.interface} vanished from the pod while it was being set up")
                pod.execute(pod_side(link, peer.device), f"configure {link.interface} in the pod")
                self._strip(pod, link, peer.device)
                self._node.execute(
                    # Neighbour discovery would have to wait until both ends' link-local addresses are ready.
                    [
                        rtnl.neighbour(existing.device, address, rtnl.hardware(link.mac) if link.mac else peer.mac)
                        for address in link.packed
                        if len(address) == 16
                    ],
                    f"make the pod's IPv6 address known on {link.name}",
                )
                return Plugged(existing.device, link.mac or peer.mac.hex(":"), created)
        except LinkError:
            raise
        except OSError as error:
            raise LinkError(f"{link.name}: {error.strerror or error}") from error
        finally:
            os.close(netns)

    def _create(self, link: PodLink, netns: int) -> readback.Link:
        """The pair, both ends down. The far end's index differs from the near end's: the kernel takes equal ones for
        one device and then announces their carrier up to a second late."""
        digest = sha1(link.name.encode(), usedforsecurity=False).digest()
        for peer_index in (0x100000 | int.from_bytes(digest[:2], "big"), 0):
            number = self._node.transact(
                [
                    rtnl.veth(
                        link.name,
                        _NODE_MAC,
                        link.mtu,
                        group=link.group,
                        peer_name=link.interface,
                        peer_mac=rtnl.hardware(link.mac) if link.mac else None,
                        peer_index=peer_index,
                        peer_netns_fd=netns,
                    )
                ]
            )[0]
            if number == errno.EBUSY and peer_index:
                continue
            if number == errno.EEXIST:
                raise LinkError(f"the pod already has a device {link.interface} that is not ours")
            if number:
                raise LinkError(f"cannot create {link.name}: {os.strerror(number)} {self._node.complaint}".rstrip())
            break
        made = self.find(link.name)
        if made is None:
            raise LinkError(f"{link.name} vanished as soon as it was made")
        return made

    @staticmethod
    def _peer(pod: NetlinkSocket, near: readback.Link, interface: str) -> readback.Link | None:
        """The far end of `near`, when it is in this pod under this name."""
        row = pod.get(rtnl.link_get(interface))
        if row is None:
            return None
        far = readback.link(row[1])
        return far if far.kind == "veth" and far.device == near.peer and far.peer == near.device else None

    @staticmethod
    def _strip(pod: NetlinkSocket, link: PodLink, device: int) -> None:
        """An adopted link may hold an address of an earlier life."""
        wanted = set(link.packed)
        stale = [
            rtnl.address(device, row.packed, row.prefix, remove=True)
            for row in _addresses(pod, device)
            if row.packed not in wanted and not (len(row.packed) == 16 and row.packed[:2] == b"\xfe\x80")
        ]
        if stale:
            pod.execute(stale, f"remove old addresses of {link.interface}")

    async def running(self, name: str) -> None:
        """Returns when packets pass the link: the kernel announces the carrier of a new link a moment after it is set
        up, and drops what is sent before. That is waited for, but no longer than a second."""
        for _ in range(_CARRIER_POLLS):
            link = self.find(name)
            if link is None or link.running:
                return
            await asyncio.sleep(_POLL_S)

    def raise_up(self, device: int) -> None:
        """Set a link up. Raises NetlinkError."""
        self._node.execute([rtnl.link_change(device, up=True)], "set up a pod's link")

    def acquaint(self, link: readback.Link, plugin: Plugin, gone: Collection[bytes]) -> list[str]:
        """Make the pod's IPv6 addresses that are among `gone` known on its link again; which. Raises NetlinkError."""
        known = [a for a in plugin.endpoint.addresses if ":" in a and ip_address(a).packed in gone]
        mac = rtnl.hardware(plugin.mac)
        if known:
            requests = [rtnl.neighbour(link.device, ip_address(address).packed, mac) for address in known]
            self._node.execute(requests, f"make the pod's IPv6 address known on {link.name}")
        return known

    def check(self, link: PodLink) -> str | None:
        """What is wrong with a link that should be there; None when it is right. For CNI CHECK."""
        near = self.find(link.name)
        if near is None:
            return f"the link {link.name} is gone from the node"
        if not near.up:
            return f"the link {link.name} is down"
        try:
            netns = _open(link.netns)
        except LinkError as error:
            return str(error)
        try:
            with NetlinkSocket(NETLINK_ROUTE, netns) as pod:
                far = self._peer(pod, near, link.interface)
                if far is None:
                    return f"{link.interface} in the pod is not the other end of {link.name}"
                if not far.up:
                    return f"{link.interface} in the pod is down"
                if link.mac and far.mac != rtnl.hardware(link.mac):
                    return f"{link.interface} in the pod has lost its MAC {link.mac}"
                held = {row.packed for row in _addresses(pod, far.device)}
                for address, packed in zip(link.addresses, link.packed, strict=True):
                    if packed not in held:
                        return f"{link.interface} in the pod has lost its address {address}"
                    gateway = _GATEWAY4 if len(packed) == 4 else _GATEWAY6
                    family = rtnl.AF_INET if len(packed) == 4 else rtnl.AF_INET6
                    routes = [readback.route(body) for _, body in pod.dump(rtnl.routes_dump(family, 0))]
                    if not any(
                        row.prefix == 0 and row.gateway == gateway and row.device == far.device for row in routes
                    ):
                        return f"the pod has lost its default route by {GATEWAY4 if len(packed) == 4 else GATEWAY6}"
        finally:
            os.close(netns)
        return None

    def remove(self, names: Sequence[str]) -> None:
        """Delete links, those that exist; blocks for one grace period (about 20 ms) whatever their number, so call it
        in a thread, one at a time. Raises NetlinkError."""
        marked = self._reaper.transact([rtnl.link_group(name, DOOMED) for name in names])
        for name, number in zip(names, marked, strict=True):
            if number not in (0, errno.ENODEV):
                raise NetlinkError(number, f"cannot delete {name}: {os.strerror(number)}")
        if 0 in marked:
            number = self._reaper.transact([rtnl.links_delete(DOOMED)])[0]
            if number not in (0, errno.ENODEV):
                raise NetlinkError(number, f"cannot delete pod links: {os.strerror(number)} {self._reaper.complaint}")


def _addresses(pod: NetlinkSocket, device: int) -> list[readback.Address]:
    rows = (readback.address(body) for _, body in pod.dump(rtnl.addresses_dump(index=device)))
    return [row for row in rows if row.device == device]


def _open(netns: str) -> int:
    try:
        return os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LinkError(f"cannot open the pod's network namespace {netns}: {error.strerror}") from error
