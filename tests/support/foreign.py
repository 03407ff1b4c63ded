"""Everything that somebody else may have on a node, beside ours and as like ours as may be, and a way to see that none
of it was touched."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterable
from typing import Any

from tests.support.netns import Namespace

PROTOCOLS = ("boot", "static", "bird", "zebra", "babel", "ra", "80", "83", "85", "186", "253")
"""Of routing daemons, of Felix (80), and of numbers next to ours."""
TABLES = ("main", "100", "200", "default")
OWN_RANGE = ("10.244.{}.{}/26", "fd00:244:{}::{:x}/122")
"""Where our own routes are."""
ELSEWHERE = ("172.20.{}.{}/28", "fd00:99:{}::{:x}/124")
MAC = "02:00:00:00:{:02x}:{:02x}"

Command = tuple[str, ...]
_COUNTER = re.compile(r"counter packets \d+ bytes \d+")

FIXED: tuple[Command, ...] = (
    ("ip", "link", "add", "br-other", "type", "bridge"),
    ("ip", "link", "set", "br-other", "up"),
    ("ip", "link", "add", "vxlan.other", "type", "vxlan", "id", "77", "dev", "up0", "dstport", "8472"),
    ("ip", "link", "set", "vxlan.other", "up"),
    ("ip", "address", "add", "172.31.0.1/24", "dev", "vxlan.other"),
    ("ip", "link", "add", "torch0", "type", "veth", "peer", "name", "torch1"),
    ("ip", "link", "set", "torch0", "up", "group", "77"),
    ("ip", "link", "add", "tortie", "type", "bridge"),
    ("ip", "link", "add", "vxlan-tortie", "type", "bridge"),
    ("ip", "neigh", "add", "10.0.0.77", "lladdr", MAC.format(0, 1), "dev", "up0", "nud", "permanent"),
    ("ip", "-6", "neigh", "add", "fd00::77", "lladdr", MAC.format(0, 2), "dev", "up0", "nud", "permanent"),
    ("ip", "neigh", "add", "proxy", "10.0.0.78", "dev", "up0"),
    ("ip", "neigh", "add", "172.31.0.2", "lladdr", MAC.format(0, 3), "dev", "vxlan.other", "nud", "permanent"),
    ("bridge", "fdb", "add", MAC.format(0, 3), "dev", "vxlan.other", "dst", "10.0.0.9", "self", "permanent"),
    ("bridge", "fdb", "add", MAC.format(0, 4), "dev", "br-other", "self", "permanent"),
    ("ip", "rule", "add", "priority", "99", "fwmark", "0x84", "table", "100"),
    ("ip", "rule", "add", "priority", "84", "from", "10.244.0.0/16", "table", "200"),
    ("ip", "-6", "rule", "add", "priority", "84", "from", "fd00:244::/48", "table", "200"),
    # Our number in a table that is not ours, and our destinations with other metrics.
    ("ip", "route", "add", "10.244.1.0/26", "via", "10.0.0.9", "proto", "84", "table", "100"),
    ("ip", "route", "add", "10.244.0.64/26", "via", "10.0.0.9", "proto", "static", "metric", "77"),
    ("ip", "-6", "route", "add", "fd00:244::40/122", "via", "fd00::9", "proto", "static", "metric", "2048"),
    ("ip", "route", "add", "10.244.0.0/16", "via", "10.0.0.9", "proto", "bird"),
    ("nft", "add", "table", "ip", "tortie"),
    ("nft", "add", "chain", "ip", "tortie", "pod_ingress", "{ type filter hook forward priority 5; }"),
    ("nft", "add", "table", "inet", "tortie2"),
    ("nft", "add", "set", "inet", "tortie2", "s", "{ type ipv4_addr; elements = { 10.244.0.5 }; }"),
    ("iptables-legacy", "-t", "filter", "-N", "KUBE-FORWARD"),
    ("iptables-legacy", "-t", "filter", "-A", "FORWARD", "-j", "KUBE-FORWARD"),
    ("iptables-nft", "-t", "nat", "-N", "KUBE-SERVICES"),
    ("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.0/16", "-j", "MASQUERADE"),
    ("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-m", "comment", "--comment", "kube", "-j", "KUBE-SERVICES"),
    ("ipset", "create", "other", "hash:net"),
    ("ipset", "add", "other", "10.244.0.0/16"),
)


def routes(seed: int, count: int) -> list[Command]:
    """Random routes of many protocols, kinds and tables, in our ranges and elsewhere."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        six = dice.random() < 0.4
        ranges = OWN_RANGE if dice.random() < 0.5 else ELSEWHERE
        first, step = dice.randrange(10, 200), 64 if ranges is OWN_RANGE else 16
        where = ranges[six].format(first, dice.randrange(0, 256, step))
        kind = dice.choice(("unicast", "unicast", "unicast", "blackhole", "unreachable", "prohibit", "throw"))
        via = "fd00::9" if six else "10.0.0.9"
        hop = dice.choice((("via", via, "dev", "up0"), ("dev", "up0"))) if kind == "unicast" else ()
        metric = (
            str(dice.choice((0, 20, 100, 1024, 4294967295))) if not six else str(dice.choice((20, 512, 1024, 2048)))
        )
        words = (kind, where, *hop, "proto", dice.choice(PROTOCOLS), "metric", metric, "table", dice.choice(TABLES))
        made.append(("ip", "-6" if six else "-4", "route", "replace", *words))
    return made


