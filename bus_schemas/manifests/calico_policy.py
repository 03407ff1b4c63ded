"""Reading Calico's NetworkPolicy and GlobalNetworkPolicy, with Calico's validation and its defaults.

What Calico allows but nothing here carries out is refused wherever leaving it out would change what the policy allows
or denies, and so is every unknown field; the rest is accepted with a warning. `UNSUPPORTED` names what is refused, with
the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from bus_schemas.manifests.calico_rules import rule
from bus_schemas.manifests.envelope import STORED_PREFIX, Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.names import MAX_NAME
from bus_schemas.manifests.selections import selector
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    NetworkPolicy,
    NetworkPolicySpec,
)

MAX_RULES = 1024
DEFAULT_TIER = "default"

UNSUPPORTED: dict[str, str] = {
    "doNotTrack": "policy without connection tracking is not supported yet, and it governs host endpoints only",
    "preDNAT": "policy before destination NAT is not supported yet, and it governs host endpoints only",
}
"""Fields of a global policy that turn it into one for host endpoints: as an ordinary one it would govern pods."""

_TYPES: tuple[Literal["Ingress", "Egress"], ...] = ("Ingress", "Egress")
_HINTS = ("AssumeNeededOnEveryNode",)

_GLOBAL_ONLY = ("namespaceSelector", "doNotTrack", "preDNAT", "applyOnForward")

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_POLICY_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})?")
_CONVERTED_NAME = re.compile(rf"(?:knp|ossg)\.default(?:\.{_LABEL})+")
"""Names under which Calico shows policies that it made of others'."""


def network_policy(document: Fields, *, stored: bool) -> NetworkPolicy:
    meta = metadata(
        document,
        Envelope(
            namespaced=True,
            name=_name(_POLICY_NAME, _CONVERTED_NAME),
            stored=stored,
            stored_prefix=STORED_PREFIX,
        ),
    )
    fields = document.fields("spec")
    ingress, egress = _rules(fields, "ingress"), _rules(fields, "egress")
    spec = NetworkPolicySpec(
        tier=_tier(fields),
        order=fields.maybe("order", At.number),
        selector=fields.read("selector", selector, ""),
        types=_policy_types(fields, ingress, egress),
        ingress=ingress,
        egress=egress,
        service_account_selector=fields.read("serviceAccountSelector", selector, ""),
    )
    _hints(fields)
    for name in _GLOBAL_ONLY:
        if (at := fields.take(name)) is not None:
            at.fault("only a GlobalNetworkPolicy can have it: a NetworkPolicy governs the pods of its namespace")
    fields.close(Unknown.REFUSED)
    return NetworkPolicy(metadata=meta, spec=spec)


def global_network_policy(document: Fields, *, stored: bool) -> GlobalNetworkPolicy:
    meta = metadata(
        document,
        Envelope(namespaced=False, name=_name(_POLICY_NAME), stored=stored, stored_prefix=STORED_PREFIX),
    )
    fields = document.fields("spec")
    ingress, egress = _rules(fields, "ingress"), _rules(fields, "egress")
    spec = GlobalNetworkPolicySpec(
        tier=_tier(fields),
        order=fields.maybe("order", At.number),
        selector=fields.read("selector", selector, ""),
        types=_policy_types(fields, ingress, egress),
        ingress=ingress,
        egress=egress,
        service_account_selector=fields.read("serviceAccountSelector", selector, ""),
        namespace_selector=fields.read("namespaceSelector", selector, ""),
    )
    _hints(fields)
    _host_endpoint_fields(fields)
    fields.close(Unknown.REFUSED)
    return GlobalNetworkPolicy(metadata=meta, spec=spec)


def _name(*allowed: re.Pattern[str]) -> Callable[[At], str]:
    def read(at: At) -> str:
        name = at.string()
        if at.value == name and (len(name) > MAX_NAME or not any(form.fullmatch(name) for form in allowed)):
            at.fault(
                f"must be lower-case letters, digits, '-' and at most one '.', at most {MAX_NAME}, not {said(name)}"
            )
        return name

    return read


def _tier(fields: Fields) -> str:
    at = fields.take("tier")
    if at is not None and at.string() not in ("", DEFAULT_TIER):
        at.fault(f"tiers other than {DEFAULT_TIER!r} are not supported yet")
    return DEFAULT_TIER


def _policy_types(
    fields: Fields, ingress: tuple[CalicoRule, ...], egress: tuple[CalicoRule, ...]
) -> tuple[Literal["Ingress", "Egress"], ...]:
    """Given, or the directions that have rules, or Ingress."""
    given = [at.choice(_TYPES) for at in fields.items("types")]
    if len(set(given)) != len(given):
        fields.place("types").fault("names a direction twice")
    if not given:
        return _TYPES if ingress and egress else ("Egress",) if egress else ("Ingress",)
    for name, rules, direction in (("ingress", ingress, "Ingress"), ("egress", egress, "Egress")):
        if rules and direction not in given:
            fields.place(name).warn(f"has no effect: types does not name {direction}")
    return tuple(given)


def _rules(fields: Fields, name: str) -> tuple[CalicoRule, ...]:
    return tuple(rule(at.fields()) for at in fields.items(name, most=MAX_RULES))


def _hints(fields: Fields) -> None:
    """performanceHints: right or wrong, but nothing here needs them."""
    hints = [at.choice(_HINTS) for at in fields.items("performanceHints")]
    if len(set(hints)) != len(hints):
        fields.place("performanceHints").fault("names a hint twice")


def _host_endpoint_fields(fields: Fields) -> None:
    for name, reason in UNSUPPORTED.items():
        if fields.boolean(name):
            fields.place(name).fault(reason)
    if fields.boolean("applyOnForward"):
        fields.place("applyOnForward").warn("has no effect here: there are no host endpoints")
