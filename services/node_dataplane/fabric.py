"""The way to other nodes' pods in this kernel: routes and tunnels together, in the order that loses no packet.

tunnel devices, neighbours, forwarding entries -> routes over them -> tunnels that are not wanted any more
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from services.node_dataplane import tunnel, wireguard
from services.node_dataplane.checksums import Mode, Trial
from services.node_dataplane.core import Desired, Peers, Spec
from services.node_dataplane.ipip import IpipSpec
from services.node_dataplane.ipip_device import IpipDevice
from services.node_dataplane.monitor import Heard
from services.node_dataplane.netlink import readback
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.overlay import Overlay
from services.node_dataplane.repairs import Repair, Repairs, Report
from services.node_dataplane.routes import Destination, Peer
from services.node_dataplane.routing import RouteTable, cidr_of
from services.node_dataplane.tunnel import TunnelSpec
from services.node_dataplane.tunnel_checksums import TunnelChecksums
from services.node_dataplane.tunnel_device import DEVICE, LAST_ADDRESS
from services.node_dataplane.whereabouts import FAMILIES
from services.node_dataplane.wireguard import WireguardPeer, WireguardSpec
from services.node_dataplane.wireguard_device import WireguardDevice
from services.node_dataplane.wireguard_key import private_key

__all__ = ["Fabric", "Report"]

Driver = Overlay | IpipDevice | WireguardDevice
CHECKSUMS = "checksum offload"
"""A change, in words."""


class Fabric:
    def __init__(self, checksum_offload: Mode, directory: Path) -> None:
        """`directory`: where the WireGuard keys are."""
        self.socket = NetlinkSocket(NETLINK_ROUTE)
        self.repairs = Repairs(time.monotonic)
        self.routes = RouteTable(self.socket, _index)
        self.routes.rests = self.repairs.rests
        self._overlays = [Overlay(self.socket, tunnel.DEVICES[family], family) for family in FAMILIES]
        for overlay in self._overlays:
            overlay.rests = partial(self._entry_rests, overlay.device)
        self._ipip = IpipDevice(self.socket)
        self._wireguard = {
            family: WireguardDevice(self.socket, wireguard.DEVICES[family], partial(private_key, directory, family))
            for family in FAMILIES
        }
        self._drivers: tuple[Driver, ...] = (*self._overlays, self._ipip, *self._wireguard.values())
        self.checksums = TunnelChecksums(checksum_offload)
        self._tunnels: dict[str, Spec | None] = {}
        self._peers: dict[str, Peers] = {}
        self._stale = False
        """Tunnels are not as wanted, as far as we know."""
        self._problems: tuple[str, ...] = ()
        self._begun = False

    def close(self) -> None:
        for device in self._wireguard.values():
            device.close()
        self.socket.close()

    @property
    def problems(self) -> tuple[str, ...]:
        stuck = sorted(self.routes.stuck.items())
        told = [f"route {cidr_of(where)}: {reason}" for where, reason in stuck[:5]]
        if len(stuck) > 5:
            told.append(f"and {len(stuck) - 5} more routes")
        return (*self._problems, *told)

    def adopt(self) -> dict[str, tuple[str, ...]]:
        """Take up what an earlier life left: routes, WireGuard's keys; the addresses by kind of tunnel."""
        self.routes.adopt()
        for device in self._wireguard.values():
            device.adopt()
        return {
            "vxlan": tuple(address for overlay in self._overlays for address in overlay.addresses()),
            "ipip": self._ipip.addresses(),
            "wireguard": tuple(address for device in self._wireguard.values() for address in device.addresses()),
        }

    def public_keys(self) -> dict[int, bytes]:
        """Of the WireGuard devices that are ready, by family."""
        return {family: device.public_key for family, device in self._wireguard.items() if device.public_key}

    @property
    def tunnelling(self) -> bool:
        """There is to be a VXLAN device."""
        return any(self._tunnels.get(overlay.device) is not None for overlay in self._overlays)

    def tried(self, trial: Trial) -> None:
        """What the trial of checksums showed; the next flush heeds it."""
        self.checksums.trial = trial
        self._stale = True

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
        made = [*self._mended(self._reconcile(wanted=True, read_back=True)), *map(_route_back, self.routes.check())]
        self.repairs.settle(report)
        return self.repairs.tell(made, report)

    def mend(self, heard: Heard, report: Report) -> int:
        """Put right what was heard of and nothing else, without reading everything back; how many things that were.
        Raises OSError."""
        if not self._begun:
            return 0
        made: list[Repair] = []
        if heard.entries or heard.tunnels:
            for overlay in self._overlays:
                for (_, key), value in heard.entries.items():
                    overlay.hear(key, value)
            told = self._reconcile(wanted=True, read_back=False)
            made += self._mended(told)
            for device, _ in told:
                self.routes.recover(self.routes.over(device))  # They go with its last address.
        gone: dict[Destination, int | None] = {}
        for (where, metric), thief in heard.routes.items():
            if thief is None:
                gone[where] = metric
            elif self.routes.overtake(where, metric):
                made.append(_route_ahead(where, thief))
        made += map(_route_back, self.routes.recover(gone))
        for device in heard.risen:
            # That the kernel drops routes over a device that goes down is not somebody's doing to a route of ours.
            self.routes.recover(self.routes.over(device))
        self.routes.flush()
        return self.repairs.tell(made, report)

    def _entry_rests(self, device: str, phrase: str) -> bool:
        return self.repairs.rests((device, phrase))

    @staticmethod
    def _mended(told: list[tuple[str, list[str]]]) -> Iterator[Repair]:
        for device, changes in told:
            for change in [DEVICE] if DEVICE in changes else changes:  # With a device everything on it was gone.
                message = f"{change} of {device} had been changed or deleted; it was put right."
                yield Repair((device, change), device, message, "ip monitor link neigh")

    def _reconcile(self, *, wanted: bool, read_back: bool) -> list[tuple[str, list[str]]]:
        told = []
        problems: list[str] = []
        for driver in self._drivers:
            spec = self._tunnels.get(driver.device)
            if (spec is not None) is not wanted:
                continue
            if not self._stale and self.repairs.rests((driver.device, DEVICE)):
                problems.append(f"{driver.device}: somebody else keeps taking it away; it is tried again")
                continue
            _want(driver, spec, self._peers.get(driver.device, frozenset()))
            try:
                changes = driver.reconcile(read_back=read_back)
            except OSError as error:
                problems.append(error.strerror or str(error))
                continue
            problems += driver.problems
            if DEVICE in changes or LAST_ADDRESS in changes:
                self.routes.device_changed(driver.device)
            if isinstance(spec, TunnelSpec) and not driver.problems:
                changes += self._settle_checksums(spec, problems)
            elif spec is None and isinstance(driver, Overlay):
                self.checksums.forget(driver.device)
            if changes:
                told.append((driver.device, changes))
        if wanted:
            self._problems = tuple(problems)
        return told

    def _settle_checksums(self, spec: TunnelSpec, problems: list[str]) -> list[str]:
        try:
            changed = self.checksums.settle(spec)
        except OSError as error:
            problems.append(f"{spec.device}: checksum offload: {error.strerror or error}")
            return []
        return [CHECKSUMS] if changed else []


