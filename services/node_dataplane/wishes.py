"""What a pod asks for: its annotations, those of its namespace, and the network configuration, by precedence. Pure.

    ipv4pools, ipv6pools, ipFamilies     pod > namespace > configuration
    ipAddrs                              exactly these, assigned by the address service
    ipAddrsNoIpam                        exactly these, assigned by nobody: feature_control.ip_addrs_no_ipam allows it
    floatingIPs                          translated to the pod's own, both ways: feature_control.floating_ips and
                                         FelixConfiguration floatingIPs allow it
    allowedSourcePrefixes                what it may send from beside its own: workloadSourceSpoofing Any allows it
    hwAddr                               the MAC of its device

Where ipAddrs, ipAddrsNoIpam or hwAddr say nothing, what the runtime asks for counts (`cni_asked`).
All of them begin with `cni.projectcalico.org/` and mean what they mean to Calico. A value that cannot be honoured is an
error that names the annotation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import msgspec

from bus_schemas.ids import NodeName
from bus_schemas.ipam import AssignRequest
from services.node_dataplane import identity
from services.node_dataplane.cni_errors import CniError, Code
from services.node_dataplane.cni_protocol import Call

PREFIX = "cni.projectcalico.org/"
POOLS = {4: "ipv4pools", 6: "ipv6pools"}
FAMILIES, ADDRESSES, NO_IPAM = "ipFamilies", "ipAddrs", "ipAddrsNoIpam"
FLOATING, SOURCES, MAC = "floatingIPs", "allowedSourcePrefixes", "hwAddr"

_FAMILY = {"ipv4": 4, "ipv6": 6}
_MAC = re.compile("[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")

Annotations = Mapping[str, str]


@dataclass(frozen=True)
class Allowed:
    """What FelixConfiguration lets pods ask for."""

    floating: bool = False
    sources: bool = False


@dataclass(frozen=True)
class Wishes:
    families: tuple[int, ...] = ()
    """Empty: every family that has a pool."""
    pools: tuple[str, ...] = ()
    pools_of: tuple[int, ...] = ()
    """The family that each of `pools` is named for."""
    addresses: tuple[str, ...] = ()
    unassigned: tuple[str, ...] = ()
    """`ipAddrsNoIpam`."""
    floating: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """CIDRs."""
    mac: str = ""
    from_pod_cidr: bool = False
    max_blocks: int | None = None

    @property
    def particular(self) -> bool:
        """Not any address of the families will do."""
        return bool(
            self.pools or self.addresses or self.unassigned or self.from_pod_cidr or self.max_blocks is not None
        )


def wishes(call: Call, pod: Annotations, namespace: Annotations, allowed: Allowed) -> Wishes:
    """Raises CniError."""
    config = call.config
    configured = {4: config.pools4, 6: config.pools6}
    pools = {family: _pools(pod, namespace, family) or configured[family] for family in POOLS}
    addresses = _one_of_each_family(ADDRESSES, _addresses(pod, ADDRESSES))
    unassigned = _one_of_each_family(NO_IPAM, _addresses(pod, NO_IPAM))
    floating = _addresses(pod, FLOATING)
    sources = _sources(pod)
    if addresses and unassigned:
        raise _wrong(NO_IPAM, f"{ADDRESSES} says something else: only one of them can be")
    if unassigned and "ip_addrs_no_ipam" not in config.features:
        raise _wrong(NO_IPAM, 'the network configuration does not allow it ("feature_control": ip_addrs_no_ipam)')
    if floating and "floating_ips" not in config.features:
        raise _wrong(FLOATING, 'the network configuration does not allow it ("feature_control": floating_ips)')
    if floating and not allowed.floating:
        raise _wrong(FLOATING, "FelixConfiguration does not allow it (spec.floatingIPs: Enabled)")
    if floating and unassigned:
        raise _wrong(FLOATING, f"they lead to addresses that are assigned, and {NO_IPAM} says that the pod's are not")
    if sources and not allowed.sources:
        raise _wrong(SOURCES, "FelixConfiguration does not allow it (spec.workloadSourceSpoofing: Any)")
    addresses = addresses or (() if unassigned else call.asked.addresses)
    if config.from_pod_cidr and call.asked.addresses == addresses != ():
        raise CniError(
            Code.INVALID_CONFIGURATION,
            f"the runtime asks for {', '.join(addresses)}, and the network configuration takes addresses from the "
            "node's podCIDRs (host-local)",
        )
    if config.from_pod_cidr and (addresses or pod.get(PREFIX + POOLS[4]) or pod.get(PREFIX + POOLS[6])):
        raise _wrong(
            ADDRESSES if addresses else POOLS[4 if pod.get(PREFIX + POOLS[4]) else 6],
            "the network configuration takes addresses from the node's podCIDRs (host-local)",
        )
    return Wishes(
        families=_families(pod) or _families(namespace) or config.families,
        pools=() if config.from_pod_cidr else pools[4] + pools[6],
        pools_of=() if config.from_pod_cidr else (4,) * len(pools[4]) + (6,) * len(pools[6]),
        addresses=addresses,
        unassigned=unassigned,
        floating=floating,
        sources=sources,
        mac=_mac(pod) or call.asked.mac,
        from_pod_cidr=config.from_pod_cidr,
        max_blocks=config.max_blocks,
    )


def request(call: Call, node: NodeName, wishes: Wishes) -> AssignRequest:
    """Of the pod's own addresses."""
    pod = identity.pod_of(call)
    return AssignRequest(
        node=node,
        handle=identity.handle_of(call),
        families=() if wishes.addresses else wishes.families,
        namespace=pod.namespace,
        pod=pod.name,
        addresses=wishes.addresses,
        pools=wishes.pools,
        pools_of=wishes.pools_of,
        from_pod_cidr=wishes.from_pod_cidr,
        max_blocks_per_node=wishes.max_blocks,
    )