def make(namespace: Namespace, commands: Iterable[Command]) -> None:
    """The device `up0` with 10.0.0.1/24 and fd00::1/64 must be there."""
    for command in commands:
        if command[0] == "nft":
            namespace.run("nft", "-f", "-", text=" ".join(command[1:]) + "\n")
        else:
            namespace.run(*command)


def snapshot(namespace: Namespace) -> dict[str, list[str]]:
    """All that is not ours, by its own mark: protocol 84 in the main table, our devices, our nftables table."""
    return {
        **{f"routes {family}": _routes(namespace, family) for family in ("-4", "-6")},
        **{f"rules {family}": namespace.ip(family, "rule").splitlines() for family in ("-4", "-6")},
        "links": sorted(
            f"{row['ifname']} {row.get('linkinfo', {}).get('info_kind')} {row['mtu']} {row.get('group')}"
            f" {row.get('address')} {'UP' in row['flags']}"
            f" {[address['local'] for address in row['addr_info'] if address['scope'] != 'link']}"
            for row in _json(namespace, "ip", "-d", "-j", "address")
            if not _is_ours(row["ifname"])
        ),
        "neighbours": sorted(
            f"{row['dst']} {row['dev']} {row.get('lladdr')}"
            for options in ((), ("-6",))
            for row in _json(namespace, "ip", *options, "-j", "neigh", "show", "nud", "permanent")
            if not _is_ours(row["dev"])
        ),
        "proxies": namespace.ip("neigh", "show", "proxy").splitlines(),
        "fdb": sorted(
            f"{row['mac']} {row['ifname']} {row.get('dst')}"
            for row in _json(namespace, "bridge", "-j", "fdb", "show")
            if not _is_ours(row["ifname"]) and not row["mac"].startswith(("33:33", "01:00"))
        ),
        "nft": _ruleset(namespace),
        "legacy": _without_comments(namespace.run("iptables-legacy-save")),
        "ipset": namespace.run("ipset", "save").splitlines(),
    }


def _routes(namespace: Namespace, family: str) -> list[str]:
    rows = []
    for row in _json(namespace, "ip", family, "-j", "route", "show", "table", "all"):
        ours = str(row.get("protocol")) == "84" and row.get("table", "main") == "main"
        kernels = row.get("protocol") == "kernel" or row.get("table") == "local"
        if not ours and not kernels:
            rows.append(json.dumps(row, sort_keys=True))
    return sorted(rows)


def _is_ours(device: str) -> bool:
    return device.endswith(".tortie") or (device.startswith("tor") and len(device) == 14)


def _json(namespace: Namespace, *command: str) -> list[dict[str, Any]]:
    return [row for row in json.loads(namespace.run(*command) or "[]") if row]


def _ruleset(namespace: Namespace) -> list[str]:
    with namespace.inside():
        text = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    lines, skip = [], False
    for line in text.splitlines():
        if line.startswith("table "):
            skip = line.split()[1:3] in (["inet", "tortie"], ["inet", "tortie_meanwhile"])
        if not skip:
            lines.append(_COUNTER.sub("counter", line))
    return lines


def _without_comments(text: str) -> list[str]:
    """Nor counters."""
    return [line.partition(" [")[0] for line in text.splitlines() if not line.startswith("#")]
