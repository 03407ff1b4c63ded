"""Where each service address leads, from facts alone. Pure.

    Service --------------+--> frontends: (address, protocol, port)   clusterIPs, externalIPs, load balancer, node ports
    ServiceAddresses -----+         |
    the node's addresses -+         v
    EndpointSlice ------------> pool of backends (`endpoints`) --> Target, one a frontend (`claims`)

`apply` notes a fact, `flush` returns the frontends that changed since the last flush. A service is worked out again
only when it, one of its slices or, where it has node ports, the node's addresses changed.

Nothing is served of a service without a cluster address (headless ones, `ExternalName`), as in kube-proxy. What cannot
be understood of a service closes the frontend that it concerns: see `Target.closed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal, NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.ipam import ServiceAddresses
from bus_schemas.protocols import SCTP, TCP, UDP
from bus_schemas.resources import EndpointSlice, Service
from bus_schemas.resources.services import ServicePort, ServiceSpec
from bus_schemas.subjects import DESIRED, SERVICE_ADDRESSES, Fact, Family
from services.node_dataplane.service_proxy.claims import Claims
from services.node_dataplane.service_proxy.endpoints import Backend, Candidate, Pool, pool

SERVICE, SLICE = DESIRED[Service], DESIRED[EndpointSlice]
READS: tuple[Family[Any], ...] = (SERVICE, SLICE, SERVICE_ADDRESSES)
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_SIZES = {"IPv4": 4, "IPv6": 16}
_DAY_S = 86_400
"""The longest affinity that Kubernetes takes."""

ServiceKey = tuple[str, str]
"""Namespace and name."""

Scope = Literal["cluster", "local", "split"]
"""Which backends of its pool a frontend leads to: all, those of this node, or all for what comes from this node and its
pods and those of this node for everybody else."""


class Frontend(NamedTuple):
    address: bytes
    """Packed: four bytes or sixteen."""
    protocol: int
    port: int

    def __str__(self) -> str:
        name = next(name for name, number in PROTOCOLS.items() if number == self.protocol)
        return f"{ip_address(self.address)} {name.lower()}/{self.port}"


class Target(NamedTuple):
    """Where a frontend leads."""

    port: str
    """`<namespace>/<service> <protocol>/<port>`: what has its own affinity."""
    pool: Pool
    scope: Scope = "cluster"
    affinity_s: int = 0
    """So long a client stays with its backend after its last connection; 0: each connection for itself."""
    sources: tuple[str, ...] | None = None
    """CIDRs of the frontend's family that may use it; None: all."""
    closed: str = ""
    """Why nobody may use it."""


class HealthPort(NamedTuple):
    """What is answered on a healthCheckNodePort."""

    namespace: str
    name: str
    local: int
    """Endpoints on this node."""


@dataclass
class Changes:
    frontends: dict[Frontend, Target | None] = field(default_factory=dict)
    """None: there is no such frontend any more."""
    addresses: dict[bytes, bool] = field(default_factory=dict)
    """Addresses that are a service's alone: whether they are."""

    def __bool__(self) -> bool:
        return bool(self.frontends or self.addresses)


@dataclass
class _Known:
    """What there is of one service."""

    service: Service | None = None
    given: tuple[str, ...] = ()
    slices: dict[str, EndpointSlice] = field(default_factory=dict)

    @property
    def nothing(self) -> bool:
        return self.service is None and not self.given and not self.slices


