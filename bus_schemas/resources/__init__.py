"""The manifests as typed values, one module a family. `KINDS` is the list of everything that can be desired."""

from __future__ import annotations

from bus_schemas.resources.bgp import BGPConfiguration, BGPFilter, BGPPeer
from bus_schemas.resources.calico_policy import (
    GlobalNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
)
from bus_schemas.resources.cluster_policy import AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy
from bus_schemas.resources.configuration import FelixConfiguration
from bus_schemas.resources.core import Namespace, Node, Pod, ServiceAccount
from bus_schemas.resources.metadata import LabelSelector, Metadata, Resource
from bus_schemas.resources.network_policy import KubernetesNetworkPolicy, StagedKubernetesNetworkPolicy
from bus_schemas.resources.policy_scopes import GlobalNetworkSet, HostEndpoint, NetworkSet, Profile, Tier
from bus_schemas.resources.pools import IPAMConfiguration, IPPool, IPReservation
from bus_schemas.resources.services import EndpointSlice, Service

KINDS: dict[str, type[Resource]] = {
    kind.TOKEN: kind
    for kind in (
        Namespace,
        ServiceAccount,
        Node,
        Pod,
        Service,
        EndpointSlice,
        IPPool,
        IPReservation,
        IPAMConfiguration,
        FelixConfiguration,
        BGPConfiguration,
        BGPFilter,
        BGPPeer,
        Tier,
        Profile,
        NetworkSet,
        GlobalNetworkSet,
        KubernetesNetworkPolicy,
        ClusterNetworkPolicy,
        AdminNetworkPolicy,
        BaselineAdminNetworkPolicy,
        NetworkPolicy,
        GlobalNetworkPolicy,
        StagedKubernetesNetworkPolicy,
        StagedNetworkPolicy,
        StagedGlobalNetworkPolicy,
        HostEndpoint,
    )
}
"""By subject token, in the order in which a set of manifests should be applied."""

__all__ = [
    "KINDS",
    "AdminNetworkPolicy",
    "BGPConfiguration",
    "BGPFilter",
    "BGPPeer",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "EndpointSlice",
    "FelixConfiguration",
    "GlobalNetworkPolicy",
    "GlobalNetworkSet",
    "HostEndpoint",
    "IPAMConfiguration",
    "IPPool",
    "IPReservation",
    "KubernetesNetworkPolicy",
    "LabelSelector",
    "Metadata",
    "Namespace",
    "NetworkPolicy",
    "NetworkSet",
    "Node",
    "Pod",
    "Profile",
    "Resource",
    "Service",
    "ServiceAccount",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "StagedNetworkPolicy",
    "Tier",
]
