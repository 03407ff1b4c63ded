"""The manifests as typed values, one module a family. `KINDS` is the list of everything that can be desired."""

from __future__ import annotations

from bus_schemas.resources.calico_policy import GlobalNetworkPolicy, NetworkPolicy
from bus_schemas.resources.configuration import BGPConfiguration, FelixConfiguration
from bus_schemas.resources.core import Namespace, Node, Pod, ServiceAccount
from bus_schemas.resources.metadata import LabelSelector, Metadata, Resource
from bus_schemas.resources.network_policy import KubernetesNetworkPolicy
from bus_schemas.resources.pools import IPPool

KINDS: dict[str, type[Resource]] = {
    kind.TOKEN: kind
    for kind in (
        Namespace,
        ServiceAccount,
        Node,
        Pod,
        IPPool,
        FelixConfiguration,
        BGPConfiguration,
        KubernetesNetworkPolicy,
        NetworkPolicy,
        GlobalNetworkPolicy,
    )
}
"""By subject token, in the order in which a set of manifests should be applied."""

__all__ = [
    "KINDS",
    "BGPConfiguration",
    "FelixConfiguration",
    "GlobalNetworkPolicy",
    "IPPool",
    "KubernetesNetworkPolicy",
    "LabelSelector",
    "Metadata",
    "Namespace",
    "NetworkPolicy",
    "Node",
    "Pod",
    "Resource",
    "ServiceAccount",
]
