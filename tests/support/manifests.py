"""Short ways to read manifests in tests."""

from __future__ import annotations

from typing import Any

from bus_schemas.manifests import Accepted, Rejected, read, read_object
from bus_schemas.resources import Resource


def accepted(text: str) -> Resource:
    """The one resource of the text, read without a warning."""
    (outcome,) = read(text)
    assert isinstance(outcome, Accepted), outcome
    assert outcome.warnings == ()
    return outcome.resource


def warnings(text: str) -> list[str]:
    (outcome,) = read(text)
    assert isinstance(outcome, Accepted), outcome
    return list(outcome.warnings)


def faults(text: str) -> list[str]:
    """`path: reason` of the one document of the text."""
    (outcome,) = read(text)
    assert isinstance(outcome, Rejected), outcome
    return [f"{fault.path}: {fault.reason}" for fault in outcome.faults]


def manifest(api_version: str, kind: str, spec: str, metadata: str = "{name: x}") -> str:
    """An object of which the spec is given as YAML."""
    return f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


def kubernetes_policy(spec: str) -> str:
    return manifest("networking.k8s.io/v1", "NetworkPolicy", spec)


def global_policy(spec: str) -> str:
    return manifest("projectcalico.org/v3", "GlobalNetworkPolicy", spec)


def calico_rule(rule: str) -> str:
    """A policy of one ingress rule."""
    return global_policy(f"{{ingress: [{rule}]}}")


def pool(spec: str) -> str:
    return manifest("projectcalico.org/v3", "IPPool", spec)


def outcome_of(kind: str, value: dict[str, Any]) -> Accepted | Rejected:
    """A Calico object that is already parsed."""
    return read_object({"apiVersion": "projectcalico.org/v3", "kind": kind, **value})
