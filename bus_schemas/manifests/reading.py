"""Documents -> resources: finds the reader of every object and turns its report into an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bus_schemas.manifests import (
    bgp_configuration,
    bgp_filter,
    bgp_peer,
    calico_policy,
    cluster_policy,
    configuration,
    core_kinds,
    network_policy,
    node,
    policy_scopes,
    pools,
    services,
)
from bus_schemas.manifests.documents import Unreadable, documents
from bus_schemas.manifests.envelope import (
    CALICO,
    CALICO_STORED,
    CLUSTER_POLICY,
    CORE,
    DISCOVERY,
    KUBERNETES_POLICY,
    OLDER_CLUSTER_POLICY,
)
from bus_schemas.manifests.fields import At, Fields, Report, Unknown, said
from bus_schemas.manifests.outcomes import Accepted, Fault, Read, Rejected
from bus_schemas.resources import Resource

Reader = Callable[[Fields], Resource]


def _calico(reader: Callable[..., Resource], kind: str) -> dict[tuple[str, str], Reader]:
    """A kind of Calico's: in its public group, and as it is stored."""
    return {
        (CALICO, kind): lambda document: reader(document, stored=False),
        (CALICO_STORED, kind): lambda document: reader(document, stored=True),
    }


READERS: dict[tuple[str, str], Reader] = {
    (CORE, "Namespace"): core_kinds.namespace,
    (CORE, "ServiceAccount"): core_kinds.service_account,
    (CORE, "Pod"): core_kinds.pod,
    (CORE, "Node"): node.core_node,
    (CALICO, "Node"): node.calico_node,
    (KUBERNETES_POLICY, "NetworkPolicy"): network_policy.kubernetes_network_policy,
    (CLUSTER_POLICY, "ClusterNetworkPolicy"): cluster_policy.cluster_network_policy,
    (OLDER_CLUSTER_POLICY, "AdminNetworkPolicy"): cluster_policy.admin_network_policy,
    (OLDER_CLUSTER_POLICY, "BaselineAdminNetworkPolicy"): cluster_policy.baseline_admin_network_policy,
    **_calico(pools.pool, "IPPool"),
    **_calico(pools.reservation, "IPReservation"),
    (CALICO, "IPAMConfiguration"): lambda document: pools.ipam_configuration(document, stored=False),
    (CALICO_STORED, "IPAMConfig"): lambda document: pools.ipam_configuration(document, stored=True),
    **_calico(configuration.felix_configuration, "FelixConfiguration"),
    **_calico(bgp_configuration.bgp_configuration, "BGPConfiguration"),
    **_calico(bgp_filter.bgp_filter, "BGPFilter"),
    **_calico(bgp_peer.bgp_peer, "BGPPeer"),
    (CORE, "Service"): services.service,
    (DISCOVERY, "EndpointSlice"): services.endpoint_slice,
    **_calico(policy_scopes.tier, "Tier"),
    **_calico(policy_scopes.profile, "Profile"),
    **_calico(policy_scopes.network_set, "NetworkSet"),
    **_calico(policy_scopes.global_network_set, "GlobalNetworkSet"),
    **_calico(policy_scopes.host_endpoint, "HostEndpoint"),
    **_calico(calico_policy.network_policy, "NetworkPolicy"),
    **_calico(calico_policy.global_network_policy, "GlobalNetworkPolicy"),
    **_calico(calico_policy.staged_network_policy, "StagedNetworkPolicy"),
    **_calico(calico_policy.staged_global_network_policy, "StagedGlobalNetworkPolicy"),
    **_calico(network_policy.staged_kubernetes_network_policy, "StagedKubernetesNetworkPolicy"),
}
"""By apiVersion and kind."""

_UNKNOWN = {
    CORE: Unknown.IGNORED,
    DISCOVERY: Unknown.IGNORED,
    KUBERNETES_POLICY: Unknown.REFUSED,
    CLUSTER_POLICY: Unknown.REFUSED,
    OLDER_CLUSTER_POLICY: Unknown.REFUSED,
}
"""What an unknown field beside metadata and spec means, by apiVersion."""

