"""flannel's configuration as manifests: the same network, blocks and way between nodes, under Calico's names.

    net-conf.json (or the ConfigMap that holds it) ---> IPPools, FelixConfiguration       (pure)

    host-gw     both modes Never
    vxlan       vxlanMode Always, with DirectRouting CrossSubnet; flannel's port 8472 and VNI 1
    ipip        ipipMode Always, with DirectRouting CrossSubnet
    wireguard   wireguardEnabled; port 51820

The source is flannel's Documentation/configuration.md and Documentation/backends.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

Document = dict[str, Any]

KEY = "net-conf.json"
"""Of the ConfigMap's data."""
_VERSION = "projectcalico.org/v3"
_BLOCK = {4: 24, 6: 64}
"""SubnetLen and IPv6SubnetLen, where they are not given."""
_NETWORK = {4: ("Network", "EnableIPv4", "SubnetLen"), 6: ("IPv6Network", "EnableIPv6", "IPv6SubnetLen")}
_BLOCKS = {4: range(20, 33), 6: range(116, 129)}
"""Prefix lengths that a block may have."""
_NARROWED = ("SubnetMin", "SubnetMax", "IPv6SubnetMin", "IPv6SubnetMax")


class FlannelFault(ValueError):
    """The text cannot be converted; says where and why."""


@dataclass(frozen=True)
class Converted:
    documents: tuple[Document, ...]
    warnings: tuple[str, ...]
    """What of the configuration the manifests do not say."""


@dataclass(frozen=True)
class _Way:
    """Between nodes."""

    pool: Mapping[str, str]
    felix: Mapping[str, Any]
    known: frozenset[str]
    """Fields of Backend that are taken over."""


def configuration(document: Any) -> Any:
    """net-conf.json of what was read: itself, or the ConfigMap's. Raises FlannelFault."""
    if isinstance(document, dict) and document.get("kind") == "ConfigMap":
        text = (document.get("data") or {}).get(KEY)
        if not isinstance(text, str):
            raise FlannelFault(f"the ConfigMap has no data.{KEY}")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise FlannelFault(f"data.{KEY}: {error}") from error
    return document


def convert(configuration: Any) -> Converted:
    """The manifests for net-conf.json. Raises FlannelFault."""
    if not isinstance(configuration, dict):
        raise FlannelFault(f"this is not flannel's {KEY}: an object with Network and Backend is expected")
    backend = configuration.get("Backend") or {}
    if not isinstance(backend, dict):
        raise FlannelFault("Backend is not an object")
    families = [family for family, names in _NETWORK.items() if configuration.get(names[1], family == 4)]
    if not families:
        raise FlannelFault("EnableIPv4 and EnableIPv6 are both false: there is no network")
    # flannel's backend is udp where none is named, which nobody means
    kind = backend.get("Type", "")
    make = _BACKENDS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise FlannelFault(f"Backend.Type: {kind!r} is none of {', '.join(_BACKENDS)}")
    way = make(backend, families)
    warnings = [
        f"{name}: a pool cannot leave out a part of its network; reserve it by an IPReservation"
        for name in _NARROWED
        if name in configuration
    ]
    warnings += [f"Backend.{name} has no counterpart" for name in backend if name not in {"Type", *way.known}]
    documents = [_pool(configuration, family, way, warnings) for family in families]
    if way.felix:
        felix = {"apiVersion": _VERSION, "kind": "FelixConfiguration", "metadata": {"name": "default"}}
        documents.insert(0, {**felix, "spec": dict(way.felix)})
    return Converted(tuple(documents), tuple(warnings))


def _pool(configuration: Document, family: int, way: _Way, warnings: list[str]) -> Document:
    name, _, length = _NETWORK[family]
    try:
        network = ip_network(configuration[name])
    except KeyError:
        raise FlannelFault(f"{name} is missing") from None
    except ValueError as error:
        raise FlannelFault(f"{name}: {error}") from None
    if network.version != family:
        raise FlannelFault(f"{name}: {network} is not an IPv{family} network")
    block = configuration.get(length, max(_BLOCK[family], network.prefixlen))
    if not isinstance(block, int) or isinstance(block, bool) or not network.prefixlen <= block <= network.max_prefixlen:
        raise FlannelFault(f"{length}: {block!r} is not the length of a network inside {network}")
    if block not in _BLOCKS[family]:
        nearest = min(_BLOCKS[family], key=lambda allowed: abs(allowed - block))
        block = max(nearest, network.prefixlen)
        warnings.append(f"{length}: blocks have {_BLOCKS[family][0]} to {_BLOCKS[family][-1]} bits, so it is {block}")
    spec = {"cidr": str(network), "blockSize": block, "natOutgoing": True, **way.pool}
    return {"apiVersion": _VERSION, "kind": "IPPool", "metadata": {"name": f"flannel-ipv{family}"}, "spec": spec}


def _mode(backend: Document) -> str:
    direct = backend.get("DirectRouting", False)
    if not isinstance(direct, bool):
        raise FlannelFault(f"Backend.DirectRouting: {direct!r} is not true or false")
    return "CrossSubnet" if direct else "Always"


def _number(backend: Document, name: str, default: int, largest: int) -> int:
    value = backend.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= largest:
        raise FlannelFault(f"Backend.{name}: {value!r} is not a number between 1 and {largest}")
    return value


def _host_gw(backend: Document, families: list[int]) -> _Way:
    return _Way({"vxlanMode": "Never", "ipipMode": "Never"}, {}, frozenset())


def _vxlan(backend: Document, families: list[int]) -> _Way:
    felix = {
        "vxlanPort": _number(backend, "Port", 8472, 65535),
        "vxlanVNI": _number(backend, "VNI", 1, (1 << 24) - 1),
        **({"vxlanMTU": _number(backend, "MTU", 1450, 65535)} if "MTU" in backend else {}),
    }
    known = frozenset({"Port", "VNI", "MTU", "DirectRouting"})
    return _Way({"vxlanMode": _mode(backend), "ipipMode": "Never"}, felix, known)


def _ipip(backend: Document, families: list[int]) -> _Way:
    if 6 in families:
        raise FlannelFault("Backend.Type: ipip carries IPv4 only, and EnableIPv6 is true")
    return _Way({"ipipMode": _mode(backend), "vxlanMode": "Never"}, {}, frozenset({"DirectRouting"}))


def _wireguard(backend: Document, families: list[int]) -> _Way:
    if backend.get("PSK"):
        raise FlannelFault("Backend.PSK: nodes make keys of their own, and no key is shared; leave it out")
    port = _number(backend, "ListenPort", 51820, 65534)
    felix: Document = {}
    for family, suffix in ((4, ""), (6, "V6")):
        if family in families:
            felix[f"wireguardEnabled{suffix}"] = True
            felix[f"wireguardListeningPort{suffix}"] = port + (family == 6)
    if seconds := backend.get("PersistentKeepaliveInterval"):
        if not isinstance(seconds, int) or isinstance(seconds, bool):
            raise FlannelFault(f"Backend.PersistentKeepaliveInterval: {seconds!r} is not a number of seconds")
        felix["wireguardKeepAlive"] = f"{seconds}s"
    # where a node has no key yet, packets take the way that the pool says
    known = frozenset({"ListenPort", "PSK", "PersistentKeepaliveInterval"})
    return _Way({"vxlanMode": "Never", "ipipMode": "Never"}, felix, known)


_BACKENDS: dict[str, Callable[[Document, list[int]], _Way]] = {
    "host-gw": _host_gw,
    "vxlan": _vxlan,
    "ipip": _ipip,
    "wireguard": _wireguard,
}
