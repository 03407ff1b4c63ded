"""What Calico's policies stand in and speak of beside pods: tiers, network sets, host endpoints, profiles."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.calico_policy import CalicoRule
from bus_schemas.resources.metadata import Resource


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class TierSpec(_Part, frozen=True, kw_only=True):
    order: float | None = None
    """None sorts last."""
    default_action: Literal["Deny", "Pass"] = "Deny"
    """For what no rule of the tier's policies decides, on endpoints that at least one of them governs."""


class Tier(Resource, tag="tier/1", frozen=True, kw_only=True):
    """`default` (1,000,000, Deny), `kube-admin` (1,000, Pass) and `kube-baseline` (10,000,000, Pass) always exist."""

    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "Tier"
    TOKEN: ClassVar[str] = "tier"
    PLURAL: ClassVar[str] = "tiers"
    NAMESPACED: ClassVar[bool] = False

    spec: TierSpec = TierSpec()


FIXED_TIERS: dict[str, TierSpec] = {
    "kube-admin": TierSpec(order=1_000.0, default_action="Pass"),
    "default": TierSpec(order=1_000_000.0, default_action="Deny"),
    "kube-baseline": TierSpec(order=10_000_000.0, default_action="Pass"),
}
"""Those that always exist, as they are."""


class NetworkSetSpec(_Part, frozen=True, kw_only=True):
    nets: tuple[str, ...] = ()
    """CIDRs of either family (a plain address is /32 or /128): members of every selector that matches the labels."""


class NetworkSet(Resource, tag="networkset/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "NetworkSet"
    TOKEN: ClassVar[str] = "networkset"
    PLURAL: ClassVar[str] = "networksets"
    ALIASES: ClassVar[tuple[str, ...]] = ("netset",)
    NAMESPACED: ClassVar[bool] = True

    spec: NetworkSetSpec = NetworkSetSpec()


class GlobalNetworkSet(Resource, tag="globalnetworkset/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "GlobalNetworkSet"
    TOKEN: ClassVar[str] = "globalnetworkset"
    PLURAL: ClassVar[str] = "globalnetworksets"
    ALIASES: ClassVar[tuple[str, ...]] = ("gns",)
    NAMESPACED: ClassVar[bool] = False

    spec: NetworkSetSpec = NetworkSetSpec()


class HostEndpointPort(_Part, frozen=True, kw_only=True):
    name: str
    protocol: int | str
    port: int


class HostEndpointSpec(_Part, frozen=True, kw_only=True):
    node: str
    interface_name: str = ""
    """A device; `*`: every device that has no host endpoint of its own; empty: the devices with `expectedIPs`."""
    expected_ips: tuple[str, ...] = msgspec.field(default=(), name="expectedIPs")
    """The endpoint's addresses, in policies and, without a name, to find its devices."""
    profiles: tuple[str, ...] = ()
    ports: tuple[HostEndpointPort, ...] = ()


class HostEndpoint(Resource, tag="hostendpoint/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "HostEndpoint"
    TOKEN: ClassVar[str] = "hostendpoint"
    PLURAL: ClassVar[str] = "hostendpoints"
    ALIASES: ClassVar[tuple[str, ...]] = ("hep",)
    NAMESPACED: ClassVar[bool] = False

    spec: HostEndpointSpec


class ProfileSpec(_Part, frozen=True, kw_only=True):
    ingress: tuple[CalicoRule, ...] = ()
    egress: tuple[CalicoRule, ...] = ()
    labels_to_apply: dict[str, str] = {}


DEFAULT_ALLOW = "projectcalico-default-allow"
"""The profile that always exists and allows everything."""


class Profile(Resource, tag="profile/1", frozen=True, kw_only=True):
    """Rules that decide after the last tier, and labels, for the host endpoints that name it.

    Pods have `kns.<namespace>` (allows everything) and `ksa.<namespace>.<account>` (no rules): made of Namespaces and
    ServiceAccounts, never written by people. `projectcalico-default-allow` always exists and allows everything.
    """

    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "Profile"
    TOKEN: ClassVar[str] = "profile"
    PLURAL: ClassVar[str] = "profiles"
    ALIASES: ClassVar[tuple[str, ...]] = ("pro",)
    NAMESPACED: ClassVar[bool] = False

    spec: ProfileSpec = ProfileSpec()


ALLOW_ALL = ProfileSpec(ingress=(CalicoRule(action="Allow"),), egress=(CalicoRule(action="Allow"),))
"""What `projectcalico-default-allow` says."""
