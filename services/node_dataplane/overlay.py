"""The tunnel driver: one VXLAN device, its own addresses, and a neighbour and forwarding entry per remote node.

A device that already is as wanted is adopted with its entries. Another local address it gets in place, where the kernel
can do that; one that differs in what cannot be changed (VNI, port) is created anew, and the caller is told so that
routes over it are written again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from services.node_dataplane import tunnel_device
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NetlinkSocket
from services.node_dataplane.routes import Peer
from services.node_dataplane.tunnel import TunnelSpec
from services.node_dataplane.tunnel_device import DEVICE, LAST_ADDRESS, SETTINGS

BATCH = 250


class Overlay:
    """One family's device. `spec` None: there shall be none."""

    def __init__(self, socket: NetlinkSocket, device: str, family: int) -> None:
        self._socket = socket
        self.device = device
        self._family = rtnl.AF_INET if family == 4 else rtnl.AF_INET6
        self._spec: TunnelSpec | None = None
        self._neighbours: dict[bytes, bytes] = {}
        self._forwarding: dict[bytes, bytes] = {}
        self._cache: tuple[dict[bytes, bytes], dict[bytes, bytes]] | None = None
        """Entries that the kernel holds to our best knowledge; None: read them back."""
        self.problems: list[str] = []
        self.rests: Callable[[str], bool] = lambda phrase: False
        """Whether an entry is left alone for now, because somebody fights for it."""

    def hear(self, key: bytes, value: bytes | None) -> None:
        """What the neighbour with this address, or the forwarding entry with this MAC, now leads to; None: it is gone.
        Of forwarding entries the kernel announces our own changes like anybody's."""
        for held in self._cache or ():
            if held.get(key) != value:
                held.pop(key, None)

    def want(self, spec: TunnelSpec | None, peers: Iterable[Peer]) -> None:
        self._spec = spec
        ordered = sorted(peers) if spec is not None else []
        self._neighbours = {peer.vtep: rtnl.hardware(peer.mac) for peer in ordered}
        self._forwarding = {rtnl.hardware(peer.mac): peer.remote for peer in ordered}

    def reconcile(self, *, read_back: bool = False) -> list[str]:
        """Diff and apply; what was changed, one phrase each. The device itself is always looked at, its entries are
        read back the first time and when asked for.

        Raises NetlinkError when the device cannot be made."""
        self.problems = []
        changed = []
        if read_back:
            self._cache = None
        found = self._find()
        if self._spec is None:
            if found is not None:
                self._socket.execute([rtnl.link_delete(found.device)], f"delete {self.device}")
                changed.append(DEVICE)
            return changed
        underlay = self._index(self._spec.underlay)
        if underlay is None:
            self.problems.append(f"{self.device}: the uplink {self._spec.underlay} is not there")
            return changed
        if found is not None and not self._fits(found, underlay) and self._move(found, underlay):
            changed.append(SETTINGS)
            found = self._find()
        if found is not None and not self._fits(found, underlay):
            self._socket.execute([rtnl.link_delete(found.device)], f"replace {self.device}")
            found = None
        if found is None:
            self._create(underlay)
            changed.append(DEVICE)
            self._cache = None
            found = self._find()
            assert found is not None, "a device just made can be read back"
        else:
            mac = rtnl.hardware(self._spec.mac)
            if not found.up or found.mtu != self._spec.mtu or found.mac != mac:
                change = rtnl.link_change(
                    found.device, up=True, mtu=self._spec.mtu, mac=mac if found.mac != mac else b""
                )
                self._socket.execute([change], f"set up {self.device}")
                # A device that was down has lost its routes, too.
                changed.append(SETTINGS if found.up else DEVICE)
                self._cache = None
        addressed = tunnel_device.set_addresses(self._socket, found.device, self.device, self._spec.addresses)
        if LAST_ADDRESS in addressed:
            self._cache = None
        changed += addressed
        changed += self._entries(found.device)
        return changed

    def addresses(self) -> tuple[str, ...]:
        return tunnel_device.tunnel_addresses(self._socket, self.device)

    def _find(self) -> readback.Link | None:
        return tunnel_device.find(self._socket, self.device)

    def _index(self, name: str) -> int | None:
        row = self._socket.get(rtnl.link_get(name))
        return None if row is None else readback.link(row[1]).device

    def _fits(self, found: readback.Link, underlay: int) -> bool:
        assert self._spec is not None
        return (
            found.vxlan is not None
            and (found.vxlan.vni, found.vxlan.port) == (self._spec.vni, self._spec.port)
            and (found.vxlan.local, found.vxlan.underlay, found.vxlan.learning) == (self._spec.local, underlay, False)
        )

    def _move(self, found: readback.Link, underlay: int) -> bool:
        """Give it another local address in place, where nothing else differs and the kernel can: its entries, and the
        routes over it, stay."""
        assert self._spec is not None
        moved = found._replace(
            vxlan=found.vxlan._replace(local=self._spec.local, underlay=underlay) if found.vxlan is not None else None
        )
        return self._fits(moved, underlay) and self._socket.transact(
            [rtnl.vxlan_move(found.device, self._spec.local, underlay)]
        ) == [0]

    def _create(self, underlay: int) -> None:
        assert self._spec is not None
        self._socket.execute(
            [
                rtnl.vxlan(
                    self.device,
                    rtnl.hardware(self._spec.mac),
                    self._spec.mtu,
                    vni=self._spec.vni,
                    port=self._spec.port,
                    local=self._spec.local,
                    underlay=underlay,
                )
            ],
            f"create {self.device} (VNI {self._spec.vni}, port {self._spec.port})",
        )

    def _entries(self, index: int) -> list[str]:
        neighbours, forwarding = self._cache or self._held(index)
        self._cache = (dict(self._neighbours), dict(self._forwarding))
        requests = []
        what: list[str] = []
        for vtep, mac in self._neighbours.items():
            if neighbours.get(vtep) != mac:
                phrase = f"neighbour {ip_address(vtep)}"
                if self._leave(phrase):
                    self._cache[0].pop(vtep)
                    continue
                requests.append(rtnl.neighbour(index, vtep, mac))
                what.append(phrase)
        for mac, remote in self._forwarding.items():
            if forwarding.get(mac) != remote:
                phrase = f"forwarding entry to {ip_address(remote)}"
                if self._leave(phrase):
                    self._cache[1].pop(mac)
                    continue
                requests.append(rtnl.forwarding(index, mac, remote))
                what.append(phrase)
        for vtep, mac in neighbours.items():
            if vtep not in self._neighbours:
                requests.append(rtnl.neighbour(index, vtep, mac, remove=True))
                what.append(f"neighbour {ip_address(vtep)}")
        for mac, remote in forwarding.items():
            if mac not in self._forwarding:
                requests.append(rtnl.forwarding(index, mac, remote, remove=True))
                what.append(f"forwarding entry to {ip_address(remote)}")
        for start in range(0, len(requests), BATCH):
            outcome = self._socket.transact(requests[start : start + BATCH])
            for phrase, number in zip(what[start : start + BATCH], outcome, strict=True):
                if number not in (0, errno.ENOENT):
                    self.problems.append(f"{self.device}: {phrase}: {os.strerror(number)}")
                    self._cache = None
        return what

    def _leave(self, phrase: str) -> bool:
        if not self.rests(phrase):
            return False
        self.problems.append(f"{self.device}: {phrase}: somebody else keeps taking it away; it is tried again")
        return True

    def _held(self, index: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Permanent neighbours by address, forwarding entries by MAC; the device is ours and so is all on it."""
        neighbours: dict[bytes, bytes] = {}
        for _, body in self._socket.dump(rtnl.neighbours_dump(self._family, index)):
            row = readback.neighbour(body)
            if row.device == index and row.permanent and row.mac and not ip_address(row.packed).is_multicast:
                neighbours[row.packed] = row.mac
        forwarding: dict[bytes, bytes] = {}
        for _, body in self._socket.dump(rtnl.neighbours_dump(rtnl.AF_BRIDGE, index)):
            row = readback.neighbour(body)
            if row.device == index and row.packed and any(row.mac):
                forwarding[row.mac] = row.packed
        return neighbours, forwarding
