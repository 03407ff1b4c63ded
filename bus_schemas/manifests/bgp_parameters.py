"""What Calico's BIRD can be told and nothing here uses: checked as Calico checks it, then passed over.

The rules are those of libcalico-go's validator for a BGPConfiguration. A community is `AS:value` (RFC 1997) or
`AS:data:data` (RFC 8092), or the name of one that the configuration itself defines.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from bus_schemas.manifests.addresses import address, network
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.numbers import duration
from bus_schemas.manifests.ports import port_number

_STANDARD = re.compile(r"([0-9]{1,12}):([0-9]{1,12})")
_LARGE = re.compile(r"([0-9]{1,12}):([0-9]{1,12}):([0-9]{1,12})")
_INTERFACE = re.compile(r"[A-Za-z0-9_.*-]{1,15}")

_AGGREGATION = ("Enabled", "Disabled")
_BIND_MODES = ("None", "NodeIP")
_CLUSTER_ROUTES = ("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")
MAX_PRIORITY = 0x7FFFFFFE


def check_unused(fields: Fields) -> None:
    """Judges every parameter that nothing here uses; each has a warning that it has no effect."""
    defined = _communities(fields)
    for at in fields.items("prefixAdvertisements"):
        _advertisement(at.fields(), defined)
    for name in ("serviceClusterIPs", "serviceExternalIPs", "serviceLoadBalancerIPs"):
        for at in fields.items(name):
            _service_block(at.fields())
    for at in fields.items("ignoredInterfaces"):
        _ignored_interface(at)
    for name, check in _PARAMETERS.items():
        fields.maybe(name, check)
    if fields.read("nodeToNodeMeshEnabled", lambda at: at.value is False, False):
        for name in ("nodeMeshPassword", "nodeMeshMaxRestartTime"):
            if (given := fields.take(name)) is not None:
                given.fault("cannot be set when nodeToNodeMeshEnabled is false")
    fields.unused("communities", "prefixAdvertisements", "ignoredInterfaces", "serviceClusterIPs", *_PARAMETERS)
    fields.unused("serviceExternalIPs", "serviceLoadBalancerIPs", "nodeMeshPassword")


def _communities(fields: Fields) -> frozenset[str]:
    """The names that are defined."""
    names = set()
    for at in fields.items("communities"):
        community = at.fields()
        names.add(community.string("name"))
        community.required("value", _value, None)
        community.close(Unknown.REFUSED)
    if names and not fields.items("prefixAdvertisements"):
        fields.place("communities").fault("are not used by any of the prefixAdvertisements")
    return frozenset(names)


def _value(at: At) -> None:
    if not _is_value(at.string()):
        at.fault(f"must be a community (like 64512:100 or 64512:1:100), not {said(at.value)}")


def _is_value(text: str) -> bool:
    if parts := _STANDARD.fullmatch(text):
        return all(int(part) <= 0xFFFF for part in parts.groups())
    if parts := _LARGE.fullmatch(text):
        return all(int(part) <= 0xFFFFFFFF for part in parts.groups())
    return False


def _advertisement(fields: Fields, defined: frozenset[str]) -> None:
    fields.required("cidr", lambda at: network(at, host=True), None)
    for at in fields.items("communities"):
        text = at.string()
        if text not in defined and not _is_value(text):
            at.fault(f"must be a community or the name of one that is defined, not {said(text)}")
    fields.close(Unknown.REFUSED)


def _service_block(fields: Fields) -> None:
    fields.required("cidr", lambda at: network(at, host=True), None)
    fields.close(Unknown.REFUSED)


def _ignored_interface(at: At) -> None:
    name = at.string()
    if name == "*" or not _INTERFACE.fullmatch(name):
        at.fault(f"must be a device's name or a pattern like eth*, but not of every device, not {said(name)}")


def _address(family: int) -> Callable[[At], object]:
    return lambda at: at.value == "" or address(at, family=family)


def _priority(at: At) -> int:
    return at.integer(1, MAX_PRIORITY)


_PARAMETERS: dict[str, Callable[[At], object]] = {
    "bindMode": lambda at: at.choice(_BIND_MODES),
    "ipv4NormalRoutePriority": _priority,
    "ipv6NormalRoutePriority": _priority,
    "listenPort": port_number,
    "localWorkloadPeeringIPV4": _address(4),
    "localWorkloadPeeringIPV6": _address(6),
    "nodeMeshMaxRestartTime": duration,
    "programClusterRoutes": lambda at: at.choice(_CLUSTER_ROUTES, any_case=True),
    "serviceLoadBalancerAggregation": lambda at: at.choice(_AGGREGATION),
}