class ServiceProxy:
    def __init__(self, node: NodeName) -> None:
        self._node = node
        self._known: dict[ServiceKey, _Known] = {}
        self._service_of: dict[ServiceKey, ServiceKey] = {}
        """By EndpointSlice."""
        self._node_addresses: tuple[bytes, ...] = ()
        """On which node ports are served."""
        self._with_node_ports: set[ServiceKey] = set()
        self._stale: dict[ServiceKey, None] = {}
        self._claims: Claims[Frontend, Target] = Claims()
        self._addresses: Claims[bytes, bool] = Claims()
        self._faults: dict[ServiceKey, tuple[str, ...]] = {}
        self._health: dict[ServiceKey, tuple[int, HealthPort]] = {}
        self.frontends: dict[Frontend, Target] = {}
        """As of the last flush."""

    # --- facts

    def apply(self, fact: Fact) -> bool:
        """One key's current value or absence; whether it is any of its business."""
        if fact.family not in READS:
            return False
        key = (fact.key[0], fact.key[1])
        if fact.family == SLICE:
            self._apply_slice(key, fact.value)
            return True
        known = self._known.setdefault(key, _Known())
        if fact.family == SERVICE:
            known.service = fact.value
        else:
            given: ServiceAddresses | None = fact.value
            known.given = () if given is None else given.addresses
        self._touch(key)
        return True

    def _apply_slice(self, key: ServiceKey, found: EndpointSlice | None) -> None:
        before = self._service_of.pop(key, None)
        service = (key[0], found.service) if found is not None and found.service else None
        if before is not None and before != service:
            del self._known[before].slices[key[1]]
            self._touch(before)
        if service is not None and found is not None:
            self._service_of[key] = service
            self._known.setdefault(service, _Known()).slices[key[1]] = found
            self._touch(service)

    def _touch(self, key: ServiceKey) -> None:
        self._stale[key] = None
        if self._known[key].nothing:
            del self._known[key]

    def set_node_addresses(self, addresses: Iterable[bytes]) -> bool:
        """Packed, those on which node ports are served; whether that is news for a service."""
        ordered = tuple(sorted(set(addresses)))
        if ordered == self._node_addresses:
            return False
        self._node_addresses = ordered
        self._stale.update(dict.fromkeys(self._with_node_ports))
        return bool(self._with_node_ports)

    # --- questions

    def faults(self) -> tuple[str, ...]:
        """What is not served as it was asked for, one sentence each, for people."""
        told = [f"Service {'/'.join(key)}: {fault}" for key, faults in self._faults.items() for fault in faults]
        told += [
            f"{frontend} is claimed by several Services: {'/'.join(owners[0])} has it, "
            f"{', '.join('/'.join(owner) for owner in owners[1:])} has not"
            for frontend, owners in self._claims.contested.items()
        ]
        return tuple(sorted(told))

    def health_ports(self) -> Mapping[int, HealthPort]:
        """By port; of several services that want the same one the first by name."""
        found: dict[int, HealthPort] = {}
        for _, (port, told) in sorted(self._health.items()):
            found.setdefault(port, told)
        return found

    # --- output

    def flush(self) -> Changes:
        changes = Changes()
        stale, self._stale = self._stale, {}
        for key in stale:
            known = self._known.get(key, _Known())
            faults: list[str] = []
            wanted = dict(_targets(key, known, self._node, self._node_addresses, faults))
            changes.frontends.update(self._claims.set(key, wanted))
            changes.addresses.update(
                (address, now is not None)
                for address, now in self._addresses.set(key, dict.fromkeys(_own(known), True)).items()
            )
            self._note(key, known, faults)
        for frontend, target in changes.frontends.items():
            if target is None:
                self.frontends.pop(frontend, None)
            else:
                self.frontends[frontend] = target
        return changes

    def _note(self, key: ServiceKey, known: _Known, faults: list[str]) -> None:
        self._faults.pop(key, None)
        self._health.pop(key, None)
        self._with_node_ports.discard(key)
        if faults:
            self._faults[key] = tuple(faults)
        if known.service is None:
            return
        spec = known.service.spec
        if any(port.node_port for port in spec.ports):
            self._with_node_ports.add(key)
        if spec.health_check_node_port and spec.external_traffic_policy == "Local" and _served(spec):
            here = {
                backend.address
                for size in _SIZES.values()
                for port in spec.ports
                for backend in _pool(known, port, size, self._node, []).here
            }
            self._health[key] = (spec.health_check_node_port, HealthPort(*key, len(here)))


# --- one service


def _served(spec: ServiceSpec) -> bool:
    return spec.type != "ExternalName" and bool(spec.cluster_ips)


