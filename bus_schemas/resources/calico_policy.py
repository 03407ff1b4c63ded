"""Calico's policies and their staged twins (projectcalico.org/v3; crd.projectcalico.org/v1 is read alike).

After reading, `types` is always filled in and `tier` names a tier (which need not exist yet).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.metadata import Resource


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class ServiceAccountMatch(_Part, frozen=True, kw_only=True):
    names: tuple[str, ...] = ()
    selector: str = ""


class ServiceMatch(_Part, frozen=True, kw_only=True):
    """The endpoints of a Service, ready or not: (address, protocol, port) as a destination, as a source the addresses
    alone."""

    name: str = ""
    namespace: str = ""
    """Empty: the policy's own."""


class EntityRule(_Part, frozen=True, kw_only=True):
    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()
    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    ports: tuple[int | str, ...] = ()
    """Numbers, ranges `"first:last"`, or names of container ports."""
    not_ports: tuple[int | str, ...] = ()
    service_accounts: ServiceAccountMatch | None = None
    services: ServiceMatch | None = None
    """Excludes every other field of the end that names addresses, and ports on a destination."""


class IcmpFields(_Part, frozen=True, kw_only=True):
    type: int | None = None
    code: int | None = None


class HttpPath(_Part, frozen=True, kw_only=True):
    exact: str = ""
    prefix: str = ""


class HttpFields(_Part, frozen=True, kw_only=True):
    methods: tuple[str, ...] = ()
    paths: tuple[HttpPath, ...] = ()


class CalicoRule(_Part, frozen=True, kw_only=True):
    action: Literal["Allow", "Deny", "Log", "Pass"]
    ip_version: Literal[4, 6] | None = msgspec.field(default=None, name="ipVersion")
    protocol: int | str | None = None
    """A name (TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite) or a number 1 to 255."""
    not_protocol: int | str | None = None
    icmp: IcmpFields | None = None
    not_icmp: IcmpFields | None = msgspec.field(default=None, name="notICMP")
    http: HttpFields | None = None
    """No manifest with it is accepted, as nothing in the packet path reads HTTP. Where somebody wrote it all the same,
    it must not be passed over: the rule would allow more than it says."""
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()


class NetworkPolicySpec(_Part, frozen=True, kw_only=True):
    tier: str = "default"
    order: float | None = None
    """None sorts last."""
    selector: str = ""
    """Empty is `all()`."""
    types: tuple[Literal["Ingress", "Egress"], ...] = ("Ingress",)
    ingress: tuple[CalicoRule, ...] = ()
    egress: tuple[CalicoRule, ...] = ()
    service_account_selector: str = ""


class GlobalNetworkPolicySpec(NetworkPolicySpec, frozen=True, kw_only=True):
    namespace_selector: str = ""
    do_not_track: bool = False
    """Without connection tracking, before everything else, on host endpoints alone; both directions must be written."""
    pre_dnat: bool = msgspec.field(default=False, name="preDNAT")
    """Before destination NAT, on host endpoints alone; ingress only; denies only what it says."""
    apply_on_forward: bool = False
    """Also for what is forwarded through a host endpoint. True whenever one of the two above is."""


class NetworkPolicy(Resource, tag="networkpolicy/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "NetworkPolicy"
    TOKEN: ClassVar[str] = "networkpolicy"
    PLURAL: ClassVar[str] = "networkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("np", "networkpolicies.projectcalico.org")
    NAMESPACED: ClassVar[bool] = True

    spec: NetworkPolicySpec = NetworkPolicySpec()


class GlobalNetworkPolicy(Resource, tag="globalnetworkpolicy/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "GlobalNetworkPolicy"
    TOKEN: ClassVar[str] = "globalnetworkpolicy"
    PLURAL: ClassVar[str] = "globalnetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("gnp",)
    NAMESPACED: ClassVar[bool] = False

    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()


StagedAction = Literal["Set", "Delete", "Learn", "Ignore"]


class StagedNetworkPolicySpec(NetworkPolicySpec, frozen=True, kw_only=True):
    staged_action: StagedAction = "Set"
    """Set: as if this policy were there (in place of one of that name); Delete: as if the one of that name were not."""


class StagedGlobalNetworkPolicySpec(GlobalNetworkPolicySpec, frozen=True, kw_only=True):
    staged_action: StagedAction = "Set"


class StagedNetworkPolicy(Resource, tag="stagednetworkpolicy/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "StagedNetworkPolicy"
    TOKEN: ClassVar[str] = "stagednetworkpolicy"
    PLURAL: ClassVar[str] = "stagednetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("snp",)
    NAMESPACED: ClassVar[bool] = True

    spec: StagedNetworkPolicySpec = StagedNetworkPolicySpec()


class StagedGlobalNetworkPolicy(Resource, tag="stagedglobalnetworkpolicy/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "StagedGlobalNetworkPolicy"
    TOKEN: ClassVar[str] = "stagedglobalnetworkpolicy"
    PLURAL: ClassVar[str] = "stagedglobalnetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("sgnp",)
    NAMESPACED: ClassVar[bool] = False

    spec: StagedGlobalNetworkPolicySpec = StagedGlobalNetworkPolicySpec()
