"""policy.networking.k8s.io: ClusterNetworkPolicy (v1alpha2), and the two kinds that it replaced (v1alpha1).

The older kinds are read into the same rules: AdminNetworkPolicy is tier Admin, BaselineAdminNetworkPolicy is tier
Baseline with the only priority there is. https://network-policy-api.sigs.k8s.io/
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.metadata import LabelSelector, Resource


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class NamespacedPods(_Part, frozen=True, kw_only=True):
    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector = LabelSelector()


class ClusterPolicySubject(_Part, frozen=True, kw_only=True):
    """Exactly one is set."""

    namespaces: LabelSelector | None = None
    """All pods of these namespaces."""
    pods: NamespacedPods | None = None


class ClusterPolicyPeer(_Part, frozen=True, kw_only=True):
    """Exactly one is set; the last three in egress only."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None
    nodes: LabelSelector | None = None
    """The addresses of these nodes."""
    networks: tuple[str, ...] = ()
    """CIDRs of either family."""
    domain_names: tuple[str, ...] = ()
    """Kept for its name: a rule with it is refused, there is nothing that could carry it out."""


class ClusterPolicyPort(_Part, frozen=True, kw_only=True):
    """A protocol and a range of destination ports, or a named port (which brings its protocol)."""

    protocol: Literal["TCP", "UDP", "SCTP"] | None = None
    first: int | None = None
    """None with a protocol: every port of it."""
    last: int | None = None
    name: str = ""


class ClusterPolicyRule(_Part, frozen=True, kw_only=True):
    action: Literal["Accept", "Deny", "Pass"]
    """`Allow` of the older kinds is read as Accept."""
    name: str = ""
    peers: tuple[ClusterPolicyPeer, ...]
    """`from` or `to`; never empty."""
    ports: tuple[ClusterPolicyPort, ...] = ()
    """Empty: every protocol and port."""


class ClusterNetworkPolicySpec(_Part, frozen=True, kw_only=True):
    tier: Literal["Admin", "Baseline"] = "Admin"
    priority: int = 0
    """0 to 1000, the lowest first."""
    subject: ClusterPolicySubject
    ingress: tuple[ClusterPolicyRule, ...] = ()
    egress: tuple[ClusterPolicyRule, ...] = ()


class ClusterNetworkPolicy(Resource, tag="clusternetworkpolicy/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "policy.networking.k8s.io/v1alpha2"
    KIND: ClassVar[str] = "ClusterNetworkPolicy"
    TOKEN: ClassVar[str] = "clusternetworkpolicy"
    PLURAL: ClassVar[str] = "clusternetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("cnp",)
    NAMESPACED: ClassVar[bool] = False

    spec: ClusterNetworkPolicySpec


class AdminNetworkPolicy(Resource, tag="adminnetworkpolicy/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "policy.networking.k8s.io/v1alpha1"
    KIND: ClassVar[str] = "AdminNetworkPolicy"
    TOKEN: ClassVar[str] = "adminnetworkpolicy"
    PLURAL: ClassVar[str] = "adminnetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("anp",)
    NAMESPACED: ClassVar[bool] = False

    spec: ClusterNetworkPolicySpec
    """`tier` is always Admin."""


class BaselineAdminNetworkPolicy(Resource, tag="baselineadminnetworkpolicy/1", frozen=True, kw_only=True):
    """There is at most one, named `default`."""

    API_VERSION: ClassVar[str] = "policy.networking.k8s.io/v1alpha1"
    KIND: ClassVar[str] = "BaselineAdminNetworkPolicy"
    TOKEN: ClassVar[str] = "baselineadminnetworkpolicy"
    PLURAL: ClassVar[str] = "baselineadminnetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("banp",)
    NAMESPACED: ClassVar[bool] = False

    spec: ClusterNetworkPolicySpec
    """`tier` is always Baseline."""
