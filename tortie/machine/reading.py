"""Reads a machine: `ip`, `nft`, `iptables-save`, `ipset` and files. Nothing is changed; a program that is not there has
nothing to show."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tortie.cli.errors import Refused
from tortie.cni import install
from tortie.machine.state import (
    Chains,
    Link,
    Machine,
    NftTable,
    Pod,
    Route,
    Rule,
    chains_from_save,
    link_from_json,
    routes_from_json,
)

PROGRAMS = ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft")
POOL_SETS = ("cali40all-ipam-pools", "cali60all-ipam-pools", "cali40masq-ipam-pools", "cali60masq-ipam-pools")
MARK = "Written by `tortie cni install`"


@dataclass(frozen=True)
class Places:
    """Where things are; `root` stands before every path but those of our own agent."""

    root: Path = Path("/")
    state_dir: Path = Path("/var/lib/tortie")
    cni_socket: Path = Path("/run/tortie/cni.sock")
    bin_dir: Path = install.PLUGINS
    conf_dir: Path = install.NETWORKS
    cache_dir: Path = Path("/var/lib/cni")

    def at(self, path: str | Path) -> Path:
        return self.root / str(path).lstrip("/")


def read(places: Places, files: Iterable[str] = ()) -> Machine:
    """`files`: paths of which to say whether they exist. Raises Refused where the kernel cannot be read."""
    ipsets = _lines("ipset", "list", "-n")
    env = places.at("/run/flannel/subnet.env")
    return Machine(
        links=tuple(_links()),
        routes=tuple(_routes()),
        rules=tuple(_rules()),
        nft_tables=tuple(_nft_tables()),
        nft_sets=tuple(_nft_sets()),
        iptables=tuple(_iptables()),
        ipsets=tuple(ipsets),
        ipset_members=tuple((name, tuple(_members(name))) for name in ipsets if name in POOL_SETS),
        files=frozenset(path for path in files if os.path.lexists(places.at(path))),
        networks=tuple(_networks(places.conf_dir)),
        ours_bin=_is_ours(places.bin_dir / install.NAME),
        subnet_env=tuple(_assignments(env.read_text())) if env.is_file() else (),
        pods=tuple(_pods(places.cache_dir / "results")),
        processes=tuple(_processes()),
        agent=_answers(places.cni_socket),
        bird=any((places.state_dir / "bird" / name).exists() for name in ("bird.conf", "bird.ctl")),
        sysctl=tuple(_sysctl(places.state_dir / "sysctl.json")),
    )


# --- kernel


def _run(*command: str) -> str | None:
    """The output; None when there is no such program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        raise Refused(f"`{shlex.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _json(*command: str) -> list[dict[str, Any]]:
    text = _run(*command)
    if text is None:
        raise Refused(f"there is no `{command[0]}` on this machine: install iproute2 and nftables")
    return [row for row in json.loads(text or "[]") if row]


def _lines(*command: str) -> list[str]:
    return (_run(*command) or "").splitlines()


def _links() -> Iterator[Link]:
    return map(link_from_json, _json("ip", "-d", "-j", "address", "show"))


def _routes() -> Iterator[Route]:
    for family in (4, 6):
        for row in _json("ip", f"-{family}", "-j", "-d", "route", "show", "table", "all"):
            hops = row.get("nexthops") or [{}]
            for hop in hops:
                found = routes_from_json(family, {**row, **hop})
                if found is not None:
                    yield found


def _rules() -> Iterator[Rule]:
    for family in (4, 6):
        for line in _lines("ip", f"-{family}", "rule", "show"):
            priority, _, rest = line.partition(":")
            words = rest.split()
            if "lookup" in words:
                at = words.index("lookup")
                yield Rule(family, int(priority), words[at + 1], tuple(words[:at]))


def _nft_tables() -> Iterator[NftTable]:
    text = _run("nft", "-j", "list", "tables")
    for row in json.loads(text)["nftables"] if text else ():
        if "table" in row:
            yield NftTable(row["table"]["family"], row["table"]["name"])


def _nft_sets() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    for table in _nft_tables():
        if table.name != "calico":
            continue
        for row in json.loads(_run("nft", "-j", "list", "table", table.family, table.name) or "{}")["nftables"]:
            if "set" in row and "ipam-pools" in row["set"]["name"]:
                elements = tuple(map(_element, row["set"].get("elem", ())))
                yield table.family, table.name, row["set"]["name"], elements


def _element(element: Any) -> str:
    if isinstance(element, dict) and "prefix" in element:
        return f"{element['prefix']['addr']}/{element['prefix']['len']}"
    return str(element)


def _iptables() -> Iterator[Chains]:
    for program in PROGRAMS:
        names = Path("/proc/net/ip6_tables_names" if "6" in program.partition("-")[0] else "/proc/net/ip_tables_names")
        if program.endswith("legacy") and not (names.exists() and names.read_text().strip()):
            continue  # To ask would make the tables that it asks for.
        yield from chains_from_save(program, "\n".join(_lines(f"{program}-save")))


def _members(name: str) -> list[str]:
    lines = _lines("ipset", "list", name)
    return [line.split()[0] for line in lines[lines.index("Members:") + 1 :] if line] if "Members:" in lines else []


# --- files and processes


def _networks(directory: Path) -> Iterator[tuple[str, tuple[str, ...], str]]:
    for path in sorted(directory.glob("*")) if directory.is_dir() else ():
        if path.suffix not in (".conf", ".conflist", ".json") or not path.is_file():
            continue
        try:
            read = json.loads(path.read_text())
            plugins = read.get("plugins", [read])
            yield str(path), tuple(str(plugin["type"]) for plugin in plugins), str(read.get("name", ""))
        except (ValueError, KeyError, TypeError):
            yield str(path), (), ""


def _is_ours(path: Path) -> bool:
    try:
        return MARK in path.read_text(errors="replace")[:4096]
    except OSError:
        return False


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals:
            yield name, value


def _pods(directory: Path) -> Iterator[Pod]:
    for path in sorted(directory.glob("*")) if directory.is_dir() else ():
        try:
            read = json.loads(path.read_text())
            arguments = dict(read.get("cniArgs") or ())
            result = read["result"]
        except (ValueError, KeyError, TypeError, OSError):
            continue
        named = "/".join(filter(None, (arguments.get("K8S_POD_NAMESPACE"), arguments.get("K8S_POD_NAME"))))
        yield Pod(
            name=named or f"container {str(read.get('containerId', ''))[:12]}",
            network=str(read.get("networkName", "")),
            links=tuple(i["name"] for i in result.get("interfaces", ()) if not i.get("sandbox")),
            addresses=tuple(str(ip["address"]).partition("/")[0] for ip in result.get("ips", ())),
        )


def _processes() -> Iterator[str]:
    here = os.readlink("/proc/self/ns/net")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns" / "net") == here:
                    yield (entry / "comm").read_text().strip()
            except OSError:
                continue  # It has ended.


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def _sysctl(notes: Path) -> Iterator[tuple[str, str, str, str]]:
    try:
        noted = json.loads(notes.read_text())
    except (OSError, ValueError):
        return
    for path, (before, ours) in noted.items():
        try:
            now = Path("/proc/sys/net", path).read_text().strip()
        except OSError:
            continue
        yield path, before, ours, now
