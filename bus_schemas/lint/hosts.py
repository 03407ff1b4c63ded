"""Checks of what can lock people out of a node."""

from __future__ import annotations

from collections.abc import Iterator

from bus_schemas.lint.findings import Finding, warning
from bus_schemas.lint.landscape import Landscape, parsed
from bus_schemas.resources import FelixConfiguration, GlobalNetworkPolicy, HostEndpoint


def closed(host: HostEndpoint, landscape: Landscape) -> Iterator[Finding]:
    """Nothing allows anything to it: only the failsafe ports stay open."""
    if not landscape.cluster or host.spec.profiles:
        return
    for policy in landscape.all(GlobalNetworkPolicy):
        selector = parsed(policy.spec.selector)
        if selector is None or policy.spec.namespace_selector or selector.matches(host.metadata.labels):
            return
    says = f"no policy and no profile applies to it: node {host.spec.node} answers on its failsafe ports only"
    do = "apply the policies first, or give it the profile projectcalico-default-allow"
    yield warning("locked-out", host, "spec", says, do)


def no_failsafe(configuration: FelixConfiguration, landscape: Landscape) -> Iterator[Finding]:
    if configuration.spec.failsafe_inbound_host_ports == () and landscape.hosts:
        says = "without failsafe ports, the host endpoints' policies can close ssh and the bus to their nodes"
        do = "keep at least the ports by which you administer the nodes"
        yield warning("no-failsafe", configuration, "spec.failsafeInboundHostPorts", says, do)
