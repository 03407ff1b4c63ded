"""What an ADD answers, and what other plugins of the same list answered before. Pure.

In a list each plugin gets the result of the one before it (`prevResult`) and answers with that and its own part; CHECK
gets what the last one answered. So of a previous result only what belongs to our interface can be ours. The runtime
converts results to the version of the list, so their parts are taken as they are.

https://www.cni.dev/docs/spec/, "ADD success"; versions before 1.0 name the family in each address, 1.1 knows the MTU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from services.node_dataplane.cni_errors import CniError, Code
from services.node_dataplane.gateway import GATEWAY4, GATEWAY6, NODE_MAC

Row = dict[str, Any]


@dataclass(frozen=True)
class Previous:
    interfaces: tuple[Row, ...] = ()
    ips: tuple[Row, ...] = ()
    routes: tuple[Row, ...] = ()
    dns: Row | None = None

    def addresses(self, interface: str) -> tuple[str, ...]:
        """Plain addresses of the container's interface; those that name no interface are taken for its own."""
        return tuple(
            str(row["address"]).partition("/")[0]
            for row in self.ips
            if "interface" not in row or self._is(row["interface"], interface)
        )

    def _is(self, index: int, interface: str) -> bool:
        if not 0 <= index < len(self.interfaces):
            return False
        row = self.interfaces[index]
        return row.get("name") == interface and bool(row.get("sandbox"))


def previous(raw: object) -> Previous | None:
    """The configuration's `prevResult`. Raises CniError."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise _wrong("it is not an object")
    dns = raw.get("dns")
    if dns is not None and not isinstance(dns, dict):
        raise _wrong("dns is not an object")
    ips = _rows(raw, "ips")
    for row in ips:
        if not isinstance(row.get("address"), str) or not isinstance(row.get("interface", 0), int):
            raise _wrong("ips are not addresses, each of an interface by its number")
    return Previous(_rows(raw, "interfaces"), ips, _rows(raw, "routes"), dns)


def result(
    version: str,
    *,
    link: str,
    interface: str,
    netns: str,
    mac: str,
    mtu: int,
    addresses: Sequence[str],
    before: Previous | None = None,
) -> str:
    """In the shape of `version`, behind the result of the plugins `before`."""
    before = before or Previous()
    near: Row = {"name": link, "mac": NODE_MAC}
    far: Row = {"name": interface, "mac": mac, "sandbox": netns}
    if version == "1.1.0":
        near["mtu"] = far["mtu"] = mtu
    position = len(before.interfaces) + 1
    ips = [_address(version, address, position) for address in addresses]
    routes = [{"dst": "::/0" if ":" in row["address"] else "0.0.0.0/0", "gw": row["gateway"]} for row in ips]
    answer = {
        "cniVersion": version,
        "interfaces": [*before.interfaces, near, far],
        "ips": [*before.ips, *ips],
        "routes": [*before.routes, *routes],
        "dns": before.dns or {},
    }
    return msgspec.json.encode(answer).decode()


def _address(version: str, address: str, position: int) -> Row:
    six = ":" in address
    row: Row = {
        "address": f"{address}/{128 if six else 32}",
        "gateway": GATEWAY6 if six else GATEWAY4,
        "interface": position,
    }
    if version < "1":
        row["version"] = "6" if six else "4"
    return row


def _rows(raw: Row, key: str) -> tuple[Row, ...]:
    value = raw.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise _wrong(f"{key} is not a list of objects")
    return tuple(value)


def _wrong(why: str) -> CniError:
    return CniError(Code.UNDECODABLE, "prevResult is not a CNI result", why)
