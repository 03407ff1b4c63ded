"""A machine's network as values, as far as it matters for whose it is. Pure; `reading` fills it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

Family = int
"""4 or 6"""
PROTOCOLS = {"bird": 12, "boot": 3, "static": 4, "kernel": 2, "ra": 9, "unspec": 0}


@dataclass(frozen=True)
class Link:
    name: str
    kind: str
    """Of the driver: vxlan, veth, bridge, ipip, wireguard; empty for hardware."""
    up: bool = False
    alias: str = ""
    master: str = ""
    addresses: tuple[str, ...] = ()
    """With prefix lengths, without link-local ones."""


@dataclass(frozen=True)
class Route:
    family: Family
    destination: str
    """In CIDR notation."""
    protocol: str
    """As `ip` prints it: a name, or the number."""
    device: str = ""
    gateway: str = ""
    kind: str = "unicast"
    metric: int = 0
    table: str = "main"

    @property
    def number(self) -> int:
        """Of the protocol; -1: a name that this machine alone knows."""
        return int(self.protocol) if self.protocol.isdigit() else PROTOCOLS.get(self.protocol, -1)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network(self.destination)

    @property
    def words(self) -> tuple[str, ...]:
        """What names this route and no other, in `ip`'s words."""
        by = ("via", self.gateway) if self.gateway else ()
        # IPv6 hangs what leads nowhere on the loopback device, which nobody asked for.
        on = ("dev", self.device) if self.device and self.kind == "unicast" else ()
        kind = (self.kind,) if self.kind != "unicast" else ()
        metric = ("metric", str(self.metric)) if self.metric else ()
        return (*kind, self.destination, *by, *on, "proto", self.protocol, *metric, "table", self.table)

    @property
    def removal(self) -> tuple[str, ...]:
        return ("ip", f"-{self.family}", "route", "del", *self.words)


@dataclass(frozen=True)
class Rule:
    family: Family
    priority: int
    table: str
    words: tuple[str, ...]
    """Its selector, in `ip`'s words."""


@dataclass(frozen=True)
class NftTable:
    family: str
    name: str


@dataclass(frozen=True)
class Chains:
    """One table of one iptables, as its save command prints it."""

    program: str
    """`iptables-legacy`, `ip6tables-nft` ..."""
    table: str
    chains: tuple[str, ...]
    rules: tuple[str, ...]
    """`-A CHAIN ...` lines."""

    def words(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(line, its words)"""
        for rule in self.rules:
            yield rule, tuple(shlex.split(rule))


@dataclass(frozen=True)
class Pod:
    """A container whose link a runtime remembers (libcni's cache)."""

    name: str
    """`namespace/name`"""
    network: str
    links: tuple[str, ...]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    """Of every table."""
    rules: tuple[Rule, ...] = ()
    nft_tables: tuple[NftTable, ...] = ()
    nft_sets: tuple[tuple[str, str, str, tuple[str, ...]], ...] = ()
    """(family, table, set, elements) of tables called `calico`."""
    iptables: tuple[Chains, ...] = ()
    ipsets: tuple[str, ...] = ()
    ipset_members: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Of sets of pools."""
    files: frozenset[str] = frozenset()
    """Those that exist, of the paths that were asked for; directories too."""
    networks: tuple[tuple[str, tuple[str, ...], str], ...] = ()
    """CNI configuration files: (path, types of its plugins, name of the network)."""
    ours_bin: bool = False
    """The CNI plugin in place was written by `tortie cni install`."""
    subnet_env: tuple[tuple[str, str], ...] = ()
    """/run/flannel/subnet.env"""
    pods: tuple[Pod, ...] = ()
    processes: tuple[str, ...] = ()
    """Names of the programs that run in this network namespace."""
    agent: bool = False
    """Our agent answers."""
    bird: bool = False
    """There is a BIRD of ours, running or not."""
    sysctl: tuple[tuple[str, str, str, str], ...] = ()
    """What the agent changed: (path, before, written by us, now)."""

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)


def link_from_json(row: dict[str, Any]) -> Link:
    """A row of `ip -d -j address show`."""
    return Link(
        name=row["ifname"],
        kind=row.get("linkinfo", {}).get("info_kind", ""),
        up="UP" in row.get("flags", ()),
        alias=row.get("ifalias", ""),
        master=row.get("master", ""),
        addresses=tuple(
            f"{a['local']}/{a['prefixlen']}"
            for a in row.get("addr_info", ())
            if a.get("scope") != "link" and "local" in a
        ),
    )


def routes_from_json(family: Family, row: dict[str, Any]) -> Route | None:
    """A row of `ip -j -d route show table all`; None for what the kernel keeps for itself."""
    table = str(row.get("table", "main"))
    if table == "local" or row.get("type") in ("local", "broadcast", "multicast", "anycast"):
        return None
    everything = "0.0.0.0/0" if family == 4 else "::/0"
    dst = everything if row["dst"] == "default" else row["dst"]
    return Route(
        family=family,
        destination=str(ip_network(dst, strict=False)),
        protocol=str(row.get("protocol", "")),
        device=row.get("dev", ""),
        gateway=row.get("gateway", ""),
        kind=row.get("type", "unicast"),
        metric=int(row.get("metric", 0)),
        table=table,
    )


def chains_from_save(program: str, text: str) -> Iterator[Chains]:
    """The tables of what `PROGRAM-save` printed."""
    table = ""
    chains: list[str] = []
    rules: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            table, chains, rules = line[1:].strip(), [], []
        elif line.startswith(":"):
            chains.append(line[1:].split()[0])
        elif line.startswith("-A"):
            rules.append(line)
        elif line == "COMMIT":
            yield Chains(program, table, tuple(chains), tuple(rules))
