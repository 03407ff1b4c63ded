"""Policies that are right as manifests and yet do not do what their author means. Pure.

    Landscape   what there is beside the policy: namespaces, pods, services, pools, tiers
    lint        every check of `kubernetes`, `calico` and `hosts` that concerns a resource's kind, and `lockout`, which
                concerns several together -> Findings

A finding is made only where the author's mistake is evident; what may well be meant is let be. What asks for the
cluster's pods is silent where the landscape is not a cluster's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bus_schemas.lint import calico, hosts, kubernetes
from bus_schemas.lint.findings import Finding, Severity
from bus_schemas.lint.landscape import Landscape
from bus_schemas.lint.lockout import MATTERS, lockouts
from bus_schemas.resources import (
    FelixConfiguration,
    GlobalNetworkPolicy,
    HostEndpoint,
    KubernetesNetworkPolicy,
    NetworkPolicy,
    Resource,
)

__all__ = ["CONCERNED", "Finding", "Landscape", "Severity", "lint", "lockouts", "of_one"]

Check = Callable[[Any, Landscape], Iterator[Finding]]

CHECKS: dict[type[Resource], tuple[Check, ...]] = {
    KubernetesNetworkPolicy: kubernetes.CHECKS,
    NetworkPolicy: calico.CHECKS,
    GlobalNetworkPolicy: (*calico.CHECKS, *calico.GLOBAL_CHECKS),
    HostEndpoint: (hosts.closed, hosts.astray, hosts.nameless_ports),
    FelixConfiguration: (hosts.no_failsafe,),
}

CONCERNED = frozenset({*CHECKS, *MATTERS})
"""The kinds about which there can be a finding."""


def lint(resources: Iterable[Resource], landscape: Landscape) -> list[Finding]:
    """The findings about `resources`, which are part of the landscape."""
    given = list(resources)
    return [*(finding for resource in given for finding in of_one(resource, landscape)), *lockouts(given, landscape)]


def of_one(resource: Resource, landscape: Landscape) -> Iterator[Finding]:
    """Without those that concern several together."""
    for check in CHECKS.get(type(resource), ()):
        yield from check(resource, landscape)
