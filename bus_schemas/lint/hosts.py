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


def astray(host: HostEndpoint, landscape: Landscape) -> Iterator[Finding]:
    """What it names is not there."""
    if not landscape.cluster:
        return
    if host.spec.node not in landscape.node_names:
        says, do = f"there is no node {host.spec.node!r}, so it does nothing", "correct the node's name"
        yield warning("unknown-node", host, "spec.node", says, do)
    for at, name in enumerate(host.spec.profiles):
        if not landscape.has_profile(name):
            says = f"there is no profile {name!r}: what no policy decides is denied"
            yield warning("unknown-profile", host, f"spec.profiles[{at}]", says, "create it, or correct its name")


def nameless_ports(host: HostEndpoint, _: Landscape) -> Iterator[Finding]:
    """Named ports are found by address, and it says none."""
    if host.spec.ports and not host.spec.expected_ips:
        says = "rules find named ports by the host endpoint's addresses, and it has no expectedIPs"
        yield warning("ports-without-address", host, "spec.ports", says, "give it expectedIPs")


def no_failsafe(configuration: FelixConfiguration, landscape: Landscape) -> Iterator[Finding]:
    if configuration.spec.failsafe_inbound_host_ports == () and landscape.hosts:
        says = "without failsafe ports, the host endpoints' policies can close ssh and the bus to their nodes"
        do = "keep at least the ports by which you administer the nodes"
        yield warning("no-failsafe", configuration, "spec.failsafeInboundHostPorts", says, do)
