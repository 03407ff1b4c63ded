"""The network configuration on the plugin's standard input: Calico's and host-local's keys, read once. Pure.

What a key asks for and this agent cannot give is refused with the reason. Keys that tell Calico's own plugin where its
datastore, its log and its Kubernetes credentials are concern nobody here: the agent has its own.

https://docs.tigera.io/calico/latest/reference/configure-cni-plugins for Calico's keys,
https://www.cni.dev/plugins/current/ipam/host-local/ for host-local's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.node_dataplane import cni_results
from services.node_dataplane.cni_errors import CniError, Code
from services.node_dataplane.cni_results import Previous

_NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_OURS = ("", "calico-ipam", "tortie-ipam")
_HOST_LOCAL = "host-local"
_POD_CIDR = {"usePodCidr": 4, "usePodCidrIPv6": 6}
"""What Calico's plugin puts the node's spec.podCIDRs in the place of."""
_DEFAULT_ROUTES = ("0.0.0.0/0", "::/0")
_RANGE_KEYS = ("rangeStart", "rangeEnd", "gateway")
FEATURES = ("ip_addrs_no_ipam", "floating_ips")
_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
"""Capability of containerd and CRI-O: the runtime tells a pod's annotations itself."""


@dataclass(frozen=True)
class Config:
    """The parts of the network configuration that we act on."""

    version: str
    name: str
    mtu: int = 0
    """0: as the node decides."""
    families: tuple[int, ...] = ()
    """Empty: every family that has a pool."""
    pools4: tuple[str, ...] = ()
    pools6: tuple[str, ...] = ()
    from_pod_cidr: bool = False
    """host-local with usePodCidr: out of the node's own podCIDRs."""
    max_blocks: int | None = None
    """`ipam.max_blocks_per_host`: a lower limit than the cluster's."""
    features: frozenset[str] = frozenset()
    """`feature_control`: those of `FEATURES` that are switched on."""
    nodename: str = ""
    policy_wait_s: float = 0.0
    """`policy_setup_timeout_seconds`: a pod whose policy is not in place by then starts nevertheless, closed. 0: it
    does not start without."""
    ip_forwarding: bool | None = None
    """`container_settings.allow_ip_forwarding`; None: left as the runtime made it."""
    annotations: dict[str, str] | None = None
    """The pod's, where the runtime tells them; None: it does not."""
    labels: dict[str, str] | None = None
    """`args.cni.labels`: of a pod that no Pod resource describes."""
    attachments: frozenset[tuple[str, str]] = frozenset()
    """`cni.dev/valid-attachments` of GC: (container, interface)."""
    previous: Previous | None = None
    """`prevResult`."""


def read(raw: dict[str, Any], version: str, command: str) -> Config:
    """Raises CniError."""
    name = raw.get("name")
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        raise _invalid(f"name is {name!r}, which is not a network's name")
    common = Config(
        version=version,
        name=name,
        labels=_labels(raw),
        attachments=_attachments(raw) if command == "GC" else frozenset(),
        previous=cni_results.previous(raw.get("prevResult")),
    )
    if command in ("DEL", "GC"):
        return common  # A pod goes whatever the configuration asks of those that come.
    ipam = mapping(raw, "ipam")
    families, from_pod_cidr = _source(ipam)
    return Config(
        version=version,
        name=name,
        mtu=_mtu(raw),
        families=families,
        pools4=_strings(ipam, "ipam.ipv4_pools"),
        pools6=_strings(ipam, "ipam.ipv6_pools"),
        from_pod_cidr=from_pod_cidr,
        max_blocks=_max_blocks(ipam),
        features=_features(raw),
        nodename=_string(raw, "nodename"),
        policy_wait_s=_policy_wait(raw),
        ip_forwarding=_ip_forwarding(raw),
        annotations=_annotations(raw),
        labels=common.labels,
        previous=common.previous,
    )


def mapping(raw: dict[str, Any], path: str) -> dict[str, Any]:
    """The object at the last part of a dotted path, empty when there is none. Raises CniError."""
    value = raw.get(path.rpartition(".")[2]) or {}
    if not isinstance(value, dict):
        raise _invalid(f"{path} is not an object")
    return value


# --- where addresses come from


def _source(ipam: dict[str, Any]) -> tuple[tuple[int, ...], bool]:
    """(families, out of the node's podCIDRs)."""
    kind = ipam.get("type") or ""
    if kind in _OURS:
        return _families(ipam), False
    if kind != _HOST_LOCAL:
        raise _invalid(
            f"ipam.type is {kind!r}: addresses come from Tortie itself (calico-ipam, tortie-ipam, or none), or from "
            "the node's podCIDRs (host-local with subnet usePodCidr); it calls no other IPAM plugin"
        )
    rows = list(_subnets(ipam))
    if not rows:
        raise _invalid("ipam.type is host-local, and neither ipam.subnet nor ipam.ranges says usePodCidr")
    families: set[int] = set()
    for subnet, row in rows:
        if not isinstance(subnet, str) or subnet not in _POD_CIDR:
            raise _invalid(
                f"ipam: host-local with subnet {subnet!r} is not supported: make it an IPPool (its nodeSelector says "
                "which nodes), or let it be usePodCidr or usePodCidrIPv6"
            )
        for key in _RANGE_KEYS:
            if row.get(key):
                raise _invalid(
                    f"ipam: host-local's {key} is not supported: an IPReservation keeps addresses out of use"
                )
        families.add(_POD_CIDR[subnet])
    for route in ipam.get("routes") or ():
        if not isinstance(route, dict) or route.get("dst") not in _DEFAULT_ROUTES or route.get("gw"):
            raise _invalid(f"ipam.routes: {route!r} is not supported: a pod has its default routes and no others")
    return tuple(sorted(families)), True


