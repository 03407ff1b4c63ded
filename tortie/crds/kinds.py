"""How the kinds look in `kubectl get`: short names and columns.

Which kinds there are, their groups, versions and plurals say `services.kube_bridge.sources`: what is installed is what
the bridge reads. Short names are Calico's, in its public group alone: in both they would be ambiguous.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bus_schemas.resources import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IPAMConfiguration,
    IPPool,
    IPReservation,
    NetworkPolicy,
    NetworkSet,
    Profile,
    Resource,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)
from services.kube_bridge.conditions import ACCEPTED, ALLOCATABLE, PROGRAMMED


class Column(NamedTuple):
    """One of `kubectl get`."""

    name: str
    path: str
    """A JSONPath."""
    type: str = "string"
    wide: bool = False
    """Only with `-o wide`."""


class Looks(NamedTuple):
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()


def _condition(type_: str) -> Column:
    return Column(type_, f".status.conditions[?(@.type=='{type_}')].status")


ENDING = (
    _condition(ACCEPTED),
    Column("Reason", f".status.conditions[?(@.type=='{ACCEPTED}')].reason", wide=True),
    Column("Age", ".metadata.creationTimestamp", "date"),
)
"""The last columns of every kind."""

_ORDER = Column("Order", ".spec.order")
"""As text: a server would print the number 1000000 as 1e+06."""
_POLICY = (
    Column("Tier", ".spec.tier"),
    _ORDER,
    Column("Selector", ".spec.selector", wide=True),
    _condition(PROGRAMMED),
)
_STAGED = (Column("Action", ".spec.stagedAction"), *_POLICY)

LOOKS: Mapping[type[Resource], Looks] = {
    IPPool: Looks(
        (),
        (
            Column("CIDR", ".spec.cidr"),
            Column("IPIP", ".spec.ipipMode"),
            Column("VXLAN", ".spec.vxlanMode"),
            Column("NAT", ".spec.natOutgoing", "boolean"),
            Column("Disabled", ".spec.disabled", "boolean", wide=True),
            Column("Block Size", ".spec.blockSize", "integer", wide=True),
            Column("Selector", ".spec.nodeSelector", wide=True),
            _condition(ALLOCATABLE),
        ),
    ),
    IPReservation: Looks((), (Column("CIDRs", ".spec.reservedCIDRs"),)),
    IPAMConfiguration: Looks(
        ("ipamconfig", "ipamconfigs"),
        (
            Column("StrictAffinity", ".spec.strictAffinity", "boolean"),
            Column("MaxBlocksPerHost", ".spec.maxBlocksPerHost", "integer"),
            Column("AutoAllocateBlocks", ".spec.autoAllocateBlocks", "boolean"),
        ),
    ),
    FelixConfiguration: Looks(("felixconfig", "felixconfigs")),
    BGPConfiguration: Looks(
        ("bgpconfig", "bgpconfigs"),
        (
            Column("Mesh", ".spec.nodeToNodeMeshEnabled", "boolean"),
            Column("ASN", ".spec.asNumber"),
        ),
    ),
    BGPFilter: Looks(),
    BGPPeer: Looks(
        (),
        (
            Column("Node", ".spec.node"),
            Column("Node Selector", ".spec.nodeSelector"),
            Column("Peer IP", ".spec.peerIP"),
            Column("Peer Selector", ".spec.peerSelector"),
            Column("Peer ASN", ".spec.asNumber"),
        ),
    ),
    Tier: Looks(
        (),
        (_ORDER, Column("DefaultAction", ".spec.defaultAction")),
    ),
    Profile: Looks(),
    NetworkSet: Looks(("netsets",)),
    GlobalNetworkSet: Looks(("gns",)),
    NetworkPolicy: Looks(("cnp", "caliconetworkpolicy"), _POLICY),
    GlobalNetworkPolicy: Looks(("gnp", "cgnp"), _POLICY),
    StagedKubernetesNetworkPolicy: Looks(("sknp",), (Column("Action", ".spec.stagedAction"), _condition(PROGRAMMED))),
    StagedNetworkPolicy: Looks(("snp",), _STAGED),
    StagedGlobalNetworkPolicy: Looks(("sgnp",), _STAGED),
    HostEndpoint: Looks(
        ("hep", "heps"),
        (
            Column("Node", ".spec.node"),
            Column("Interface", ".spec.interfaceName"),
            Column("IPs", ".spec.expectedIPs", wide=True),
        ),
    ),
}