NOT_YET = frozenset(
    (
        "BlockAffinity",
        "CalicoNodeStatus",
        "ClusterInformation",
        "KubeControllersConfiguration",
        "WorkloadEndpoint",
    )
)
"""Kinds of Calico's that nothing here carries out."""


@dataclass(frozen=True, slots=True)
class _Object:
    value: Any
    prefix: str
    """`items[2].` in a list, otherwise empty."""
    line: int
    api_version: str = ""
    kind: str = ""
    """What the list says of its items, for items that do not say it themselves."""


def read(text: str, source: str = "stdin") -> list[Read]:
    """What every object of the text comes to, in order. A fault in one leaves the others as they are."""
    outcomes: list[Read] = []
    for document in documents(text):
        if isinstance(document, Unreadable):
            fault = Fault(len(outcomes), "", document.reason, document.line, source)
            outcomes.append(Rejected((fault,), len(outcomes)))
            continue
        for found in _objects(document.value, document.line):
            outcomes.append(_read_object(found, len(outcomes), source))
    return outcomes


def read_object(value: Any, source: str = "") -> Read:
    """One object that is already parsed (of the Kubernetes API, of a request's JSON)."""
    return _read_object(_Object(value, "", 0), 0, source)


def _objects(value: Any, line: int) -> Iterator[_Object]:
    """The object itself, or the items of a `List`, `PodList` ..."""
    kind = value.get("kind") if isinstance(value, dict) else None
    items = value.get("items") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(items, list | None):
        yield _Object(value, "", line)
        return
    of, api_version = kind.removesuffix("List"), value.get("apiVersion")
    for i, item in enumerate(items or []):
        yield _Object(item, f"items[{i}].", line, api_version if of and isinstance(api_version, str) else "", of)


def _read_object(found: _Object, index: int, source: str) -> Read:
    report = Report()
    resource: Resource | None = None
    display = ""
    if not isinstance(found.value, dict):
        report.faults.append(("", f"must be an object with apiVersion, kind and metadata, not {said(found.value)}"))
    else:
        display = _display(found)
        document = Fields(At(found.value, "", report))
        reader = _reader(document, found)
        if reader is not None:
            resource = reader(document)
            document.known("metadata", "spec", "status")
            document.close(_UNKNOWN.get(document.string("apiVersion", found.api_version), Unknown.NEARLY_REFUSED))
    if report.faults or resource is None:
        faults = tuple(
            Fault(index, found.prefix + path if path else found.prefix.rstrip("."), reason, found.line, source)
            for path, reason in dict.fromkeys(report.faults)
        )
        return Rejected(faults, index, display)
    return Accepted(resource, tuple(found.prefix + warning for warning in report.warnings), index)


def _reader(document: Fields, found: _Object) -> Reader | None:
    api_version = document.string("apiVersion", found.api_version)
    kind = document.string("kind", found.kind)
    if not api_version or not kind:
        for name, value in (("apiVersion", api_version), ("kind", kind)):
            if not value:
                document.place(name).fault("is required")
        return None
    reader = READERS.get((api_version, kind))
    if reader is None:
        document.place("kind").fault(_why_not(api_version, kind))
    return reader


def _why_not(api_version: str, kind: str) -> str:
    versions = sorted(version for version, known in READERS if known == kind)
    if versions:
        return f"{kind} is known with the apiVersion {' or '.join(versions)}, not {said(api_version)}"
    if kind in NOT_YET and api_version in (CALICO, CALICO_STORED):
        return f"{kind} is not supported yet"
    kinds = ", ".join(dict.fromkeys(known for _, known in READERS))
    return f"{kind} of {said(api_version)} is no kind known here ({kinds})"


def _display(found: _Object) -> str:
    metadata = found.value.get("metadata")
    name, namespace = (metadata.get("name"), metadata.get("namespace")) if isinstance(metadata, dict) else (None, None)
    parts = (found.value.get("kind") or found.kind, namespace, name)
    return "/".join(part for part in parts if isinstance(part, str) and part)