def _subnets(ipam: dict[str, Any]) -> Iterator[tuple[object, dict[str, Any]]]:
    if ipam.get("subnet"):
        yield ipam["subnet"], ipam
    for alternatives in ipam.get("ranges") or ():
        if not isinstance(alternatives, list) or len(alternatives) != 1 or not isinstance(alternatives[0], dict):
            raise _invalid("ipam.ranges is not a list of lists with one object each")
        yield alternatives[0].get("subnet"), alternatives[0]


def _families(ipam: dict[str, Any]) -> tuple[int, ...]:
    """As Calico: assign_ipv4 is on unless it is off, assign_ipv6 is off unless it is on; neither: as the pools are."""
    four, six = _truth(ipam, "ipam.assign_ipv4"), _truth(ipam, "ipam.assign_ipv6")
    if four is None and six is None:
        return ()
    families = ((4,) if four is not False else ()) + ((6,) if six else ())
    if not families:
        raise _invalid("ipam.assign_ipv4 and ipam.assign_ipv6 leave no family to assign")
    return families


def _max_blocks(ipam: dict[str, Any]) -> int | None:
    value = ipam.get("max_blocks_per_host")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _invalid(f"ipam.max_blocks_per_host is {value!r}, not a number of blocks")
    return value or None


# --- the rest of Calico's


def _mtu(raw: dict[str, Any]) -> int:
    mtu = raw.get("mtu", 0)
    if not isinstance(mtu, int) or isinstance(mtu, bool) or not (mtu == 0 or 68 <= mtu <= 65535):
        raise _invalid(f"mtu is {mtu!r}, not a number from 68 to 65535")
    return mtu


def _features(raw: dict[str, Any]) -> frozenset[str]:
    asked = mapping(raw, "feature_control")
    for name in asked:
        if name not in FEATURES and _truth(asked, f"feature_control.{name}"):
            raise _invalid(f"feature_control.{name} is not supported; known are {', '.join(FEATURES)}")
    return frozenset(name for name in FEATURES if _truth(asked, f"feature_control.{name}"))


def _policy_wait(raw: dict[str, Any]) -> float:
    value = raw.get("policy_setup_timeout_seconds", 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise _invalid(f"policy_setup_timeout_seconds is {value!r}, not a number of seconds")
    return float(value)


def _ip_forwarding(raw: dict[str, Any]) -> bool | None:
    return _truth(mapping(raw, "container_settings"), "container_settings.allow_ip_forwarding")


def _annotations(raw: dict[str, Any]) -> dict[str, str] | None:
    told = mapping(raw, "runtimeConfig").get(_ANNOTATIONS)
    if told is None:
        return None
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise _invalid(f"runtimeConfig.{_ANNOTATIONS} is not an object of strings")
    return told


# --- the convention of https://www.cni.dev/docs/conventions/


def _labels(raw: dict[str, Any]) -> dict[str, str] | None:
    """A list of {"key": ..., "value": ...}."""
    rows = mapping(mapping(raw, "args"), "args.cni").get("labels")
    if rows is None:
        return None
    try:
        return {str(row["key"]): str(row["value"]) for row in rows}
    except (TypeError, KeyError) as error:
        raise _invalid("args.cni.labels is not a list of objects with key and value") from error


def _attachments(raw: dict[str, Any]) -> frozenset[tuple[str, str]]:
    rows = raw.get("cni.dev/valid-attachments")
    if rows is None:
        raise _invalid("GC needs cni.dev/valid-attachments in the configuration")
    try:
        return frozenset((str(row["containerID"]), str(row["ifname"])) for row in rows)
    except (TypeError, KeyError) as error:
        raise _invalid("cni.dev/valid-attachments is not a list of objects with containerID and ifname") from error


# --- values


def _truth(raw: dict[str, Any], path: str) -> bool | None:
    """Calico writes truth as a boolean and as a string. None: nothing is said."""
    value = raw.get(path.rpartition(".")[2])
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false", ""):
        return None if not value else value.lower() == "true"
    raise _invalid(f"{path} is {value!r}, neither true nor false")


def _string(raw: dict[str, Any], key: str) -> str:
    value = raw.get(key) or ""
    if not isinstance(value, str):
        raise _invalid(f"{key} is not a string")
    return value


def _strings(raw: dict[str, Any], path: str) -> tuple[str, ...]:
    value = raw.get(path.rpartition(".")[2]) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _invalid(f"{path} is not a list of strings")
    return tuple(value)


def _invalid(message: str) -> CniError:
    return CniError(Code.INVALID_CONFIGURATION, message)
