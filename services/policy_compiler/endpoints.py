"""Which pods are plugged in, with which labels, addresses and ports: four kinds of facts joined into one.

    Endpoint (node, namespace, name) ---- addresses, incarnation ----+
    Pod (namespace, name) --------------- labels, ports, account ----+--> Workload.now: Contents | None
    Namespace (name) -------------------- pcns. labels, known at all-+
    ServiceAccount (namespace, name) ---- pcsa. labels --------------+

A workload has contents while its endpoint exists and its Pod is known and is the same incarnation, or the endpoint
describes itself. Pods in the host's network and pods that have finished have none, whatever their endpoint says.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple, TypeVar, final

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName, PodKey
from bus_schemas.resources import Namespace, Pod, ServiceAccount
from services.policy_compiler.labels import (
    NAMESPACE_PREFIX,
    SERVICE_ACCOUNT_PREFIX,
    Labels,
    effective,
    inherited,
)

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
FINISHED = frozenset({"Succeeded", "Failed"})
"""Pod phases in which nothing runs any more and nothing will."""

K = TypeVar("K")


class WorkloadKey(NamedTuple):
    """The key of the endpoint, and of its attachment."""

    node: NodeName
    namespace: str
    name: str


class NamedPort(NamedTuple):
    name: str
    protocol: int
    port: int


class Contents(NamedTuple):
    """What there is to know about a plugged-in pod."""

    labels: Labels
    """Effective labels, see `labels`."""
    addresses: tuple[bytes, ...]
    """Packed, 4 or 16 bytes each."""
    ports: tuple[NamedPort, ...]
    container: str
    namespace_known: bool

    def members(self, port: str) -> list[bytes]:
        """Its members in a group of addresses (`port` empty), or of ports of that name: see `bus_schemas.policy`."""
        if not port:
            return list(self.addresses)
        ends = [bytes((p.protocol, 0)) + p.port.to_bytes(2, "big") for p in self.ports if p.name == port]
        return [address + end for address in self.addresses for end in ends]


@final
class Workload:
    """One endpoint's identity; compared as an object."""

    __slots__ = ("key", "now")

    key: WorkloadKey
    now: Contents | None
    """As of the last `Endpoints.flush`."""

    def __init__(self, key: WorkloadKey) -> None:
        self.key = key
        self.now = None

    def __repr__(self) -> str:
        return f"Workload({'/'.join(self.key)})"


class Change(NamedTuple):
    workload: Workload
    before: Contents | None
    after: Contents | None


class _Plug(NamedTuple):
    """What matters of an Endpoint."""

    container: str
    uid: str
    addresses: tuple[bytes, ...]
    labels: Labels | None
    account: str
    ports: tuple[NamedPort, ...]


class _Pod(NamedTuple):
    """What matters of a Pod."""

    labels: Labels
    uid: str
    account: str
    ports: tuple[NamedPort, ...]
    absent: bool
    """It has no endpoint of its own: in the host's network, or finished."""


