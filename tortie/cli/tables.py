"""Manifests as table rows: which columns a kind has, with calicoctl's headings where calicoctl has the kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]
Column = tuple[str, Callable[[Manifest], str]]


@dataclass(frozen=True)
class Columns:
    plain: tuple[Column, ...]
    wide: tuple[Column, ...]


def render(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart, without trailing blanks."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return "\n".join("   ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def token(manifest: Manifest) -> str:
    """Which of COLUMNS a manifest belongs to: kinds that share a name differ in their API group."""
    kind = str(manifest["kind"]).lower()
    return f"k8s{kind}" if str(manifest["apiVersion"]).startswith("networking.k8s.io/") else kind


def columns_of(name: str, *, wide: bool, namespaces: bool) -> tuple[Column, ...]:
    """The columns of a kind by its `token`; `namespaces` puts the namespace in front."""
    columns = COLUMNS.get(name, _FALLBACK)
    chosen = columns.wide if wide else columns.plain
    return (("NAMESPACE", _meta("namespace")), *chosen) if namespaces else chosen


def _at(*path: str, default: str = "") -> Callable[[Manifest], str]:
    """The value at a path as text; lists joined with commas."""

    def read(manifest: Manifest) -> str:
        value: Any = manifest
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is None or value == "":
            return default
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list | tuple):
            return ",".join(map(str, value))
        return str(value)

    return read


def _meta(name: str) -> Callable[[Manifest], str]:
    return _at("metadata", name)


def _labels(manifest: Manifest) -> str:
    labels = manifest["metadata"].get("labels") or {}
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) or "<none>"


def _pod_selector(manifest: Manifest) -> str:
    selector = manifest.get("spec", {}).get("podSelector") or {}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        values = f" ({','.join(term['values'])})" if term.get("values") else ""
        terms.append(f"{term['key']} {term['operator']}{values}")
    return ",".join(terms) or "<all>"


def _policy_state(manifest: Manifest) -> str:
    """What the compiler could not carry out."""
    faults = (manifest.get("status") or {}).get("faults") or ()
    return f"{len(faults)} fault{'s' if len(faults) > 1 else ''}" if faults else "ok"


def _pairs(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _labels_to_apply(manifest: Manifest) -> str:
    return _pairs((manifest.get("spec") or {}).get("labelsToApply"))


def _service_selector(manifest: Manifest) -> str:
    return _pairs((manifest.get("spec") or {}).get("selector"))


def _slice_addresses(manifest: Manifest) -> str:
    return ",".join(address for endpoint in manifest.get("endpoints") or () for address in endpoint["addresses"])


def _slice_ports(manifest: Manifest) -> str:
    return ",".join(_port(port) for port in manifest.get("ports") or ())


def _service_ports(manifest: Manifest) -> str:
    return ",".join(_port(port) for port in (manifest.get("spec") or {}).get("ports") or ())


def _external_ips(manifest: Manifest) -> str:
    """As kubectl has it: what a load balancer gave, and what the Service brought along."""
    spec = manifest.get("spec") or {}
    ingress = ((manifest.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = [entry["ip"] for entry in ingress if "ip" in entry] + list(spec.get("externalIPs") or ())
    return ",".join(found) or ("<pending>" if spec.get("type") == "LoadBalancer" else "<none>")


def _port(port: Mapping[str, Any]) -> str:
    return f"{port.get('port', '*')}/{port.get('protocol', 'TCP')}"


def _pod_ips(manifest: Manifest) -> str:
    return ",".join(entry["ip"] for entry in (manifest.get("status") or {}).get("podIPs") or ())


def _internal_ip(family: int) -> Callable[[Manifest], str]:
    """The node's address of a family: calico's, or else the InternalIP."""
    from_bgp = _at("spec", "bgp", f"ipv{family}Address")

    def read(manifest: Manifest) -> str:
        addresses = (manifest.get("spec") or {}).get("addresses") or ()
        plain = (a["address"] for a in addresses if a.get("type") in ("InternalIP", "CalicoNodeIP"))
        return from_bgp(manifest) or next((a for a in plain if (":" in a) == (family == 6)), "")

    return read


def _bgp_peer(manifest: Manifest) -> str:
    spec = manifest.get("spec") or {}
    return str(spec.get("peerIP") or spec.get("peerSelector") or spec.get("localWorkloadSelector") or "")


def _bgp_nodes(manifest: Manifest) -> str:
    spec = manifest.get("spec") or {}
    return str(spec.get("node") or spec.get("nodeSelector") or "(global)")


def _number_of(name: str) -> Callable[[Manifest], str]:
    return lambda manifest: str(len((manifest.get("spec") or {}).get(name) or ()))


_NAME: Column = ("NAME", _meta("name"))
_SELECTOR: Column = ("SELECTOR", _at("spec", "selector", default="all()"))
_POOL_SELECTOR: Column = ("SELECTOR", _at("spec", "nodeSelector", default="all()"))
_CIDR: Column = ("CIDR", _at("spec", "cidr"))
_TIER: Column = ("TIER", _at("spec", "tier", default="default"))
_ORDER: Column = ("ORDER", _at("spec", "order", default="<none>"))
_IPV4: Column = ("IPV4", _internal_ip(4))
_IPV6: Column = ("IPV6", _internal_ip(6))
_LABELS: Column = ("LABELS", _labels)
_NODE: Column = ("NODE", _at("spec", "nodeName"))
_IPS: Column = ("IPS", _pod_ips)
_CREATED: Column = ("CREATED", _meta("creationTimestamp"))

_SERVICE: tuple[Column, ...] = (
    _NAME,
    ("TYPE", _at("spec", "type", default="ClusterIP")),
    ("CLUSTER-IP", _at("spec", "clusterIPs")),
    ("EXTERNAL-IP", _external_ips),
)
_PRIORITY: Column = ("PRIORITY", _at("spec", "priority", default="<none>"))
_PORTS: Column = ("PORTS", _service_ports)
_RESERVED: Column = ("RESERVED-CIDRS", _at("spec", "reservedCIDRs"))
_NETS: Column = ("NETS", _at("spec", "nets"))
_ACTION: Column = ("ACTION", _at("spec", "stagedAction", default="Set"))
_STATE: Column = ("STATE", _policy_state)

_BGP_PEER: tuple[Column, ...] = (
    ("PEERIP", _bgp_peer),
    ("NODE", _bgp_nodes),
    ("ASN", _at("spec", "asNumber")),
)
_BGP_FILTER: tuple[Column, ...] = tuple(
    (f"NUM{way.upper()}", _number_of(way)) for way in ("exportV4", "importV4", "exportV6", "importV6")
)

_FALLBACK = Columns((_NAME,), (_NAME, _LABELS))
_POLICY = Columns((_NAME, _TIER), (_NAME, _TIER, _ORDER, _SELECTOR, _STATE))
_STAGED = Columns((_NAME, _TIER, _ACTION), (_NAME, _TIER, _ACTION, _ORDER, _SELECTOR, _STATE))
_CLUSTER_POLICY = Columns(
    (_NAME, ("TIER", _at("spec", "tier")), _PRIORITY),
    (_NAME, ("TIER", _at("spec", "tier")), _PRIORITY, _CREATED, _STATE),
)
_OLDER_CLUSTER_POLICY = Columns((_NAME, _PRIORITY), (_NAME, _PRIORITY, _CREATED, _STATE))
_NETWORK_SET = Columns((_NAME,), (_NAME, _NETS, _LABELS))

COLUMNS: dict[str, Columns] = {
    "namespace": Columns((_NAME, _CREATED), (_NAME, _CREATED, _LABELS)),
    "serviceaccount": Columns((_NAME, _CREATED), (_NAME, _CREATED, _LABELS)),
    "node": Columns(
        (_NAME, _IPV4, _IPV6),
        (_NAME, ("ASN", _at("spec", "bgp", "asNumber", default="(64512)")), _IPV4, _IPV6, _LABELS),
    ),
    "pod": Columns(
        (_NAME, _NODE, _IPS),
        (_NAME, _NODE, _IPS, ("SERVICEACCOUNT", _at("spec", "serviceAccountName", default="default")), _LABELS),
    ),
    "ippool": Columns(
        (_NAME, _CIDR, _POOL_SELECTOR),
        (
            _NAME,
            _CIDR,
            ("NAT", _at("spec", "natOutgoing", default="false")),
            ("IPIPMODE", _at("spec", "ipipMode", default="Never")),
            ("VXLANMODE", _at("spec", "vxlanMode", default="Never")),
            ("DISABLED", _at("spec", "disabled", default="false")),
            ("DISABLEBGPEXPORT", _at("spec", "disableBGPExport", default="false")),
            _POOL_SELECTOR,
            ("ASSIGNMENTMODE", _at("spec", "assignmentMode", default="Automatic")),
        ),
    ),
    "ipreservation": Columns((_NAME, _RESERVED), (_NAME, _RESERVED, _LABELS)),
    "ipamconfiguration": Columns(
        (_NAME,),
        (
            _NAME,
            ("STRICTAFFINITY", _at("spec", "strictAffinity")),
            ("AUTOALLOCATEBLOCKS", _at("spec", "autoAllocateBlocks")),
            ("MAXBLOCKSPERHOST", _at("spec", "maxBlocksPerHost")),
            ("IPCOOLDOWNSECONDS", _at("spec", "ipCooldownSeconds")),
        ),
    ),
    "felixconfiguration": Columns((_NAME,), (_NAME, _CREATED)),
    "bgpconfiguration": Columns(
        (_NAME, ("MESHENABLED", _at("spec", "nodeToNodeMeshEnabled")), ("ASNUMBER", _at("spec", "asNumber"))),
        (
            _NAME,
            ("LOGSEVERITY", _at("spec", "logSeverityScreen")),
            ("MESHENABLED", _at("spec", "nodeToNodeMeshEnabled")),
            ("ASNUMBER", _at("spec", "asNumber")),
        ),
    ),
    "bgppeer": Columns(
        (_NAME, *_BGP_PEER),
        (_NAME, *_BGP_PEER, ("NEXTHOPMODE", _at("spec", "nextHopMode")), ("FILTERS", _at("spec", "filters"))),
    ),
    "bgpfilter": Columns((_NAME, *_BGP_FILTER), (_NAME, *_BGP_FILTER, _CREATED)),
    "networkpolicy": _POLICY,
    "globalnetworkpolicy": _POLICY,
    "k8snetworkpolicy": Columns(
        (_NAME, ("POD-SELECTOR", _pod_selector)),
        (_NAME, ("POD-SELECTOR", _pod_selector), ("TYPES", _at("spec", "policyTypes")), _CREATED, _STATE),
    ),
    "tier": Columns((_NAME, _ORDER), (_NAME, _ORDER, ("DEFAULTACTION", _at("spec", "defaultAction", default="Deny")))),
    "profile": Columns((_NAME,), (_NAME, ("LABELS", _labels_to_apply))),
    "networkset": _NETWORK_SET,
    "globalnetworkset": _NETWORK_SET,
    "hostendpoint": Columns(
        (_NAME, ("NODE", _at("spec", "node"))),
        (
            _NAME,
            ("NODE", _at("spec", "node")),
            ("INTERFACE", _at("spec", "interfaceName")),
            ("IPS", _at("spec", "expectedIPs")),
            ("PROFILES", _at("spec", "profiles")),
        ),
    ),
    "clusternetworkpolicy": _CLUSTER_POLICY,
    "adminnetworkpolicy": _OLDER_CLUSTER_POLICY,
    "baselineadminnetworkpolicy": Columns((_NAME,), (_NAME, _CREATED, _STATE)),
    "stagednetworkpolicy": _STAGED,
    "stagedglobalnetworkpolicy": _STAGED,
    "stagedkubernetesnetworkpolicy": Columns(
        (_NAME, _ACTION), (_NAME, _ACTION, ("POD-SELECTOR", _pod_selector), _CREATED, _STATE)
    ),
    "service": Columns(
        (*_SERVICE, _PORTS),
        (*_SERVICE, _PORTS, ("SELECTOR", _service_selector)),
    ),
    "endpointslice": Columns(
        (_NAME, ("ADDRESSTYPE", _at("addressType")), ("ENDPOINTS", _slice_addresses)),
        (_NAME, ("ADDRESSTYPE", _at("addressType")), ("PORTS", _slice_ports), ("ENDPOINTS", _slice_addresses)),
    ),
}