def floating_request(call: Call, node: NodeName, wishes: Wishes) -> AssignRequest:
    pod = identity.pod_of(call)
    return AssignRequest(
        node=node,
        handle=identity.floating_handle_of(call),
        namespace=pod.namespace,
        pod=pod.name,
        use="floating",
        addresses=wishes.floating,
    )


def translated(floating: tuple[str, ...], own: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Each floating address with the pod's own of its family, as `Endpoint.floating` has it. Raises CniError."""
    by_family = {ip_address(address).version: address for address in own}
    pairs = []
    for address in floating:
        version = ip_address(address).version
        if version not in by_family:
            raise _wrong(FLOATING, f"{address} is of IPv{version}, and the pod has no address of that family")
        pairs.append((address, by_family[version]))
    return tuple(pairs)


def asked_beside(pod: Annotations, namespace: Annotations, addresses: tuple[str, ...], mac: str) -> tuple[str, ...]:
    """The annotations that ask for something which a pod that got a warm address without being asked has not got."""
    found = [PREFIX + name for name in (ADDRESSES, NO_IPAM, FLOATING, SOURCES) if pod.get(PREFIX + name)]
    found += [PREFIX + name for name in POOLS.values() if pod.get(PREFIX + name) or namespace.get(PREFIX + name)]
    if (asked := pod.get(PREFIX + MAC, "").strip().lower()) and asked.replace("-", ":") != mac:
        found.append(PREFIX + MAC)
    try:
        families = _families(pod) or _families(namespace)
    except CniError:
        families = (0,)
    if families and set(families) != {ip_address(address).version for address in addresses}:
        found.append(PREFIX + FAMILIES)
    return tuple(found)


# --- annotations


def _pools(pod: Annotations, namespace: Annotations, family: int) -> tuple[str, ...]:
    """Names or CIDRs."""
    name = POOLS[family]
    pools = _strings(pod, name) or _strings(namespace, name)
    for pool in pools:
        try:
            version = ip_network(pool, strict=False).version
        except ValueError:
            continue  # A name.
        if version != family:
            raise _wrong(name, f"{pool} is of IPv{version}")
    return pools


def _families(annotations: Annotations) -> tuple[int, ...]:
    named = _strings(annotations, FAMILIES)
    for name in named:
        if name.lower() not in _FAMILY:
            raise _wrong(FAMILIES, f"{name!r} is neither IPv4 nor IPv6")
    return tuple(sorted({_FAMILY[name.lower()] for name in named}))


def _addresses(annotations: Annotations, name: str) -> tuple[str, ...]:
    return tuple(str(_address(name, text)) for text in dict.fromkeys(_strings(annotations, name)))


def _address(name: str, text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise _wrong(name, f"{text!r} is no address") from error
    # What stands behind a % is anything.
    if "%" in text or address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local:
        raise _wrong(name, f"{text} can be no pod's address")
    return address


def _one_of_each_family(name: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
    versions = [ip_address(address).version for address in addresses]
    if len(set(versions)) < len(versions):
        raise _wrong(name, "a pod has one address of each family")
    return addresses


def _sources(annotations: Annotations) -> tuple[str, ...]:
    found = []
    for text in _strings(annotations, SOURCES):
        try:
            network = ip_network(text, strict=False)
        except ValueError as error:
            raise _wrong(SOURCES, f"{text!r} is no network") from error
        if "%" in text:
            raise _wrong(SOURCES, f"{text!r} is no network of all links")
        found.append(str(network))
    return tuple(dict.fromkeys(found))


def _mac(annotations: Annotations) -> str:
    text = annotations.get(PREFIX + MAC, "").strip()
    if not text:
        return ""
    if not _MAC.fullmatch(text):
        raise _wrong(MAC, f"{text!r} is no MAC address")
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise _wrong(MAC, f"{text} is no address of a single device")
    return mac


def _strings(annotations: Annotations, name: str) -> tuple[str, ...]:
    text = annotations.get(PREFIX + name, "").strip()
    if not text:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise _wrong(name, "it is not a JSON list of strings", str(error)) from error


def _wrong(name: str, why: str, details: str = "") -> CniError:
    return CniError(Code.INVALID_CONFIGURATION, f"annotation {PREFIX}{name}: {why}", details)
