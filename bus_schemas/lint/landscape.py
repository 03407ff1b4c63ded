"""What there is beside a policy, as far as it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import TypeVar

from bus_schemas.resources import (
    BGPConfiguration,
    HostEndpoint,
    IPPool,
    Namespace,
    Node,
    Pod,
    Profile,
    Resource,
    Service,
    ServiceAccount,
    Tier,
)
from bus_schemas.resources.policy_scopes import DEFAULT_ALLOW
from bus_schemas.selectors import Selector, SelectorError, parse

Network = IPv4Network | IPv6Network
Of = Callable[[type[Resource]], Iterable[Resource]]
R = TypeVar("R", bound=Resource)

NAMESPACE = "projectcalico.org/namespace"
ORCHESTRATOR = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
METADATA_NAME = "kubernetes.io/metadata.name"
BUILT_IN_TIERS = frozenset({"default", "kube-admin", "kube-baseline"})


class Landscape:
    def __init__(self, of: Of, *, cluster: bool) -> None:
        """`cluster`: all of a cluster's resources are known, so what is not there is absent."""
        self._of = of
        self.cluster = cluster

    @classmethod
    def from_resources(cls, resources: Iterable[Resource], *, cluster: bool) -> Landscape:
        by_kind: dict[type[Resource], list[Resource]] = {}
        for resource in resources:
            by_kind.setdefault(type(resource), []).append(resource)
        return cls(lambda kind: by_kind.get(kind, ()), cluster=cluster)

    def all(self, kind: type[R]) -> Iterator[R]:
        return (resource for resource in self._of(kind) if isinstance(resource, kind))

    def pods(self, namespace: str) -> Iterator[Pod]:
        """Of one namespace; empty: all."""
        return iter(self._pods.get(namespace, ())) if namespace else self.all(Pod)

    @cached_property
    def _pods(self) -> Mapping[str, Sequence[Pod]]:
        """By namespace: many policies are often judged at once, and there can be very many pods."""
        pods: dict[str, list[Pod]] = {}
        for pod in self.all(Pod):
            pods.setdefault(pod.metadata.namespace, []).append(pod)
        return pods

    @cached_property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """Labels by name, with the one that Kubernetes gives each."""
        return {ns.metadata.name: {METADATA_NAME: ns.metadata.name, **ns.metadata.labels} for ns in self.all(Namespace)}

    @cached_property
    def tiers(self) -> frozenset[str]:
        return BUILT_IN_TIERS | {tier.metadata.name for tier in self.all(Tier)}

    @cached_property
    def pools(self) -> tuple[Network, ...]:
        return tuple(ip_network(pool.spec.cidr) for pool in self.all(IPPool))

    @cached_property
    def nodes(self) -> tuple[Network, ...]:
        found = (node.address(family) for node in self.all(Node) for family in (4, 6))
        return tuple(ip_network(str(ip_interface(text).ip)) for text in found if text)

    @cached_property
    def node_names(self) -> frozenset[str]:
        return frozenset(node.metadata.name for node in self.all(Node))

    def has_profile(self, name: str) -> bool:
        """Those of namespaces and service accounts are made of these; one always exists."""
        if name.startswith("kns."):
            return name.removeprefix("kns.") in self.namespaces
        if name.startswith("ksa."):
            return any(name == f"ksa.{a.metadata.namespace}.{a.metadata.name}" for a in self.all(ServiceAccount))
        return name == DEFAULT_ALLOW or any(profile.metadata.name == name for profile in self.all(Profile))

    @cached_property
    def services(self) -> Mapping[Network, str]:
        """The addresses that nodes translate, with `<namespace>/<name>`."""
        return {
            ip_network(ip): f"{service.metadata.namespace}/{service.metadata.name}"
            for service in self.all(Service)
            for ip in service.spec.cluster_ips
        }

    @cached_property
    def speaks_bgp(self) -> bool:
        return any(bgp.spec.node_to_node_mesh_enabled is not False for bgp in self.all(BGPConfiguration))

    @cached_property
    def hosts(self) -> tuple[HostEndpoint, ...]:
        return tuple(self.all(HostEndpoint))


def labels_of(pod: Pod) -> dict[str, str]:
    """Those that Calico's selectors see, but for what is inherited."""
    own = {NAMESPACE: pod.metadata.namespace, ORCHESTRATOR: "k8s", SERVICE_ACCOUNT: pod.spec.service_account_name}
    return {**pod.metadata.labels, **own}


def parsed(text: str) -> Selector | None:
    """None: it is no selector, which others complain of."""
    try:
        return parse(text)
    except SelectorError:
        return None


def contains(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def service_in(cidr: str, landscape: Landscape) -> str:
    """A Service whose address is meant by the network; empty: none is. A network that holds pods or nodes as well is
    about those."""
    net = ip_network(cidr, strict=False)
    if net.prefixlen <= 8 or any(contains(net, other) for other in (*landscape.pools, *landscape.nodes)):
        return ""
    if any(contains(pool, net) for pool in landscape.pools):
        return ""
    return next((name for address, name in landscape.services.items() if contains(net, address)), "")
