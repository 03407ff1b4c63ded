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
from typing import NamedTuple, TypeVar, final

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName, PodKey
from bus_schemas.resources import Pod
from services.policy_compiler.labels import Labels, effective
from services.policy_compiler.members import PROTOCOLS, Change, Contents, Member, NamedPort, is_port, packed_all
from services.policy_compiler.parents import Parents

FINISHED = frozenset({"Succeeded", "Failed"})
"""Pod phases in which nothing runs any more and nothing will."""

K = TypeVar("K")


class WorkloadKey(NamedTuple):
    """The key of the endpoint, and of its attachment."""

    node: NodeName
    namespace: str
    name: str


@final
class Workload(Member):
    """One endpoint."""

    __slots__ = ("account", "key")

    def __init__(self, key: WorkloadKey) -> None:
        super().__init__()
        self.key = key
        self.account = ""
        """As of the last flush; empty: none."""

    def __repr__(self) -> str:
        return f"Workload({'/'.join(self.key)})"


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
    def __init__(self, parents: Parents) -> None:
        self._parents = parents
        self._workloads: dict[WorkloadKey, Workload] = {}
        self._plugs: dict[Workload, _Plug] = {}
        self._of_pod: dict[PodKey, set[Workload]] = {}
        self._of_namespace: dict[str, set[Workload]] = {}
        self._of_account: dict[PodKey, set[Workload]] = {}
        """As of the last flush: whose account is another since is dirty anyway."""
        self._pods: dict[PodKey, _Pod] = {}
        self._dirty: set[Workload] = set()

    def __len__(self) -> int:
        return len(self._workloads)

    @property
    def nothing_desired(self) -> bool:
        """Not one Pod is known."""
        return not self._pods

    def set_endpoint(self, key: WorkloadKey, endpoint: Endpoint | None) -> str | None:
        """Returns what of the endpoint had to be left out, as one sentence."""
        workload = self._workloads.get(key)
        if endpoint is None:
            if workload is not None:
                self._dirty.add(workload)
                self._plugs.pop(workload, None)
            return None
        if workload is None:
            workload = self._workloads[key] = Workload(key)
            self._of_pod.setdefault(PodKey(key.namespace, key.name), set()).add(workload)
            self._of_namespace.setdefault(key.namespace, set()).add(workload)
        addresses, rest = packed_all(endpoint.addresses)
        ports = tuple(
            NamedPort(port.name, PROTOCOLS[port.protocol], port.port)
            for port in endpoint.ports
            if port.protocol in PROTOCOLS and is_port(port.port)
        )
        self._plugs[workload] = _Plug(
            endpoint.container, endpoint.uid, addresses, endpoint.labels, endpoint.service_account, ports
        )
        self._dirty.add(workload)
        return f"addresses: {', '.join(map(repr, rest))} is no address" if rest else None

    def set_pod(self, key: PodKey, pod: Pod | None) -> None:
        if pod is None:
            self._pods.pop(key, None)
        else:
            ports = tuple(
                NamedPort(port.name, PROTOCOLS[port.protocol], port.container_port)
                for port in pod.ports
                if port.name and port.protocol in PROTOCOLS and is_port(port.container_port)
            )
            absent = pod.spec.host_network or pod.status.phase in FINISHED
            metadata = pod.metadata
            self._pods[key] = _Pod(metadata.labels, metadata.uid, pod.spec.service_account_name, ports, absent)
        self._dirty.update(self._of_pod.get(key, ()))

    def namespace_changed(self, name: str) -> None:
        self._dirty.update(self._of_namespace.get(name, ()))

    def account_changed(self, key: PodKey) -> None:
        self._dirty.update(self._of_account.get(key, ()))

    def flush(self) -> Iterator[Change]:
        """The workloads that differ from the last flush. Each is brought up to date as it is given."""
        dirty, self._dirty = self._dirty, set()
        for workload in dirty:
            before, after = workload.now, self._contents(workload)
            self._list_under(workload, self._account(workload) if workload in self._plugs else "")
            if workload not in self._plugs:
                self._forget(workload)
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
        from_namespace = self._parents.namespaces.get(namespace)
        from_account = self._parents.accounts.get(PodKey(namespace, account), {})
        labels = effective(own, namespace, account, from_namespace or {}, from_account)
        return Contents(labels, plug.addresses, ports, plug.container, from_namespace is not None)

    def _account(self, workload: Workload) -> str:
        plug = self._plugs.get(workload)
        if plug is not None and plug.labels is not None:
            return plug.account
        pod = self._pods.get(PodKey(workload.key.namespace, workload.key.name))
        return pod.account if pod is not None else ""

    def _list_under(self, workload: Workload, account: str) -> None:
        if workload.account == account:
            return
        if workload.account:
            _discard(self._of_account, PodKey(workload.key.namespace, workload.account), workload)
        if account:
            self._of_account.setdefault(PodKey(workload.key.namespace, account), set()).add(workload)
        workload.account = account

    def _forget(self, workload: Workload) -> None:
        key = workload.key
        del self._workloads[key]
        _discard(self._of_pod, PodKey(key.namespace, key.name), workload)
        _discard(self._of_namespace, key.namespace, workload)


def _discard(index: dict[K, set[Workload]], name: K, workload: Workload) -> None:
    index[name].discard(workload)
    if not index[name]:
        del index[name]
