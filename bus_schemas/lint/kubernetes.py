"""Checks of networking.k8s.io/v1 NetworkPolicy."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from bus_schemas import selectors
from bus_schemas.lint.findings import Finding, note, warning
from bus_schemas.lint.landscape import METADATA_NAME, Landscape, contains, service_in
from bus_schemas.resources import KubernetesNetworkPolicy, LabelSelector, Pod
from bus_schemas.resources.network_policy import NetworkPolicyPeer

FINISHED = ("Succeeded", "Failed")


def _governed(policy: KubernetesNetworkPolicy, landscape: Landscape) -> list[Pod]:
    selector = selectors.from_label_selector(policy.spec.pod_selector)
    pods = landscape.pods(policy.metadata.namespace)
    return [pod for pod in pods if pod.status.phase not in FINISHED and selector.matches(pod.metadata.labels)]


def selects(policy: KubernetesNetworkPolicy, landscape: Landscape) -> Iterator[Finding]:
    """Nobody, or only pods that no policy applies to."""
    if not landscape.cluster:
        return
    governed = _governed(policy, landscape)
    if not governed:
        says = f"no pod of namespace {policy.metadata.namespace} matches it now"
        yield note("selects-nothing", policy, "spec.podSelector", says, "check the labels")
    elif all(pod.spec.host_network for pod in governed):
        says = "it matches only pods in the network of their node, to which no policy applies"
        do = "protect the nodes with HostEndpoints, or take hostNetwork from the pods"
        yield warning("host-network", policy, "spec.podSelector", says, do)


def types(policy: KubernetesNetworkPolicy, landscape: Landscape) -> Iterator[Finding]:
    for way, rules in (("Ingress", policy.spec.ingress), ("Egress", policy.spec.egress)):
        if rules and way not in policy.spec.policy_types:
            says = f"policyTypes does not have {way}, so these rules have no effect"
            yield warning("rules-without-type", policy, f"spec.{way.lower()}", says, f"add {way} to policyTypes")


def _peers(policy: KubernetesNetworkPolicy) -> Iterator[tuple[str, NetworkPolicyPeer]]:
    for at, ingress in enumerate(policy.spec.ingress):
        yield from ((f"spec.ingress[{at}].from[{n}]", peer) for n, peer in enumerate(ingress.from_))
    for at, egress in enumerate(policy.spec.egress):
        yield from ((f"spec.egress[{at}].to[{n}]", peer) for n, peer in enumerate(egress.to))


def blocks(policy: KubernetesNetworkPolicy, landscape: Landscape) -> Iterator[Finding]:
    """A Service's address never matches; a network that holds the pods lets all of them in."""
    for path, peer in _peers(policy):
        if peer.ip_block is None:
            continue
        net = ip_network(peer.ip_block.cidr, strict=False)
        where = f"{path}.ipBlock.cidr"
        if service := service_in(peer.ip_block.cidr, landscape):
            says = f"{net} is of Service {service}, whose address nodes replace before policies are asked: never met"
            yield warning("service-address", policy, where, says, "select the service's pods instead")
        if net.prefixlen == 0:
            continue
        excepted = [ip_network(text, strict=False) for text in peer.ip_block.except_]
        for pool in landscape.pools:
            if contains(net, pool) and not any(contains(pool, e) or contains(e, pool) for e in excepted):
                says = f"{net} holds the pods' addresses ({pool}): every pod is meant, whatever its namespace"
                yield warning("block-of-pods", policy, where, says, "use selectors for pods, or except the pool")


def namespace_labels(policy: KubernetesNetworkPolicy, landscape: Landscape) -> Iterator[Finding]:
    """`name: x` for a namespace that is called x but has no such label."""
    for path, peer in _peers(policy):
        if peer.namespace_selector is None:
            continue
        for key, value in _wanted(peer.namespace_selector):
            labels = landscape.namespaces.get(value)
            carried = any(known.get(key) == value for known in landscape.namespaces.values())
            if key != METADATA_NAME and labels is not None and not carried:
                says = f"no namespace has the label {key}={value}, also not the one called {value}"
                do = f"ask for {METADATA_NAME}, which every namespace has, or label it"
                yield warning("namespace-label", policy, f"{path}.namespaceSelector", says, do)


def _wanted(selector: LabelSelector) -> Iterator[tuple[str, str]]:
    yield from selector.match_labels.items()
    for requirement in selector.match_expressions:
        if requirement.operator == "In":
            yield from ((requirement.key, value) for value in requirement.values)


def named_ports(policy: KubernetesNetworkPolicy, landscape: Landscape) -> Iterator[Finding]:
    names = any(isinstance(port.port, str) for rule in policy.spec.ingress for port in rule.ports)
    if not landscape.cluster or not names:
        return
    governed = [pod for pod in _governed(policy, landscape) if not pod.spec.host_network]
    if not governed:
        return
    known = {(port.name, port.protocol) for pod in governed for port in pod.ports}
    for at, rule in enumerate(policy.spec.ingress):
        for n, port in enumerate(rule.ports):
            if isinstance(port.port, str) and (port.port, port.protocol) not in known:
                says = (
                    f"none of the {len(governed)} pods that it selects has a {port.protocol} port named {port.port!r}"
                )
                path = f"spec.ingress[{at}].ports[{n}].port"
                yield warning("unknown-port", policy, path, says, "name it in the pods' containers, or use its number")


CHECKS = (selects, types, blocks, namespace_labels, named_ports)