def _route_back(where: Destination) -> Repair:
    cidr = cidr_of(where)
    message = f"The route to {cidr} had been changed or deleted; it was put right."
    return Repair(where, cidr, message, "ip monitor route")


def _route_ahead(where: Destination, thief: readback.Route) -> Repair:
    """`ip route show proto N` finds the other one."""
    cidr = cidr_of(where)
    by = f" via {ip_address(thief.gateway)}" if thief.gateway else " blackhole" if thief.blackhole else ""
    flag = "-6 " if len(where[0]) == 16 else ""
    message = (
        f"A route{by} of protocol {thief.protocol} was put in the place of ours to {cidr}; ours goes before it again. "
        f"`ip {flag}route show {cidr}` shows both; whoever runs protocol {thief.protocol} should not claim this range."
    )
    return Repair(where, cidr, message, "ip monitor route")


def _want(driver: Driver, spec: Spec | None, peers: Peers) -> None:
    """The core names devices, and each has its own kind of driver, spec and peers."""
    match driver:
        case Overlay():
            assert spec is None or isinstance(spec, TunnelSpec)
            driver.want(spec, (peer for peer in peers if isinstance(peer, Peer)))
        case IpipDevice():
            assert spec is None or isinstance(spec, IpipSpec)
            driver.want(spec)
        case WireguardDevice():
            assert spec is None or isinstance(spec, WireguardSpec)
            driver.want(spec, (peer for peer in peers if isinstance(peer, WireguardPeer)))


def _index(device: str) -> int | None:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return None