class Endpoints:
    def __init__(self) -> None:
        self._workloads: dict[WorkloadKey, Workload] = {}
        self._plugs: dict[Workload, _Plug] = {}
        self._of_pod: dict[PodKey, set[Workload]] = {}
        self._of_namespace: dict[str, set[Workload]] = {}
        self._pods: dict[PodKey, _Pod] = {}
        self._namespaces: dict[str, Labels] = {}
        self._accounts: dict[PodKey, Labels] = {}
        self._dirty: set[Workload] = set()

    def __len__(self) -> int:
        return len(self._workloads)

    @property
    def nothing_desired(self) -> bool:
        """Not one Pod, Namespace or ServiceAccount is known."""
        return not (self._pods or self._namespaces or self._accounts)

    def set_endpoint(self, key: WorkloadKey, endpoint: Endpoint | None) -> str | None:
        """Returns what of the endpoint had to be left out, as one sentence."""
        workload = self._workloads.get(key)
        if endpoint is None:
            if workload is not None:
                self._dirty.add(workload)
                del self._plugs[workload]
                self._forget(workload)
            return None
        if workload is None:
            workload = self._workloads[key] = Workload(key)
            self._of_pod.setdefault(PodKey(key.namespace, key.name), set()).add(workload)
            self._of_namespace.setdefault(key.namespace, set()).add(workload)
        addresses = tuple(packed for text in endpoint.addresses if (packed := _packed(text)) is not None)
        ports = tuple(
            NamedPort(port.name, PROTOCOLS[port.protocol], port.port)
            for port in endpoint.ports
            if port.protocol in PROTOCOLS and _is_port(port.port)
        )
        self._plugs[workload] = _Plug(
            endpoint.container, endpoint.uid, addresses, endpoint.labels, endpoint.service_account, ports
        )
        self._dirty.add(workload)
        if len(addresses) == len(endpoint.addresses):
            return None
        return f"addresses: not all of {', '.join(endpoint.addresses)} are addresses"

    def set_pod(self, key: PodKey, pod: Pod | None) -> None:
        if pod is None:
            self._pods.pop(key, None)
        else:
            ports = tuple(
                NamedPort(port.name, PROTOCOLS[port.protocol], port.container_port)
                for port in pod.ports
                if port.name and port.protocol in PROTOCOLS and _is_port(port.container_port)
            )
            absent = pod.spec.host_network or pod.status.phase in FINISHED
            metadata = pod.metadata
            self._pods[key] = _Pod(metadata.labels, metadata.uid, pod.spec.service_account_name, ports, absent)
        self._dirty.update(self._of_pod.get(key, ()))

    def set_namespace(self, name: str, namespace: Namespace | None) -> None:
        if namespace is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = inherited(NAMESPACE_PREFIX, name, namespace.metadata.labels)
        self._dirty.update(self._of_namespace.get(name, ()))

    def set_service_account(self, key: PodKey, account: ServiceAccount | None) -> None:
        if account is None:
            self._accounts.pop(key, None)
        else:
            self._accounts[key] = inherited(SERVICE_ACCOUNT_PREFIX, key.name, account.metadata.labels)
        for workload in self._of_namespace.get(key.namespace, ()):
            if self._account(workload) == key.name:
                self._dirty.add(workload)

    def flush(self) -> Iterator[Change]:
        """The workloads that differ from the last flush. Each is brought up to date as it is given."""
        dirty, self._dirty = self._dirty, set()
        for workload in dirty:
            before, after = workload.now, self._contents(workload)
            if before != after:
                workload.now = after
                yield Change(workload, before, after)

    def _contents(self, workload: Workload) -> Contents | None:
        plug = self._plugs.get(workload)
        if plug is None:
            return None
        _, namespace, name = workload.key
        own, account, ports = plug.labels, plug.account, plug.ports
        if own is None:
            pod = self._pods.get(PodKey(namespace, name))
            if pod is None or pod.absent or (plug.uid and pod.uid and plug.uid != pod.uid):
                return None
            own, account, ports = pod.labels, pod.account, pod.ports
        from_namespace = self._namespaces.get(namespace)
        labels = effective(
            own, namespace, account, from_namespace or {}, self._accounts.get(PodKey(namespace, account), {})
        )
        return Contents(labels, plug.addresses, ports, plug.container, from_namespace is not None)

    def _account(self, workload: Workload) -> str:
        plug = self._plugs[workload]
        if plug.labels is not None:
            return plug.account
        pod = self._pods.get(PodKey(workload.key.namespace, workload.key.name))
        return pod.account if pod is not None else ""

    def _forget(self, workload: Workload) -> None:
        key = workload.key
        del self._workloads[key]
        _discard(self._of_pod, PodKey(key.namespace, key.name), workload)
        _discard(self._of_namespace, key.namespace, workload)


def _discard(index: dict[K, set[Workload]], name: K, workload: Workload) -> None:
    index[name].discard(workload)
    if not index[name]:
        del index[name]


def _packed(text: str) -> bytes | None:
    try:
        return IPv6Address(text).packed if ":" in text else IPv4Address(text).packed
    except AddressValueError:
        return None


def _is_port(port: int) -> bool:
    return 0 < port < 1 << 16
