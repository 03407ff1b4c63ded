"""networking.k8s.io/v1 NetworkPolicy, after Kubernetes' own defaulting: policyTypes and protocols are filled in."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.metadata import LabelSelector, Resource


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class IPBlock(_Part, frozen=True, kw_only=True):
    cidr: str
    except_: tuple[str, ...] = msgspec.field(default=(), name="except")


class NetworkPolicyPeer(_Part, frozen=True, kw_only=True):
    """A pod peer (either selector set; None: not given, which differs from an empty selector), or an ipBlock."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(_Part, frozen=True, kw_only=True):
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: int | str | None = None
    """A number, a container port's name, or None: every port of the protocol."""
    end_port: int | None = None


class NetworkPolicyIngressRule(_Part, frozen=True, kw_only=True):
    from_: tuple[NetworkPolicyPeer, ...] = msgspec.field(default=(), name="from")
    """Empty: from anywhere."""
    ports: tuple[NetworkPolicyPort, ...] = ()
    """Empty: every port and protocol."""


class NetworkPolicyEgressRule(_Part, frozen=True, kw_only=True):
    to: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class KubernetesNetworkPolicySpec(_Part, frozen=True, kw_only=True):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[Literal["Ingress", "Egress"], ...] = ("Ingress",)
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    egress: tuple[NetworkPolicyEgressRule, ...] = ()


class KubernetesNetworkPolicy(Resource, tag="k8snetworkpolicy/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "networking.k8s.io/v1"
    KIND: ClassVar[str] = "NetworkPolicy"
    TOKEN: ClassVar[str] = "k8snetworkpolicy"
    PLURAL: ClassVar[str] = "k8snetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("knp", "netpol", "networkpolicies.networking.k8s.io")
    NAMESPACED: ClassVar[bool] = True

    spec: KubernetesNetworkPolicySpec = KubernetesNetworkPolicySpec()


class StagedKubernetesNetworkPolicySpec(KubernetesNetworkPolicySpec, frozen=True, kw_only=True):
    staged_action: Literal["Set", "Delete", "Learn", "Ignore"] = "Set"


class StagedKubernetesNetworkPolicy(Resource, tag="stagedkubernetesnetworkpolicy/1", frozen=True, kw_only=True):
    """projectcalico.org/v3: a NetworkPolicy of Kubernetes that is only tried."""

    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "StagedKubernetesNetworkPolicy"
    TOKEN: ClassVar[str] = "stagedkubernetesnetworkpolicy"
    PLURAL: ClassVar[str] = "stagedkubernetesnetworkpolicies"
    ALIASES: ClassVar[tuple[str, ...]] = ("sknp",)
    NAMESPACED: ClassVar[bool] = True

    spec: StagedKubernetesNetworkPolicySpec = StagedKubernetesNetworkPolicySpec()