def _targets(
    key: ServiceKey, known: _Known, node: NodeName, node_addresses: tuple[bytes, ...], faults: list[str]
) -> Iterator[tuple[Frontend, Target]]:
    if known.service is None:
        return
    spec = known.service.spec
    if not _served(spec):
        outside = spec.external_ips or any(port.node_port for port in spec.ports)
        if outside and spec.type != "ExternalName":
            faults.append("it has no clusterIP, so none of its addresses is served")
        return
    outside_scope: Scope = "split" if spec.external_traffic_policy == "Local" else "cluster"
    inside_scope: Scope = "local" if spec.internal_traffic_policy == "Local" else "cluster"
    affinity = spec.session_affinity_timeout_s if spec.session_affinity == "ClientIP" else 0
    closed = "" if 0 <= affinity <= _DAY_S else f"sessionAffinity: {affinity} s is out of range"
    cluster = tuple(_packed(spec.cluster_ips, "clusterIPs", faults))
    external = tuple(_packed(spec.external_ips, "externalIPs", faults))
    balanced = tuple(_packed(_balanced(known), "status.loadBalancer", faults))
    sizes = {len(address) for address in cluster}
    seen: set[Frontend] = set()
    for port in spec.ports:
        protocol = PROTOCOLS.get(port.protocol)
        if protocol is None or not 0 < port.port < 1 << 16:
            faults.append(f"port {port.port} {port.protocol} cannot be served")
            continue
        name = f"{key[0]}/{key[1]} {port.protocol.lower()}/{port.port}"
        pools = {
            size: _pool(known, port, size, node, faults) for size in {len(a) for a in (*cluster, *external, *balanced)}
        }
        rows: list[tuple[bytes, int, Scope, tuple[str, ...] | None, str]] = [
            *((address, port.port, inside_scope, None, "") for address in cluster),
            *((address, port.port, outside_scope, None, "") for address in external),
        ]
        for address in balanced:
            sources, why = _sources(spec, len(address))
            rows.append((address, port.port, outside_scope, sources, why))
        if port.node_port:
            rows += [(a, port.node_port, outside_scope, None, "") for a in node_addresses if len(a) in sizes]
        for address, number, scope, sources, why in rows:
            frontend = Frontend(address, protocol, number)
            if frontend in seen:
                continue  # An address that it has twice: the stricter, internal meaning came first.
            seen.add(frontend)
            if closed or why:
                faults.append(f"{frontend} is closed: {closed or why}")
            yield frontend, Target(name, pools[len(address)], scope, affinity, sources, closed or why)


def _own(known: _Known) -> Iterator[bytes]:
    """Addresses that nothing but the service has: whatever is sent to another port of them leads nowhere."""
    if known.service is not None and _served(known.service.spec):
        yield from _packed(known.service.spec.cluster_ips, "", [])


def _balanced(known: _Known) -> Iterator[str]:
    assert known.service is not None
    if known.service.spec.type == "LoadBalancer":
        told = (i.ip for i in known.service.status.load_balancer_ingress if i.ip_mode == "VIP")
        yield from dict.fromkeys((*told, *known.given))


def _packed(addresses: Iterable[str], what: str, faults: list[str]) -> Iterator[bytes]:
    for text in addresses:
        try:
            yield ip_address(text).packed
        except ValueError:
            faults.append(f"{what}: {text!r} is no address")


def _sources(spec: ServiceSpec, size: int) -> tuple[tuple[str, ...] | None, str]:
    """Who may use a load balancer's address, and why nobody may."""
    if not spec.load_balancer_source_ranges:
        return None, ""
    found = set()
    for text in spec.load_balancer_source_ranges:
        try:
            network = ip_network(text.strip(), strict=False)
        except ValueError as error:
            return (), f"loadBalancerSourceRanges: {error}"
        if len(network.network_address.packed) == size:
            found.add(str(network))
    return tuple(sorted(found)), ""


def _pool(known: _Known, port: ServicePort, size: int, node: NodeName, faults: list[str]) -> Pool:
    return pool(_candidates(known, port, size, node, faults))


def _candidates(known: _Known, port: ServicePort, size: int, node: NodeName, faults: list[str]) -> Iterator[Candidate]:
    assert known.service is not None
    always = known.service.spec.publish_not_ready_addresses
    for name, found in sorted(known.slices.items()):
        spec = found.spec
        if _SIZES.get(spec.address_type) != size:
            continue
        numbers = [p.port for p in spec.ports if (p.name, p.protocol) == (port.name, port.protocol) and p.port]
        if not numbers:
            continue
        for endpoint in spec.endpoints:
            serving = endpoint.ready if endpoint.serving is None else endpoint.serving
            for address in endpoint.addresses[:1]:  # All of an endpoint are the same one (discovery.k8s.io/v1).
                packed = _backend(address, size)
                if packed is None:
                    faults.append(f"EndpointSlice {name}: {address!r} is no endpoint's address")
                    continue
                for number in numbers:
                    yield Candidate(
                        Backend(packed, number),
                        endpoint.ready or always,
                        serving,
                        endpoint.terminating,
                        bool(endpoint.node_name) and endpoint.node_name == node,
                    )


def _backend(text: str, size: int) -> bytes | None:
    """Packed; None: no address of the family, or one that no endpoint has (loopback, link-local, multicast, none at
    all)."""
    try:
        packed = ip_address(text).packed
    except ValueError:
        return None
    if len(packed) != size or not any(packed):
        return None
    if size == 4:
        own = packed[0] == 127 or packed[0] >> 4 == 14 or packed[:2] == b"\xa9\xfe"
    else:
        own = not any(packed[:15]) or packed[0] == 0xFF or (packed[0] == 0xFE and packed[1] >> 6 == 2)
    return None if own else packed
