"""Staged policies -> Policy: what the kind that they stage would be, in previews only.

`Set` is that policy, and withdraws the enforced one of the same name there; `Delete` only withdraws it. `Learn` and
`Ignore` are nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bus_schemas.policy import rules_id
from bus_schemas.resources import (
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    NetworkPolicy,
    Resource,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
)
from services.policy_compiler import translate_calico, translate_kubernetes
from services.policy_compiler.policies import Policy, Translation, id_of

STAGED: dict[type[Resource], tuple[type[Resource], Callable[[Any], Translation]]] = {
    StagedNetworkPolicy: (NetworkPolicy, translate_calico.translate),
    StagedGlobalNetworkPolicy: (GlobalNetworkPolicy, translate_calico.translate),
    StagedKubernetesNetworkPolicy: (KubernetesNetworkPolicy, translate_kubernetes.translate),
}
"""The kind that is staged, and its translator."""


def translate(
    resource: StagedNetworkPolicy | StagedGlobalNetworkPolicy | StagedKubernetesNetworkPolicy,
) -> Translation:
    kind, translated = STAGED[type(resource)]
    enforced = rules_id(kind.TOKEN, *resource.key)
    match resource.spec.staged_action:
        case "Set":
            policy, faults = translated(resource)
            if policy is None or policy.attaching is None:
                return Translation(None, faults)
            staged = policy.attaching._replace(staged=True)
            return Translation(replace(policy, attaching=staged, withdraws=enforced), faults)
        case "Delete":
            return Translation(Policy(id_of(resource), None, withdraws=enforced))
        case "Learn" | "Ignore":
            return Translation(None)
