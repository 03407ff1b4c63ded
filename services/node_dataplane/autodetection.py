"""Which of the node's addresses other nodes are told, by the methods that Calico has. Pure: from the devices as they
are to a verdict on every one of them, so that the choice can be explained.

    what is asked (Node, TORTIE_IP, method) --+
    devices and their addresses --------------+--> Detection: candidates with reasons, those possible in order
    where the kernel would send from ---------+    of preference                      (can-reach only)

Devices are asked in this order: first those with the default route of the family, then by their number in the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Literal, NamedTuple

from services.node_dataplane.routes import Network
from services.node_dataplane.uplink import Interface, Uplink

Kind = Literal["auto", "first-found", "kubernetes-internal-ip", "can-reach", "interface", "skip-interface", "cidr"]

PLAIN: tuple[Kind, ...] = ("auto", "first-found", "kubernetes-internal-ip")
WITH_VALUE: tuple[Kind, ...] = ("can-reach", "interface", "skip-interface", "cidr")
PASSED_OVER = (
    *("docker.*", "cbr.*", "dummy.*", "podman.*", "virbr.*", "lxcbr.*", "veth.*", "lo", "br-.*"),
    *("cali.*", "tunl.*", "flannel.*", "kube-ipvs.*", "cni.*", "vxlan.calico.*", "vxlan-v6.calico.*"),
    *("wireguard.*", "wg-v6.cali.*", "nodelocaldns.*"),
)
"""Names of devices that lead to no other node, as Calico passes them over with `first-found` and `skip-interface`."""
_PASSED_OVER = [(pattern, re.compile(f"{pattern}$")) for pattern in PASSED_OVER]
_COMMA = re.compile(r"\s*,\s*")
MOST_DEVICES = 64
"""So many are told of one by one."""


class Method(NamedTuple):
    kind: Kind
    text: str
    """As the settings say it."""
    patterns: tuple[re.Pattern[str], ...] = ()
    """interface, skip-interface."""
    nets: tuple[IPv4Network | IPv6Network, ...] = ()
    """cidr."""
    target: str = ""
    """can-reach: an address or a name."""


AUTO = Method("auto", "auto")


def method(text: str) -> Method:
    """Raises ValueError with a sentence."""
    kind, equals, value = text.strip().partition("=")
    for plain in PLAIN:
        if kind == plain and not equals:
            return Method(plain, plain)
    for named in WITH_VALUE:
        if kind != named or not value.strip():
            continue
        parts = [part for part in _COMMA.split(value.strip()) if part]
        if named == "can-reach":
            return Method(named, text.strip(), target=value.strip())
        if named == "cidr":
            return Method(named, text.strip(), nets=tuple(map(_net, parts)))
        return Method(named, text.strip(), patterns=tuple(map(_pattern, parts)))
    known = ", ".join((*PLAIN, "can-reach=ADDRESS", "interface=REGEX,...", "skip-interface=REGEX,...", "cidr=CIDR,..."))
    raise ValueError(f"{text!r} is not one of {known}")


def _net(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a CIDR") from None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None


@dataclass(frozen=True)
class Asked:
    """What decides about the address of one family."""

    family: int
    by: str
    """Who asks, for people: a setting, or a field of the Node."""
    method: Method = AUTO
    address: str = ""
    """Exactly this one, with or without a subnet; empty: by the method."""
    internal: str = ""
    """The InternalIP of the Node resource, plain; empty: it has none."""
    none: bool = False
    """There is to be none."""
    device: str = ""
    """Only on this device; empty: any."""
    deliberate: bool = False
    """Somebody set this: that nothing is found is worth a word."""

    @property
    def exact(self) -> str:
        """The one address that is meant, plain; empty: whatever the method finds."""
        if self.address:
            return str(ip_interface(self.address).ip)
        return self.internal if self.method.kind in ("kubernetes-internal-ip", "auto") else ""

    @property
    def words(self) -> str:
        return "none" if self.none else self.address or self.method.text


def asked(family: int, variable: str, said: str, how: str, device: str) -> Asked:
    """From the settings: `said` is the value of `variable`, `how` the method. Raises ValueError with a sentence."""
    try:
        by_method = method(how)
    except ValueError as error:
        raise ValueError(f"{variable}_AUTODETECTION_METHOD: {error}") from None
    if said in ("autodetect", ""):
        by = f"{variable}_AUTODETECTION_METHOD"
        return Asked(family, by, by_method, device=device, deliberate=by_method != AUTO or bool(device))
    if said == "none":
        return Asked(family, variable, by_method, none=True, device=device)
    if not _is_address(said, family):
        raise ValueError(f"{variable}: {said!r} is not autodetect, none or an IPv{family} address")
    return Asked(family, variable, by_method, address=said, device=device, deliberate=True)


def _is_address(text: str, family: int) -> bool:
    try:
        return ip_interface(text).version == family
    except ValueError:
        return False


class Reach(NamedTuple):
    """From which address the kernel would send to the target of `can-reach`."""

    source: str = ""
    """Plain; empty: from none."""
    trouble: str = "not known yet"


UNREACHED = Reach()


@dataclass(frozen=True)
class Candidate:
    device: str
    network: Network | None
    """None: the device has no address of the family."""
    uplink: Uplink | None
    """None: it may not be chosen."""
    reason: str


@dataclass(frozen=True)
class Detection:
    candidates: tuple[Candidate, ...]
    trouble: str = ""
    """Why none is possible; empty when one is."""

    @property
    def possible(self) -> list[Uplink]:
        """In order of preference."""
        return [candidate.uplink for candidate in self.candidates if candidate.uplink is not None]


def detect(interfaces: Sequence[Interface], asked: Asked, reach: Reach = UNREACHED) -> Detection:
    """Every device and address with the verdict on it. Raises ValueError when an address that is asked for is none."""
    family, exact = asked.family, asked.exact
    ordered = sorted(interfaces, key=lambda i: family not in i.defaults)
    candidates = [c for interface in ordered for c in _judge(interface, asked, exact, reach)]
    if any(c.uplink is not None for c in candidates):
        return Detection(tuple(candidates))
    return Detection(tuple(candidates), _trouble(asked, exact, reach))


def _judge(interface: Interface, asked: Asked, exact: str, reach: Reach) -> Iterator[Candidate]:
    refused = _refused(interface, asked, exact)
    networks = [n for n in interface.networks if n.version == asked.family]
    if not networks:
        yield Candidate(interface.name, None, None, refused or f"has no IPv{asked.family} address")
    unfit = dict(interface.unfit)
    for network in networks:
        reason = refused or _unwanted(network, asked, exact, reach) or (not exact and unfit.get(network)) or ""
        uplink = None if reason else Uplink(interface.name, interface.mtu, _whole(network, asked))
        yield Candidate(interface.name, network, uplink, reason or _merit(interface, asked, exact))


def _whole(network: Network, asked: Asked) -> Network:
    """An address that was asked for without a subnet (/32) takes the kernel's."""
    if not asked.address:
        return network
    said = ip_interface(asked.address)
    return said if said.network.prefixlen < said.max_prefixlen else network


