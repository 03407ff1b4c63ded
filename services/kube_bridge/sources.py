"""What is read of Kubernetes: one row a resource of the API, and what the bridge may do with it. Pure data.

Calico's kinds are in two groups. Whoever uses the public group wins: an object of crd.projectcalico.org/v1 with the
same name is set aside, and named. `docs/kubernetes.md` has this table and the verbs, for whoever writes RBAC.
"""

from __future__ import annotations

from typing import NamedTuple

from bus_schemas.manifests.reading import READERS
from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    ClusterNetworkPolicy,
    EndpointSlice,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IPAMConfiguration,
    IPPool,
    IPReservation,
    KubernetesNetworkPolicy,
    Namespace,
    NetworkPolicy,
    NetworkSet,
    Node,
    Pod,
    Profile,
    Resource,
    Service,
    ServiceAccount,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)

CALICO = "projectcalico.org"
CALICO_STORED = "crd.projectcalico.org"
CLUSTER_POLICY = "policy.networking.k8s.io"
READ_VERBS = ("get", "list", "watch")
STATUS_VERBS = ("patch",)


class Source(NamedTuple):
    """One resource of the API."""

    group: str
    """Empty: core."""
    version: str
    plural: str
    kind: str
    """As Kubernetes calls it."""
    resource: type[Resource]
    custom: bool = False
    """It comes from a CRD, which may not be there."""
    reports: bool = False
    """It has conditions that the bridge writes, where the server has the status subresource."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of the group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def collection(self) -> str:
        """The path of all objects in all namespaces."""
        return f"{self.root}/{self.plural}"

    def object(self, namespace: str, name: str) -> str:
        """The path of one object."""
        return f"{self.root}/namespaces/{namespace}/{self.plural}/{name}" if namespace else f"{self.collection}/{name}"

    @property
    def name(self) -> str:
        """`pods`, `ippools.projectcalico.org`: as kubectl and RBAC call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


CORE_SOURCES = (
    Source("", "v1", "namespaces", "Namespace", Namespace),
    Source("", "v1", "serviceaccounts", "ServiceAccount", ServiceAccount),
    Source("", "v1", "nodes", "Node", Node),
    Source("", "v1", "pods", "Pod", Pod),
    Source("", "v1", "services", "Service", Service),
    Source("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", EndpointSlice),
    Source("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", KubernetesNetworkPolicy),
)
POLICY_SOURCES = tuple(
    Source(CLUSTER_POLICY, version, plural, kind.KIND, kind, custom=True, reports=True)
    for version, plural, kind in (
        ("v1alpha2", "clusternetworkpolicies", ClusterNetworkPolicy),
        ("v1alpha1", "adminnetworkpolicies", AdminNetworkPolicy),
        ("v1alpha1", "baselineadminnetworkpolicies", BaselineAdminNetworkPolicy),
    )
)
_CALICO_KINDS: tuple[tuple[str, type[Resource]], ...] = (
    ("ippools", IPPool),
    ("ipreservations", IPReservation),
    ("ipamconfigurations", IPAMConfiguration),
    ("felixconfigurations", FelixConfiguration),
    ("bgpconfigurations", BGPConfiguration),
    ("bgpfilters", BGPFilter),
    ("bgppeers", BGPPeer),
    ("tiers", Tier),
    ("profiles", Profile),
    ("networksets", NetworkSet),
    ("globalnetworksets", GlobalNetworkSet),
    ("networkpolicies", NetworkPolicy),
    ("globalnetworkpolicies", GlobalNetworkPolicy),
    ("stagedkubernetesnetworkpolicies", StagedKubernetesNetworkPolicy),
    ("stagednetworkpolicies", StagedNetworkPolicy),
    ("stagedglobalnetworkpolicies", StagedGlobalNetworkPolicy),
    ("hostendpoints", HostEndpoint),
)
_STORED_NAMES = {"ipamconfigurations": ("ipamconfigs", "IPAMConfig")}
"""What the stored group calls otherwise."""


def _calico(group: str, version: str) -> tuple[Source, ...]:
    rows = []
    for plural, kind in _CALICO_KINDS:
        stored = _STORED_NAMES.get(plural) if group == CALICO_STORED else None
        name, said = stored or (plural, kind.KIND)
        rows.append(Source(group, version, name, said, kind, custom=True, reports=True))
    return tuple(rows)


SOURCES: tuple[Source, ...] = (
    *CORE_SOURCES,
    *POLICY_SOURCES,
    *_calico(CALICO, "v3"),
    *_calico(CALICO_STORED, "v1"),
)
"""In the order of precedence: of two objects with one key the one of the earlier source counts."""

RANK = {source: rank for rank, source in enumerate(SOURCES)}
KINDS_MIRRORED = tuple(dict.fromkeys(source.resource for source in SOURCES))

assert all((source.api_version, source.kind) in READERS for source in SOURCES)


class Rule(NamedTuple):
    """What RBAC must allow."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str


RULES: tuple[Rule, ...] = (
    *(Rule(source.group, source.plural, READ_VERBS, "mirrored") for source in SOURCES),
    Rule("", "nodes/status", STATUS_VERBS, "condition NetworkUnavailable"),
    Rule("", "services/status", STATUS_VERBS, "load-balancer addresses"),
    *(Rule(s.group, f"{s.plural}/status", STATUS_VERBS, "conditions") for s in SOURCES if s.reports),
    Rule("events.k8s.io", "events", ("create",), "what is wrong with an object"),
    Rule("coordination.k8s.io", "leases", ("get", "create", "update"), "who is active; in the Lease's namespace"),
)
"""Everything that the bridge asks of the API server, but for discovery (`/apis/...`), which every account may read."""
