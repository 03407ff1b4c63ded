"""Routers outside the cluster: a real BIRD, FRR or GoBGP, or nothing but static routes, in a node's place.

    external: {bird: {asn: 64999, neighbours: {node1: 64512}, announces: [192.0.2.0/24]}}     also frr, gobgp
    external: {routes: {10.244.0.0/16: node1}}                                                speaks no BGP

The first address of what a router announces is its own, so that there is something to reach. The daemons run in the
foreground with private directories, as children of the lab's owner; nothing of the machine's own configuration is read.
FRR gives up root and so has its directory where its user can reach it.

GoBGP leaves the kernel to others, and does not understand the FRR that Debian 12 has beside it. So a process of ours,
`gobgp_hand`, writes its best ways into the kernel.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tortie.lab.scenario import BgpRouter, External

FRR_DIRECTORY = Path("/run/tortie-lab-frr")
FRR_USER = "frr"
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/frr")


@dataclass(frozen=True)
class Place:
    """Where a router stands."""

    addresses: tuple[str, ...]
    """Plain."""
    neighbours: Mapping[str, int]
    """Address of the neighbour -> AS number."""
    directory: Path

    @property
    def router_id(self) -> str:
        return next((address for address in self.addresses if ":" not in address), "192.0.2.255")

    def own(self, neighbour: str) -> str:
        """Our address of the neighbour's family."""
        return next(address for address in self.addresses if (":" in address) == (":" in neighbour))


@dataclass(frozen=True)
class Daemon:
    name: str
    argv: tuple[str, ...]
    waits_for: Path | None = None
    """A socket of an earlier one."""


@dataclass(frozen=True)
class Software:
    """What runs, with these files in its directory."""

    files: Mapping[str, str]
    daemons: tuple[Daemon, ...]
    user: str = ""


def addresses_of(external: External) -> list[str]:
    """What a router has on its loopback, with prefix lengths: the first address of each network that it announces."""
    router = external.router
    networks = [ipaddress.ip_network(text) for text in (router.announces if router is not None else ())]
    return [f"{next(network.hosts())}/{network.max_prefixlen}" for network in networks]


def directory_of(external: External, lab_directory: Path, netns: str) -> Path:
    return FRR_DIRECTORY / netns if external.frr is not None else lab_directory / "router" / netns


def erase(prefix: str) -> None:
    """Directories outside the lab's own. `prefix`: what the names of the lab's namespaces begin with."""
    if FRR_DIRECTORY.is_dir():
        for found in FRR_DIRECTORY.glob(f"{prefix}*"):
            shutil.rmtree(found, ignore_errors=True)


def software(external: External, place: Place) -> Software | None:
    """None: the router speaks no BGP."""
    for make, router in ((_bird, external.bird), (_frr, external.frr), (_gobgp, external.gobgp)):
        if router is not None:
            return make(router, place)
    return None


def write(wanted: Software, directory: Path) -> None:
    """The files, readable for whoever runs with them."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in wanted.files.items():
        (directory / name).write_text(text)
    if wanted.user:
        directory.parent.chmod(0o711)
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, wanted.user, wanted.user)


def _bird(router: BgpRouter, place: Place) -> Software:
    lines = [
        f"router id {place.router_id};",
        "protocol device { scan time 2; }",
        "protocol direct { ipv4; ipv6; }",
        "protocol kernel { scan time 2; ipv4 { export where source = RTS_BGP; }; }",
        "protocol kernel { scan time 2; ipv6 { export where source = RTS_BGP; }; }",
    ]
    for number, network in enumerate(router.announces):
        family = _family(network)
        lines.append(f"protocol static announced{number} {{ ipv{family}; route {network} blackhole; }}")
    for address, asn in place.neighbours.items():
        name = f"n_{address.replace('.', '_').replace(':', '_')}"
        lines += [
            f"protocol bgp {name} {{",
            f"  local {place.own(address)} as {router.asn};",
            f"  neighbor {address} as {asn};",
            "  multihop; graceful restart on;",
            "  connect delay time 1; connect retry time 2; error wait time 1, 5;",
            f"  ipv{_family(address)} {{ import all; export where source ~ [ RTS_STATIC, RTS_BGP ]; }};",
            "}",
        ]
    directory = place.directory
    argv = ("-f", "-c", f"{directory}/bird.conf", "-s", f"{directory}/bird.ctl", "-P", f"{directory}/bird.pid")
    return Software({"bird.conf": "\n".join(lines) + "\n"}, (Daemon("bird", (program("bird"), *argv)),))


def _frr(router: BgpRouter, place: Place) -> Software:
    lines = [
        f"router bgp {router.asn}",
        f" bgp router-id {place.router_id}",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " no bgp network import-check",
        " bgp graceful-restart",
    ]
    for address, asn in place.neighbours.items():
        lines += [f" neighbor {address} remote-as {asn}", f" neighbor {address} timers connect 2"]
        lines += [f" neighbor {address} ebgp-multihop"] if asn != router.asn else []
    for family in (4, 6):
        lines.append(f" address-family ipv{family} unicast")
        lines += [f"  neighbor {address} activate" for address in place.neighbours if _family(address) == family]
        lines += [f"  network {network}" for network in router.announces if _family(network) == family]
        lines.append(" exit-address-family")
    directory = place.directory
    zebra = directory / "zserv.api"

    def argv(name: str) -> tuple[str, ...]:
        own = ("-f", f"{directory}/{name}.conf", "-i", f"{directory}/{name}.pid", "--vty_socket", str(directory))
        return (program(name), "-z", str(zebra), "-P", "0", "--log", "stdout", *own)

    daemons = (Daemon("zebra", argv("zebra")), Daemon("bgpd", argv("bgpd"), waits_for=zebra))
    return Software({"zebra.conf": "", "bgpd.conf": "\n".join(lines) + "\n"}, daemons, FRR_USER)


def _gobgp(router: BgpRouter, place: Place) -> Software:
    lines = ["[global.config]", f"as = {router.asn}", f'router-id = "{place.router_id}"']
    for address, asn in place.neighbours.items():
        lines += [
            "[[neighbors]]",
            "[neighbors.config]",
            f'neighbor-address = "{address}"',
            f"peer-as = {asn}",
            "[neighbors.timers.config]",
            "connect-retry = 2",
            *(("[neighbors.ebgp-multihop.config]", "enabled = true") if asn != router.asn else ()),
            "[[neighbors.afi-safis]]",
            "[neighbors.afi-safis.config]",
            f'afi-safi-name = "ipv{_family(address)}-unicast"',
        ]
    argv = (program("gobgpd"), "-f", f"{place.directory}/gobgpd.toml", "--api-hosts", "127.0.0.1:50051")
    announced = [f"{network},{place.own(network)}" for network in router.announces]
    hand = (sys.executable, "-m", "tortie.lab.gobgp_hand", program("gobgp"), *announced)
    return Software({"gobgpd.toml": "\n".join(lines) + "\n"}, (Daemon("gobgpd", argv), Daemon("gobgp-hand", hand)))


def program(name: str) -> str:
    """Where it is; its name alone when it is nowhere, for the error to name it."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SBIN)) or name


def _family(address: str) -> int:
    return 6 if ":" in address else 4