def _refused(interface: Interface, asked: Asked, exact: str) -> str:
    """Why a whole device is out; empty: it is not."""
    if interface.own:
        return "is a tunnel of ours"
    if asked.device and interface.name != asked.device:
        return f"is not TORTIE_UPLINK, {asked.device}"
    if not interface.up:
        return "is down"
    if exact:
        return ""
    kind, text = asked.method.kind, asked.method.text
    matching = next((p.pattern for p in asked.method.patterns if p.search(interface.name)), None)
    if kind == "interface" and matching is None:
        return f"does not match {text}"
    if kind == "skip-interface" and matching is not None:
        return f"matches skip-interface={matching}"
    # Whatever it is called, the device of the default route is one that leads somewhere.
    known = kind == "auto" and (asked.family in interface.defaults or bool(asked.device))
    if kind in ("first-found", "skip-interface", "auto") and not known:
        passed_over = next((text for text, pattern in _PASSED_OVER if pattern.match(interface.name)), None)
        if passed_over is not None:
            return f"is of a kind that is passed over ({passed_over})"
    return ""


def _unwanted(network: Network, asked: Asked, exact: str, reach: Reach) -> str:
    """Why one address is out; empty: it is not."""
    ip = network.ip
    if exact:
        return "" if str(ip) == exact else f"is not {exact}, which {asked.by} asks for"
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return "is of no use to other nodes (loopback, link-local or multicast)"
    match asked.method.kind:
        case "kubernetes-internal-ip":
            return f"the Node resource has no InternalIP of IPv{asked.family}"
        case "cidr" if not any(ip.version == net.version and ip in net for net in asked.method.nets):
            return f"is not in {asked.method.text}"
        case "can-reach" if str(ip) != reach.source:
            return f"{asked.method.target}: {_from_where(reach)}"
    return ""


def _from_where(reach: Reach) -> str:
    return f"packets there leave from {reach.source}" if reach.source else reach.trouble


def _merit(interface: Interface, asked: Asked, exact: str) -> str:
    """Why it may be chosen."""
    if exact:
        return f"{asked.by} asks for it"
    default = "; the default route leaves by it" if asked.family in interface.defaults else ""
    if asked.method.kind == "can-reach":
        return f"packets to {asked.method.target} leave from it{default}"
    return f"fits {asked.method.text}{default}"


def _trouble(asked: Asked, exact: str, reach: Reach) -> str:
    if exact:
        where = f"the device {asked.device} does not carry" if asked.device else "no device carries"
        return f"{where} the node's address {exact}"
    if asked.method.kind == "kubernetes-internal-ip":
        return f"the Node resource has no InternalIP of IPv{asked.family}"
    if asked.method.kind == "can-reach":
        return f"no IPv{asked.family} address by {asked.method.text}: {_from_where(reach)}"
    return f"no IPv{asked.family} address by {asked.method.text}"
