"""Checks of projectcalico.org/v3 NetworkPolicy and GlobalNetworkPolicy."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bus_schemas.lint.findings import Finding, note, warning
from bus_schemas.lint.landscape import Landscape, labels_of, parsed, service_in
from bus_schemas.resources import GlobalNetworkPolicy, NetworkPolicy, Pod
from bus_schemas.resources.calico_policy import CalicoRule

Policy = NetworkPolicy | GlobalNetworkPolicy

_ANYTHING = CalicoRule(action="Allow")


def _ways(policy: Policy) -> Iterator[tuple[str, tuple[CalicoRule, ...], bool]]:
    yield "ingress", policy.spec.ingress, "Ingress" in policy.spec.types
    yield "egress", policy.spec.egress, "Egress" in policy.spec.types


def tier(policy: Policy, landscape: Landscape) -> Iterator[Finding]:
    if landscape.cluster and policy.spec.tier not in landscape.tiers:
        says = f"there is no tier {policy.spec.tier!r}: it comes after all others, and denies what it leaves undecided"
        yield warning("unknown-tier", policy, "spec.tier", says, "create the Tier, or correct its name")


def types(policy: Policy, landscape: Landscape) -> Iterator[Finding]:
    for way, rules, governed in _ways(policy):
        if rules and not governed:
            name = way.capitalize()
            says = f"types does not have {name}, so these rules have no effect"
            yield warning("rules-without-type", policy, f"spec.{way}", says, f"add {name} to types")


def log_only(policy: Policy, landscape: Landscape) -> Iterator[Finding]:
    for way, rules, governed in _ways(policy):
        if governed and rules and all(rule.action == "Log" for rule in rules):
            says = "its rules only log, and what no rule decides is denied at the end of the tier"
            do = "end it with a rule `action: Pass` (or Allow), or try it as a staged policy"
            yield warning("log-only", policy, f"spec.{way}", says, do)


def shadowed(policy: Policy, landscape: Landscape) -> Iterator[Finding]:
    for way, rules, _ in _ways(policy):
        for at, rule in enumerate(rules[:-1]):
            if rule.action != "Log" and msgspec.structs.replace(rule, action="Allow") == _ANYTHING:
                says = f"spec.{way}[{at}] matches everything ({rule.action}), so no rule after it is ever asked"
                yield warning("shadowed", policy, f"spec.{way}[{at + 1}]", says, "put it before, or remove it")
                break


def services(policy: Policy, landscape: Landscape) -> Iterator[Finding]:
    if isinstance(policy, GlobalNetworkPolicy) and policy.spec.pre_dnat:
        return
    for way, rules, _ in _ways(policy):
        for at, rule in enumerate(rules):
            for n, net in enumerate(rule.destination.nets):
                if service := service_in(net, landscape):
                    path = f"spec.{way}[{at}].destination.nets[{n}]"
                    says = f"{net} is of Service {service}, whose address nodes replace before policies are asked"
                    do = "use `destination.services`, or select the service's pods"
                    yield warning("service-address", policy, path, f"{says}: never met", do)


def _governed(policy: Policy, landscape: Landscape) -> Iterator[Pod] | None:
    """None: it cannot be said."""
    spec = policy.spec
    selector = parsed(spec.selector)
    if (
        selector is None
        or spec.service_account_selector
        or (isinstance(policy, GlobalNetworkPolicy) and policy.spec.namespace_selector)
    ):
        return None
    pods = landscape.pods(policy.metadata.namespace)
    return (pod for pod in pods if selector.matches(labels_of(pod)))


def selects(policy: Policy, landscape: Landscape) -> Iterator[Finding]:
    """Nobody, or only pods that no policy applies to."""
    governed = _governed(policy, landscape)
    if not landscape.cluster or governed is None:
        return
    if isinstance(policy, GlobalNetworkPolicy):
        selector = parsed(policy.spec.selector)
        if any(host.spec.profiles for host in landscape.hosts):
            return  # a profile may give the labels
        if selector is None or any(selector.matches(host.metadata.labels) for host in landscape.hosts):
            return
    mentions = parsed(policy.spec.selector)
    if mentions is not None and any(label.startswith(("pcns.", "pcsa.")) for label in mentions.labels):
        return
    pod = None
    for pod in governed:
        if not pod.spec.host_network:
            return
    if pod is None:
        says = "no endpoint matches it now"
        yield note("selects-nothing", policy, "spec.selector", says, "check the labels")
    else:
        says = "it matches only pods in the network of their node, to which no policy applies"
        do = "protect the nodes with HostEndpoints, or take hostNetwork from the pods"
        yield warning("host-network", policy, "spec.selector", says, do)


def untracked(policy: GlobalNetworkPolicy, landscape: Landscape) -> Iterator[Finding]:
    if not policy.spec.do_not_track:
        return
    ways = {way for way, rules, governed in _ways(policy) if governed and any(r.action == "Allow" for r in rules)}
    if len(ways) == 1:
        (has,) = ways
        lacks = "egress" if has == "ingress" else "ingress"
        says = f"it allows {has} without connection tracking, but not the answers, which are {lacks}"
        yield warning("one-way", policy, f"spec.{lacks}", says, f"write the rules of {lacks}, with source ports")


CHECKS = (tier, types, log_only, shadowed, services, selects)
GLOBAL_CHECKS = (untracked,)
