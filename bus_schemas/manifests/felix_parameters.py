"""What Calico's agent can be told and this one does not need: checked as Calico checks it, then passed over.

A configuration of a Calico cluster can be applied as it is. Each parameter that is known has a warning that it has no
effect here, and a wrong value of one is refused: whoever mistyped it should hear of it in either system. The rules are
those of libcalico-go's validator and of the FelixConfiguration CRD.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address

from bus_schemas.manifests.addresses import network
from bus_schemas.manifests.fields import At, Fields, said
from bus_schemas.manifests.numbers import duration

MAX_PORT_RANGES = 7
MAX_ROUTE_TABLES = 65535
"""How many routing tables the ranges may hold together."""

Check = Callable[[At], object]


@dataclass(frozen=True, slots=True)
class Words:
    """One of these; with `any_case` however it is spelt."""

    choices: tuple[str, ...]
    any_case: bool = False
    may_be_empty: bool = False

    def __call__(self, at: At) -> None:
        if not (self.may_be_empty and at.value == ""):
            at.choice(self.choices, any_case=self.any_case)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    low: int
    high: int

    def __call__(self, at: At) -> int:
        return at.integer(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text of this form."""

    regex: str
    what: str
    longest: int | None = None
    may_be_empty: bool = False

    def __call__(self, at: At) -> None:
        text = at.string()
        if at.value != text or (self.may_be_empty and not text):
            return
        if not re.fullmatch(self.regex, text) or (self.longest is not None and len(text) > self.longest):
            at.fault(f"must be {self.what}, not {said(text)}")


@dataclass(frozen=True, slots=True)
class Tables:
    """A range {min, max} of routing tables; its value is how many they are."""

    low: int
    high: int

    def __call__(self, at: At) -> int:
        fields = at.fields()
        first = fields.required("min", lambda end: end.integer(self.low, self.high), self.low)
        last = fields.required("max", lambda end: end.integer(self.low, self.high), self.high)
        if last < first:
            fields.place("max").fault(f"must not be smaller than min, {first}")
        return last - first + 1


@dataclass(frozen=True, slots=True)
class Each:
    """A list, each item of which is to be right."""

    check: Check
    most: int | None = None

    def __call__(self, at: At) -> None:
        for item in at.items(most=self.most):
            self.check(item)


def words(*choices: str) -> Check:
    """One of these, however it is spelt."""
    return Words(choices, any_case=True)


def exactly(*choices: str) -> Check:
    """One of these, spelt like this: Calico takes no other spelling of these parameters."""
    return Words(choices)


def whole(low: int, high: int) -> Check:
    return Whole(low, high)


def each(check: Check, *, most: int | None = None) -> Check:
    return Each(check, most)


def regular_expression(at: At) -> str:
    text = at.string()
    try:
        re.compile(text)
    except re.error as error:
        at.fault(f"must be a regular expression, not {said(text)}: {error}")
    return text


def address4(at: At) -> None:
    try:
        IPv4Address(at.string())
    except AddressValueError:
        at.fault(f"must be an IPv4 address, not {said(at.value)}")


def address6(at: At) -> None:
    try:
        IPv6Address(at.string())
    except AddressValueError:
        at.fault(f"must be an IPv6 address, not {said(at.value)}")


def any_network(at: At) -> None:
    network(at, host=True)


def network4(at: At) -> None:
    try:
        IPv4Network(at.string(), strict=False)
    except ValueError:
        at.fault(f"must be an IPv4 address or CIDR, not {said(at.value)}")


def port_range(at: At) -> None:
    first, _, last = str(at.value).partition(":")
    if isinstance(at.value, bool) or not all(part.isascii() and part.isdecimal() for part in (first, last or first)):
        at.fault(f"must be a port or a range of ports (like 30000:32767), not {said(at.value)}")
    elif not 0 <= int(first) <= int(last or first) <= 65535:
        at.fault(f"must be a range of ports up to 65535, the smaller first, not {said(at.value)}")


def _table_ranges(at: At) -> None:
    count = Tables(1, 0xFFFFFFFF)
    if sum(count(item) for item in at.items()) > MAX_ROUTE_TABLES:
        at.fault(f"must not hold more than {MAX_ROUTE_TABLES} tables")


_HEALTH_NAME = re.compile(r"[A-Za-z0-9_-]+")


def _log_filters(at: At) -> None:
    """Filter expressions by device."""
    for place, device, _ in at.string_map():
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", device):
            place.fault(f"must be by the name of a device, not {said(device)}")


def _health_override(at: At) -> None:
    fields = at.fields()
    name = fields.string("name")
    if not _HEALTH_NAME.fullmatch(name):
        fields.place("name").fault(f"must be a component's name, not {said(name)}")
    fields.required("timeout", _any_duration, "")


_GO_DURATION = re.compile(r"[+]?(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+|0")


def _any_duration(at: At) -> str:
    text = at.string()
    if at.value == text and not _GO_DURATION.fullmatch(text):
        at.fault(f"must be a duration that is not negative (like 90s), not {said(text)}")
    return text


