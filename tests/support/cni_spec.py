"""The CNI specification's word on results: which fields each version has, of what shape.

https://www.cni.dev/docs/spec/ (1.1.0) and its tags spec-v1.0.0, spec-v0.4.0 and spec-v0.3.1 for the older ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_NEWEST = "1.1.0"
_INTERFACE = {"name": str, "mac": str, "sandbox": str}
_ROUTE = {"dst": str, "gw": str}
_DNS = {"nameservers": list, "domain": str, "search": list, "options": list}


def complaints(result: Mapping[str, Any], version: str) -> list[str]:
    """What is wrong with the result of an ADD; empty: nothing."""
    return list(_complaints(result, version))


def _complaints(result: Mapping[str, Any], version: str) -> Iterator[str]:
    if result.get("cniVersion") != version:
        yield f"cniVersion is {result.get('cniVersion')!r}"
    yield from _fields(
        "result", result, {"cniVersion": str, "interfaces": list, "ips": list, "routes": list, "dns": dict}
    )
    interfaces = result.get("interfaces", [])
    more = {"mtu": int, "socketPath": str, "pciID": str} if version >= _NEWEST else {}
    for interface in interfaces:
        yield from _fields("interface", interface, _INTERFACE | more)
        if not interface.get("name"):
            yield "an interface without a name"
        if not _MAC.fullmatch(interface.get("mac", "")):
            yield f"interface {interface.get('name')}: mac is {interface.get('mac')!r}"
    old = version < "1"
    for row in result.get("ips", []):
        yield from _fields(
            "ip", row, {"address": str, "gateway": str, "interface": int} | ({"version": str} if old else {})
        )
        address = ip_interface(row["address"])
        if "/" not in row["address"]:
            yield f"{row['address']} is not in CIDR notation"
        if old and row.get("version") != str(address.version):
            yield f"{row['address']}: version is {row.get('version')!r}"
        if "gateway" in row and ip_address(row["gateway"]).version != address.version:
            yield f"{row['address']}: gateway {row['gateway']} is of the other family"
        if "interface" in row and not 0 <= row["interface"] < len(interfaces):
            yield f"{row['address']}: there is no interface {row['interface']}"
    for route in result.get("routes", []):
        yield from _fields("route", route, _ROUTE | ({"mtu": int, "advmss": int, "priority": int} if not old else {}))
        ip_network(route["dst"])
    yield from _fields("dns", result.get("dns", {}), _DNS)


def _fields(what: str, found: Mapping[str, Any], known: Mapping[str, type]) -> Iterator[str]:
    for name, value in found.items():
        if name not in known:
            yield f"{what} has a field {name}, which its version does not know"
        elif not isinstance(value, known[name]):
            yield f"{what}.{name} is {value!r}"
