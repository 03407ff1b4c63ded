"""Reading Calico's policies and their staged twins, with Calico's validation and its defaults.

What Calico allows but nothing here carries out (see `calico_rules.UNSUPPORTED`) is refused wherever leaving it out
would change what the policy allows or denies, and so is every unknown field.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from bus_schemas.manifests.calico_rules import Way, rule
from bus_schemas.manifests.envelope import STORED_PREFIX, Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.names import MAX_NAME, dns_label
from bus_schemas.manifests.selections import selector
from bus_schemas.policy import CUT, CUT_ANNOTATION, KEEP
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    NetworkPolicy,
    NetworkPolicySpec,
    StagedAction,
    StagedGlobalNetworkPolicy,
    StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicy,
    StagedNetworkPolicySpec,
)
from bus_schemas.resources.metadata import Metadata

MAX_RULES = 1024
DEFAULT_TIER = "default"

_TYPES: tuple[Literal["Ingress", "Egress"], ...] = ("Ingress", "Egress")
HINTS = ("AssumeNeededOnEveryNode",)

_STAGED: tuple[StagedAction, ...] = ("Set", "Delete", "Learn", "Ignore")

_GLOBAL_ONLY = ("namespaceSelector", "doNotTrack", "preDNAT", "applyOnForward")

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
POLICY_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})?")
CONVERTED_NAME = re.compile(rf"(?:knp|ossg)\.default(?:\.{_LABEL})+")
"""Names under which Calico shows policies that it made of others'."""


def network_policy(document: Fields, *, stored: bool) -> NetworkPolicy:
    meta = _metadata(document, namespaced=True, stored=stored)
    fields = document.fields("spec")
    spec = NetworkPolicySpec(**_common(fields, cluster_wide=False))
    _close_namespaced(fields)
    return NetworkPolicy(metadata=meta, spec=spec)


def global_network_policy(document: Fields, *, stored: bool) -> GlobalNetworkPolicy:
    meta = _metadata(document, namespaced=False, stored=stored)
    fields = document.fields("spec")
    spec = GlobalNetworkPolicySpec(**_common(fields, cluster_wide=True), **_global(fields))
    _check_host_endpoint_fields(fields, spec)
    fields.close(Unknown.REFUSED)
    return GlobalNetworkPolicy(metadata=meta, spec=spec)


def staged_network_policy(document: Fields, *, stored: bool) -> StagedNetworkPolicy:
    meta = _metadata(document, namespaced=True, stored=stored)
    fields = document.fields("spec")
    action = staged_action(fields)
    spec = StagedNetworkPolicySpec(**_common(fields, cluster_wide=False), staged_action=action)
    _close_namespaced(fields)
    return StagedNetworkPolicy(metadata=meta, spec=spec)


def staged_global_network_policy(document: Fields, *, stored: bool) -> StagedGlobalNetworkPolicy:
    meta = _metadata(document, namespaced=False, stored=stored)
    fields = document.fields("spec")
    action = staged_action(fields)
    spec = StagedGlobalNetworkPolicySpec(**_common(fields, cluster_wide=True), **_global(fields), staged_action=action)
    _check_host_endpoint_fields(fields, spec)
    fields.close(Unknown.REFUSED)
    return StagedGlobalNetworkPolicy(metadata=meta, spec=spec)


def staged_action(fields: Fields) -> StagedAction:
    """`Delete` speaks of the policy of that name and tier; whatever else it would say has no meaning."""
    at = fields.take("stagedAction")
    action = _STAGED[0] if at is None or at.value == "" else at.choice(_STAGED)
    if action == "Delete":
        for name, value in fields.at.value.items():
            if name not in ("stagedAction", "tier") and value is not False and value not in (None, "", [], {}):
                fields.place(name).fault("must not be given where stagedAction is Delete")
    return action


def _metadata(document: Fields, *, namespaced: bool, stored: bool) -> Metadata:
    names = (POLICY_NAME, CONVERTED_NAME) if namespaced else (POLICY_NAME,)
    meta = metadata(
        document,
        Envelope(namespaced=namespaced, name=_name(*names), stored=stored, stored_prefix=STORED_PREFIX),
    )
    check_cut(document, meta)
    return meta


def check_cut(document: Fields, meta: Metadata) -> None:
    """The annotation that says what becomes of connections when the policy changes."""
    if meta.annotations.get(CUT_ANNOTATION, KEEP) not in (CUT, KEEP):
        place = document.fields("metadata").place(f"annotations[{CUT_ANNOTATION}]")
        place.fault(f"must be {CUT!r} or {KEEP!r}, not {said(meta.annotations[CUT_ANNOTATION])}")


def _common(fields: Fields, *, cluster_wide: bool) -> dict[str, Any]:
    """What all four kinds say."""
    ingress = _rules(fields, "ingress", cluster_wide=cluster_wide)
    egress = _rules(fields, "egress", cluster_wide=cluster_wide)
    _hints(fields)
    return {
        "tier": _tier(fields),
        "order": fields.maybe("order", At.number),
        "selector": fields.read("selector", selector, ""),
        "types": _policy_types(fields, ingress, egress),
        "ingress": ingress,
        "egress": egress,
        "service_account_selector": fields.read("serviceAccountSelector", selector, ""),
    }


def _global(fields: Fields) -> dict[str, Any]:
    return {
        "namespace_selector": fields.read("namespaceSelector", selector, ""),
        "do_not_track": fields.boolean("doNotTrack"),
        "pre_dnat": fields.boolean("preDNAT"),
        "apply_on_forward": fields.boolean("applyOnForward"),
    }


def _close_namespaced(fields: Fields) -> None:
    for name in _GLOBAL_ONLY:
        if (at := fields.take(name)) is not None:
            at.fault("only a GlobalNetworkPolicy can have it: a NetworkPolicy governs the pods of its namespace")
    fields.close(Unknown.REFUSED)


def _check_host_endpoint_fields(fields: Fields, spec: GlobalNetworkPolicySpec) -> None:
    if spec.pre_dnat and spec.do_not_track:
        fields.place("preDNAT").fault("cannot be used together with doNotTrack")
    for name, given in (("preDNAT", spec.pre_dnat), ("doNotTrack", spec.do_not_track)):
        if given and not spec.apply_on_forward:
            fields.place("applyOnForward").fault(f"must be true with {name}, which concerns forwarded packets too")
    if spec.pre_dnat:
        if spec.egress:
            fields.place("egress").fault("cannot be used with preDNAT: only what arrives is not translated yet")
        if "Egress" in spec.types:
            fields.place("types").fault("cannot be Egress with preDNAT: only what arrives is not translated yet")


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
    return DEFAULT_TIER if at is None or at.value == "" else dns_label(at)


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


def _rules(fields: Fields, way: Way, *, cluster_wide: bool) -> tuple[CalicoRule, ...]:
    items = fields.items(way, most=MAX_RULES)
    return tuple(rule(at.fields(), way, cluster_wide=cluster_wide) for at in items)


def _hints(fields: Fields) -> None:
    """performanceHints: right or wrong, but nothing here needs them."""
    hints = [at.choice(HINTS) for at in fields.items("performanceHints")]
    if len(set(hints)) != len(hints):
        fields.place("performanceHints").fault("names a hint twice")