_LEVEL = words("Trace", "Debug", "Info", "Warning", "Error", "Fatal")
_INTERFACE = Pattern(r"[A-Za-z0-9_.-]{1,15}", "a device's name")
_INTERFACE_FILTER = Pattern(r"[A-Za-z0-9:._+-]{1,15}", "a device's name, perhaps with a '+' at its end")
_ON_OFF = exactly("Enabled", "Disabled")
_MARK = whole(0, 0xFFFFFFFF)
_PORT = whole(1, 65535)
_PORT_OR_NONE = whole(0, 65535)
_PRIORITY = whole(1, 0x7FFFFFFE)

_REGION = "a DNS label that still is one behind 'openstack-region-' (at most 46 characters)"

PARAMETERS: dict[str, Check] = {
    "awsSrcDstCheck": exactly("DoNothing", "Enable", "Disable"),
    "bpfAttachType": exactly("TC", "TCX"),
    "bpfConnectTimeLoadBalancing": exactly("TCP", "Enabled", "Disabled"),
    "bpfDataIfacePattern": regular_expression,
    "bpfEnforceRPF": words("Disabled", "Strict", "Loose"),
    "bpfExcludeCIDRsFromNAT": each(any_network),
    "bpfExtToServiceConnmark": _MARK,
    "bpfExternalServiceMode": words("Tunnel", "DSR"),
    "bpfForceTrackPacketsFromIfaces": each(_INTERFACE_FILTER),
    "bpfHostNetworkedNATWithoutCTLB": _ON_OFF,
    "bpfJITHardening": exactly("Auto", "Strict"),
    "bpfL3IfacePattern": regular_expression,
    "bpfLogFilters": _log_filters,
    "bpfLogLevel": Words(("Debug", "Info", "Off"), any_case=True, may_be_empty=True),
    "bpfPSNATPorts": port_range,
    "bpfRedirectToPeer": exactly("Disabled", "Enabled", "L2Only"),
    "chainInsertMode": words("Insert", "Append"),
    "deviceRouteProtocol": whole(0, 255),
    "deviceRouteSourceAddress": address4,
    "deviceRouteSourceAddressIPv6": address6,
    "externalNodesList": each(network4),
    "healthPort": _PORT_OR_NONE,
    "healthTimeoutOverrides": each(_health_override),
    "ipForwarding": _ON_OFF,
    "iptablesBackend": words("Auto", "Legacy", "NFT"),
    "iptablesFilterAllowAction": words("Accept", "Return"),
    "iptablesFilterDenyAction": words("Drop", "Reject"),
    "iptablesMangleAllowAction": words("Accept", "Return"),
    "iptablesMarkMask": _MARK,
    "iptablesNATOutgoingInterfaceFilter": _INTERFACE_FILTER,
    "ipv4ElevatedRoutePriority": _PRIORITY,
    "ipv4NormalRoutePriority": _PRIORITY,
    "ipv6ElevatedRoutePriority": _PRIORITY,
    "ipv6NormalRoutePriority": _PRIORITY,
    "kubeNodePortRanges": each(port_range, most=MAX_PORT_RANGES),
    "logSeverityFile": _LEVEL,
    "logSeverityScreen": _LEVEL,
    "logSeveritySys": _LEVEL,
    "natOutgoingAddress": address4,
    "natPortRange": port_range,
    "nftablesFilterAllowAction": words("Accept", "Return"),
    "nftablesFilterDenyAction": words("Drop", "Reject"),
    "nftablesMangleAllowAction": words("Accept", "Return"),
    "nftablesMarkMask": _MARK,
    "nftablesMode": exactly("Auto", "Enabled", "Disabled"),
    "openstackRegion": Pattern(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", _REGION, longest=46, may_be_empty=True),
    "prometheusMetricsHost": Pattern(r"[A-Za-z0-9:._+-]{1,64}", "a host's name or address"),
    "prometheusMetricsPort": _PORT_OR_NONE,
    "programClusterRoutes": exactly("Enabled", "Disabled", "EnabledIPIPOnly"),
    "routeSource": words("WorkloadIPs", "CalicoIPAM"),
    "routeTableRange": Tables(1, 250),
    "routeTableRanges": _table_ranges,
    "serviceLoopPrevention": words("Drop", "Reject", "Disabled"),
    "windowsManageFirewallRules": _ON_OFF,
    "windowsNetworkName": regular_expression,
    "wireguardInterfaceName": _INTERFACE,
    "wireguardInterfaceNameV6": _INTERFACE,
    "wireguardRoutingRulePriority": whole(1, 32765),
}

_BY_ENDING: tuple[tuple[re.Pattern[str], Check], ...] = (
    (re.compile(r"(?:Enabled|EnabledV6)$"), At.boolean),
    (re.compile(r"(?:Interval|Timeout|Period)(?:Secs)?$"), duration),
)
"""For the parameters that are not in the table: what their names promise."""


def check_unused(fields: Fields) -> None:
    """Judges every parameter that has not been taken yet."""
    used = fields.taken
    if fields.has("routeTableRange") and fields.has("routeTableRanges"):
        fields.place("routeTableRange").fault("cannot be used together with routeTableRanges")
    for name in list(fields.at.value):
        check = PARAMETERS.get(name) or next((c for ending, c in _BY_ENDING if ending.search(name)), None)
        if check is None or name in used:
            continue
        at = fields.take(name)
        if at is not None:
            check(at)
            at.warn("has no effect here")
