"""What the kernel of a node or pod holds, as iproute2 prints it, and whether a wanted row is among it.

Rows are compared by the keys that the wanted one has: networks by value (`10.244.0.1` is `10.244.0.1/32`), `flags` and
`state` as subsets, a forwarding entry's device by either name that iproute2 has for it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tortie.lab import fabric

Table = Literal["routes", "neighbours", "fdb"]
Row = Mapping[str, Any]

COMMANDS: dict[Table, tuple[tuple[str, ...], ...]] = {
    "routes": (("ip", "-n", "{netns}", "-j", "route", "show"), ("ip", "-n", "{netns}", "-j", "-6", "route", "show")),
    "neighbours": (("ip", "-n", "{netns}", "-j", "neigh", "show"),),
    "fdb": (("bridge", "-n", "{netns}", "-j", "fdb", "show"),),
}


def commands(table: Table, netns: str) -> list[list[str]]:
    """What a person would type to see the table."""
    return [[word.format(netns=netns) for word in command] for command in COMMANDS[table]]


async def read(table: Table, netns: str) -> list[Row]:
    """Raises CannotDo."""
    rows: list[Row] = []
    for command in commands(table, netns):
        rows += json.loads(await fabric.run(*command) or "[]")
    return rows


async def link(netns: str, device: str) -> Row | None:
    """The device with its addresses, None when there is none of that name."""
    for row in json.loads(await fabric.run("ip", "-n", netns, "-j", "-d", "addr", "show") or "[]"):
        if row.get("ifname") == device:
            return dict(row)
    return None


def matching(rows: Iterable[Row], wanted: Row) -> list[Row]:
    """The rows that have everything that the wanted one says."""
    return [row for row in rows if all(_agrees(row, key, value) for key, value in wanted.items())]


def near(rows: Iterable[Row], wanted: Row) -> list[Row]:
    """The rows about the same destination: what a person wants to see when nothing matches."""
    return matching(rows, {"dst": wanted["dst"]} if "dst" in wanted else {})


def _agrees(row: Row, key: str, wanted: Any) -> bool:
    if key == "dev":
        return wanted in (row.get("dev"), row.get("ifname"))
    held = row.get(key)
    if key == "dst":
        return held is not None and _network(str(held)) == _network(str(wanted))
    if isinstance(held, list):
        parts = wanted if isinstance(wanted, list) else [wanted]
        return all(part in held for part in parts)
    return str(held) == str(wanted) if held is not None else False


def _network(text: str) -> object:
    """The network that the text means, or the text itself (`default`)."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return text
