"""What policies mean, slowly: the manifests themselves, read again for every single packet.

    facts --> oracle_world    whom policy may speak of
              oracle_rules    whom one policy governs, what its rules say of one packet
              Oracle          tiers, policies and profiles in order, for pods and for host endpoints

Nothing is indexed, rewritten or remembered, and nothing of the compiler is used. The facts are those that the compiler
is fed with; `allows` walks all policies of all tiers in order, asks each whether it governs the endpoint, and each of
its rules whether the packet matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from bus_schemas.resources import (
    BaselineAdminNetworkPolicy,
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)
from bus_schemas.subjects import Fact
from tests.support.compiled_policy import Packet, Way
from tests.support.oracle_rules import CLUSTER_KINDS, Action, Closed, decides, governs, has_direction
from tests.support.oracle_world import Party, World

Stage = Literal[
    "ingress",
    "egress",
    "forward_ingress",
    "forward_egress",
    "pre_dnat_ingress",
    "untracked_ingress",
    "untracked_egress",
]
"""Where a host endpoint's policies are asked: the directions of `policy.HostAttachment`."""
STAGES: tuple[Stage, ...] = Stage.__args__  # type: ignore[attr-defined]

FIXED_TIERS: dict[str, tuple[float, Literal["deny", "pass"]]] = {
    "kube-admin": (1e3, "pass"),
    "default": (1e6, "deny"),
    "kube-baseline": (1e7, "pass"),
}
ENFORCED = KubernetesNetworkPolicy | NetworkPolicy | GlobalNetworkPolicy | CLUSTER_KINDS
STAGED: dict[Any, Any] = {
    StagedNetworkPolicy: NetworkPolicy,
    StagedGlobalNetworkPolicy: GlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy: KubernetesNetworkPolicy,
}
ALLOWS_EVERYTHING = "projectcalico-default-allow"


class Oracle:
    def __init__(self, facts: Iterable[Fact], closed: Closed = frozenset()) -> None:
        self._closed = closed
        self._world = World(facts)
        values = self._world.resources
        self._policies = [value for value in values if isinstance(value, ENFORCED)]
        self._staged = [value for value in values if type(value) in STAGED]
        self._tiers = {value.metadata.name: value.spec for value in values if isinstance(value, Tier)}
        self.pods = self._world.pods
        self.hosts = self._world.hosts

    def allows(self, way: Way, key: tuple[str, ...], packet: Packet, *, preview: bool = False) -> bool:
        """What one direction of one pod says to the packet. `preview`: as if the staged policies were in force."""
        for pod in self.pods:
            if pod.key == key:
                policies = self._with_staged() if preview else self._policies
                verdict = self._walk([p for p in policies if governs(p, pod)], way, packet)
                return verdict == "allow" if verdict else pod.namespace_known
        return False

    def host_allows(self, stage: Stage, key: tuple[str, ...], packet: Packet, *, preview: bool = False) -> bool:
        """What a host endpoint says; of the stages before the others, whether the packet goes on."""
        (host,) = (host for host in self.hosts if host.key == key)
        way: Way = "egress" if stage.endswith("egress") else "ingress"
        policies = self._with_staged() if preview else self._policies
        here = [p for p in policies if governs(p, host) and _stands_in(stage)(p)]
        early = stage in ("pre_dnat_ingress", "untracked_ingress", "untracked_egress")
        verdict = self._walk(here, way, packet, tiers_end=not early)
        if verdict:
            return verdict == "allow"
        # What no policy of the stage speaks of, and what all tiers passed, goes on.
        return early or stage.startswith("forward") or self._profiles_allow(host, way, packet)

    def _walk(self, policies: list[Any], way: Way, packet: Packet, *, tiers_end: bool = True) -> Action | None:
        """What the tiers decide. None: nothing."""
        here = [policy for policy in policies if has_direction(policy, way)]
        names = sorted({tier_of(policy) for policy in here}, key=self._tier_order)
        for tier in names:
            verdict: Action | None = None
            for policy in sorted((p for p in here if tier_of(p) == tier), key=_order):
                verdict = decides(policy, self._world, way, packet, self._closed)
                if verdict:
                    break
            if verdict is None:
                verdict = self._tier_default(tier) if tiers_end else "pass"
            if verdict != "pass":
                return verdict
        return None

    def _profiles_allow(self, host: Party, way: Way, packet: Packet) -> bool:
        for name in host.profiles:
            if name == ALLOWS_EVERYTHING:
                return True
            spec = self._world.profiles.get(name)
            if spec is None:
                return False
            # A profile is as a global policy's rules.
            verdict = decides(_AsPolicy(spec), self._world, way, packet)
            if verdict:
                return verdict == "allow"
        return False

    # --- tiers

    def _tier_order(self, name: str) -> tuple[bool, float, str]:
        if name in FIXED_TIERS:
            return (False, FIXED_TIERS[name][0], name)
        spec = self._tiers.get(name)
        order = float("inf") if spec is None or spec.order is None else spec.order
        return (spec is None, order, name)

    def _tier_default(self, name: str) -> Literal["deny", "pass"]:
        if name in FIXED_TIERS:
            return FIXED_TIERS[name][1]
        spec = self._tiers.get(name)
        return "pass" if spec is not None and spec.default_action == "Pass" else "deny"

    # --- staged policies

    def _with_staged(self) -> list[Any]:
        """The policies as they would be."""
        policies = {(type(policy), policy.key): policy for policy in self._policies}
        for staged in self._staged:
            kind = STAGED[type(staged)]
            if staged.spec.staged_action == "Delete":
                policies.pop((kind, staged.key), None)
            elif staged.spec.staged_action == "Set":
                policies[kind, staged.key] = kind(metadata=staged.metadata, spec=staged.spec)
        return list(policies.values())


class _AsPolicy:
    """A profile's rules, which stand in no namespace and govern nobody by a selector."""

    class metadata:
        namespace = ""

    def __init__(self, spec: Any) -> None:
        self.spec = spec


def _stands_in(stage: Stage) -> Callable[[Any], bool]:
    """Which of a host endpoint's policies are asked there."""
    if stage == "pre_dnat_ingress":
        return lambda policy: policy.spec.pre_dnat
    if stage.startswith("untracked"):
        return lambda policy: policy.spec.do_not_track
    if stage.startswith("forward"):
        return lambda p: p.spec.apply_on_forward and not p.spec.pre_dnat and not p.spec.do_not_track
    return lambda policy: not policy.spec.pre_dnat and not policy.spec.do_not_track


def tier_of(policy: Any) -> str:
    if isinstance(policy, KubernetesNetworkPolicy):
        return "default"
    if isinstance(policy, CLUSTER_KINDS):
        baseline = isinstance(policy, BaselineAdminNetworkPolicy) or policy.spec.tier == "Baseline"
        return "kube-baseline" if baseline else "kube-admin"
    return str(policy.spec.tier)


def _order(policy: Any) -> tuple[float, str]:
    """Within the tier: order, then the name with namespace and kind."""
    namespace, name = policy.key
    if isinstance(policy, KubernetesNetworkPolicy):
        return (1000.0, f"{name}/{namespace}/KubernetesNetworkPolicy")
    if isinstance(policy, CLUSTER_KINDS):
        return (float(policy.spec.priority), f"{name}/{namespace}/Kubernetes{policy.KIND}")
    return (float("inf") if policy.spec.order is None else policy.spec.order, f"{name}/{namespace}/{policy.KIND}")
