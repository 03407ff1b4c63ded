"""The way to other nodes' pods in this kernel: routes and tunnels together, in the order that loses no packet.

tunnel devices, neighbours, forwarding entries -> routes over them -> tunnels that are not wanted any more
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Literal

from services.node_dataplane import offload
from services.node_dataplane.core import FAMILIES, Desired
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.overlay import DEVICE, LAST_ADDRESS, Overlay
from services.node_dataplane.routes import Peer
from services.node_dataplane.routing import RouteTable, cidr_of
from services.node_dataplane.tunnel import DEVICES, TunnelSpec

Report = Callable[[str, str, str], None]


class Fabric:
    def __init__(self, checksum_offload: Literal["auto", "on", "off"]) -> None:
        self.socket = NetlinkSocket(NETLINK_ROUTE)
        self.routes = RouteTable(self.socket, _index)
        self._overlays = {family: Overlay(self.socket, DEVICES[family], family) for family in FAMILIES}
        self._checksum_offload = checksum_offload
        self._tunnels: dict[int, TunnelSpec | None] = {}
        self._peers: dict[int, frozenset[Peer]] = {}
        self._stale = False
        """Tunnels are not as wanted, as far as we know."""
        self._problems: tuple[str, ...] = ()
        self._begun = False

    def close(self) -> None:
        self.socket.close()

    @property
    def problems(self) -> tuple[str, ...]:
        stuck = sorted(self.routes.stuck.items())
        told = [f"route {cidr_of(where)}: {reason}" for where, reason in stuck[:5]]
        if len(stuck) > 5:
            told.append(f"and {len(stuck) - 5} more routes")
        return (*self._problems, *told)

    def tunnel_addresses(self) -> tuple[str, ...]:
        """What an earlier life left on the tunnel devices."""
        return tuple(address for overlay in self._overlays.values() for address in overlay.addresses())

    def apply(self, desired: Desired) -> None:
        """Bring the kernel to what is desired now. Raises OSError when netlink itself fails."""
        for where, row in desired.rows.items():
            self.routes.want(where, row)
        if (desired.tunnels, desired.peers) != (self._tunnels, self._peers):
            self._tunnels, self._peers = desired.tunnels, desired.peers
            self._stale = True
        if not self._begun:
            self._begun = True
            self.routes.complete()
        self.flush()

    def flush(self) -> None:
        if self._stale or self._problems:
            self._reconcile(wanted=True, read_back=False)
        self.routes.flush()
        if self._stale:
            self._reconcile(wanted=False, read_back=False)
            self._stale = False

    def check(self, report: Report) -> int:
        """Read everything back and mend it; how many things somebody else had changed. Each is reported."""
        if not self._begun:
            return 0
        repaired = 0
        for device, changes in self._reconcile(wanted=True, read_back=True):
            for change in changes:
                repaired += 1
                report("repaired", device, f"{change} of {device} had been changed or deleted; it was put right.")
        for where in self.routes.check():
            repaired += 1
            report("repaired", cidr_of(where), f"The route to {cidr_of(where)} had been changed; it was put right.")
        return repaired

    def _reconcile(self, *, wanted: bool, read_back: bool) -> list[tuple[str, list[str]]]:
        told = []
        problems: list[str] = []
        for family, overlay in self._overlays.items():
            spec = self._tunnels.get(family)
            if (spec is not None) is not wanted:
                continue
            overlay.want(spec, self._peers.get(family, ()))
            try:
                changes = overlay.reconcile(read_back=read_back)
            except OSError as error:
                problems.append(error.strerror or str(error))
                continue
            problems += overlay.problems
            if DEVICE in changes or LAST_ADDRESS in changes:
                self.routes.device_changed(overlay.device)
            if DEVICE in changes and spec is not None:
                problems += self._offload(spec)
            if changes:
                told.append((overlay.device, changes))
        if wanted:
            self._problems = tuple(problems)
        return told

    def _offload(self, spec: TunnelSpec) -> list[str]:
        try:
            offload.apply(spec.device, spec.underlay, self._checksum_offload)
        except OSError as error:
            return [f"{spec.device}: cannot set checksum offload: {error.strerror}"]
        return []


def _index(device: str) -> int | None:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return None
