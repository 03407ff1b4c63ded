"""One running lab: its fabric, its processes, its resources and its pods.

    Cluster.up()    namespaces and cables -> bus, services and agents, all at once -> resources -> pods by CNI ADD
    while it runs   apply, delete, label, start and stop pods: what a scenario's steps and a person do
    Cluster.down()  processes end, namespaces go, the directory goes

The cluster plays the part of Kubernetes: it writes Node, Namespace, ServiceAccount and Pod resources through the api as
kube_bridge would, and calls the CNI plugin as a container runtime would. Everything else is Tortie's own doing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bus_schemas.ids import PodKey
from tortie import netns
from tortie.cli.client import Client, Json, object_path
from tortie.cli.errors import CommandError
from tortie.lab import fabric, ownership, processes, routers
from tortie.lab.errors import CannotDo, LabError
from tortie.lab.flannel import Flannel
from tortie.lab.listeners import Listeners
from tortie.lab.pace import SLOWNESS
from tortie.lab.pods import Pod
from tortie.lab.processes import Process
from tortie.lab.scenario import LabelChange, Labels, Network, NodeSpec, Place, PodSpec, Reference
from tortie.lab.topology import CONTROL_ADDRESS, OUTSIDE_ADDRESS, Topology, node_netns, plan, pod_netns

BUS = "nats"
SERVICES = ("api", "ipam", "route-distribution", "policy-compiler")
POLICY_SERVICES = ("api", "policy-compiler")
"""Where addresses and routes are somebody else's."""
AGENT = "node-dataplane"
NATS_PORT = 4222
_NATS_URL = f"nats://{CONTROL_ADDRESS}:{NATS_PORT}"

_LEVEL = re.compile(r"\[(?:warning|error|critical) *\]")
"""As the services' console logs have it, after the time."""

T = TypeVar("T")
Say = Callable[[str], None]
"""Takes the name of what begins now."""


class Cluster:
    def __init__(
        self,
        name: str,
        nodes: Mapping[str, NodeSpec],
        directory: Path,
        settings: Mapping[str, str] | None = None,
        *,
        network: Network = "tortie",
    ) -> None:
        """`directory` is the lab's own, see `ownership`; `settings` of every agent, by variable. Raises
        ScenarioFault."""
        self.name = name
        self.topology: Topology = plan(name, {node: spec.addresses for node, spec in nodes.items()})
        self.pods: dict[PodKey, Pod] = {}
        self.directory = directory
        self.processes: dict[str, Process] = {}
        self.routers: list[Process] = []
        """What runs on nodes that are no part of the cluster."""
        self._nodes = dict(nodes)
        addresses = {node: spec.addresses for node, spec in nodes.items()}
        self._flannel = Flannel(addresses) if network == "flannel" else None
        """The network, where it is not Tortie's own."""
        self._client = Client(ownership.api_address(name))
        self._namespaces: set[str] = set()
        self._settings: dict[str, dict[str, str]] = {}
        self._of_agents = dict(settings or {})
        self._outside = Listeners(self.topology.outside.netns)
        self._node_listeners: dict[str, Listeners] = {}

    # --- life

    async def up(
        self, resources: str, namespaces: Mapping[str, Labels], pods: Mapping[PodKey, PodSpec], say: Say
    ) -> None:
        """Everything there, and every pod plugged in. Raises LabError; call `down` in any case."""
        say("namespaces and cables")
        await ownership.erase(self.name)
        for part in ("log", "health", *(f"node/{node}" for node in self._nodes)):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        await fabric.build(self.topology)
        for protocol in ("tcp", "udp"):
            await self._outside.open(protocol, fabric.ANSWERING_PORT)
        if self._flannel is not None:
            await _all(self._flannel.build(node, host.netns) for node, host in self.topology.nodes.items())
        say("the bus, the services and the agents")
        await self._start_processes()
        await _all(self._start_router(node) for node, spec in self._nodes.items() if spec.external is not None)
        await self.processes["api"].ready()
        say("resources")
        documents = [self._node_manifest(node) for node, spec in self._nodes.items() if spec.external is None]
        await self._apply_all(documents)
        await self.add_namespaces({**{key.namespace: {} for key in pods}, "default": {}, **namespaces})
        if resources.strip():
            await self.apply(resources)
        await _all(process.ready() for name, process in self.processes.items() if name != BUS)
        say(f"{len(pods)} pods")
        await self.start(pods)

    async def down(self) -> None:
        """Stops everything and leaves nothing behind, however far `up` came."""
        for listeners in (self._outside, *self._node_listeners.values(), *(p.listeners for p in self.pods.values())):
            listeners.close()
        # clients of the bus end before the bus, so that none of them complains of its absence
        await asyncio.gather(*(router.stop() for router in self.routers))
        await asyncio.gather(*(process.stop() for name, process in self.processes.items() if name != BUS))
        if BUS in self.processes:
            await self.processes[BUS].stop()
        await ownership.erase(self.name)

    @property
    def agents(self) -> list[str]:
        """The nodes that run an agent now."""
        return [node for node in self._nodes if _agent(node) in self.processes]

    def fates(self) -> list[str]:
        """The processes that ended although nobody told them to."""
        return [process.fate for process in (*self.processes.values(), *self.routers) if process.fate]

    def complaints(self, lines: int = 12) -> list[str]:
        """The last warnings and errors in the logs, oldest first, each with the name of its process."""
        found = []
        for log in (self.directory / "log").glob("*.log"):
            for line in log.read_text(errors="replace").splitlines():
                level = _LEVEL.search(line)
                if level:
                    found.append((line[: level.start()], f"{log.stem}: {line}"))
        return [line for _, line in sorted(found)[-lines:]]

    async def _start_processes(self) -> None:
        agents = (_agent(node) for node, spec in self._nodes.items() if spec.external is None)
        await _all(map(self.start_process, (BUS, *self._services, *agents)))

    @property
    def _services(self) -> tuple[str, ...]:
        return SERVICES if self._flannel is None else POLICY_SERVICES

    async def start_process(self, name: str) -> None:
        """The bus, a service or an agent by the name in `processes`; one that was killed goes on with what it left."""
        if name == BUS:
            await self._serve(BUS, arguments=("--store", str(self.directory / "nats"), "--host", CONTROL_ADDRESS))
        elif name in SERVICES:
            await self._serve(name)
        else:
            await self.start_agent(name.removeprefix(_agent("")))

    async def kill_process(self, name: str) -> int:
        """kill -9; nobody starts it again but `start_process`. Its process id. Raises CannotDo."""
        process = self._process(name)
        await process.kill()
        return process.pid

    async def revive_process(self, name: str, settings: Mapping[str, str]) -> int:
        """Starts what was killed, with other settings beside those that the lab gives it. Raises CannotDo."""
        if self._process(name).alive:
            raise CannotDo(f"{name} runs: `tortie lab kill {name}` first")
        self._settings[name] = dict(settings)
        await self.start_process(name)
        return self.processes[name].pid

    def _process(self, name: str) -> Process:
        try:
            return self.processes[name]
        except KeyError:
            raise CannotDo(f"there is no process {name} here, but {', '.join(sorted(self.processes))}") from None

    async def _serve(self, service: str, arguments: tuple[str, ...] = ()) -> None:
        settings = {"TORTIE_NATS_URL": _NATS_URL, "TORTIE_INSTANCE": service, "TORTIE_LOG_FORMAT": "console"}
        if service == "api":
            settings["TORTIE_API_LISTEN"] = ownership.api_address(self.name)
        self.processes[service] = await processes.serve(
            service,
            name=service,
            namespace=self.topology.control.netns,
            log=self.directory / "log" / f"{service}.log",
            settings=settings | self._settings.get(service, {}),
            arguments=arguments,
            health=None if service == BUS else self.directory / "health" / service,
        )

    async def start_agent(self, node: str) -> None:
        """The agent of a node that has none."""
        self.processes[_agent(node)] = await processes.serve(
            AGENT,
            name=_agent(node),
            namespace=self.netns(Place("node", node)),
            log=self.directory / "log" / f"{_agent(node)}.log",
            settings={
                "TORTIE_NATS_URL": _NATS_URL,
                "TORTIE_INSTANCE": node,
                "TORTIE_LOG_FORMAT": "console",
                "TORTIE_NODE": node,
                "TORTIE_STATE_DIR": str(self.directory / "node" / node),
                **self._agent_settings(node),
            }
            | self._of_agents
            | self._settings.get(_agent(node), {}),
            health=self.directory / "health" / node,
        )

    def _agent_settings(self, node: str) -> dict[str, str]:
        if self._flannel is not None:
            return {"TORTIE_POLICY_ONLY": "true"}
        return {
            "TORTIE_CNI_SOCKET": str(self._cni_socket(node)),
            "TORTIE_CNI_DEADLINE_S": f"{min(30 * SLOWNESS, 80):g}",
            "TORTIE_BGP_SECRETS_DIR": str(self.directory / "secrets"),
        }

    async def _start_router(self, node: str) -> None:
        """A node that is none of ours: it forwards, and speaks BGP if it is to."""
        external, host = self._nodes[node].external, self.topology.nodes[node]
        assert external is not None
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            netns.write_sysctl(host.netns, key, "1")
        routes = [f"route add {to} via {self.address(Place('node', way))}" for to, way in external.routes.items()]
        lines = [*(f"addr add {own} dev lo" for own in routers.addresses_of(external)), *routes]
        if lines:
            await fabric.run("ip", "-n", host.netns, "-batch", "-", stdin="\n".join(lines) + "\n")
        neighbours = external.router.neighbours if external.router is not None else {}
        place = routers.Place(
            tuple(address.partition("/")[0] for address in self._nodes[node].addresses),
            {self.address(Place("node", name)): asn for name, asn in neighbours.items()},
            routers.directory_of(external, self.directory, host.netns),
        )
        software = routers.software(external, place)
        if software is None:
            return
        routers.write(software, place.directory)
        for daemon in software.daemons:
            if daemon.waits_for is not None:
                await processes.appears(daemon.waits_for)
            name = f"{node}-{daemon.name}"
            log = self.directory / "log" / f"{name}.log"
            self.routers.append(await processes.start(daemon.argv, name=name, namespace=host.netns, log=log))

    async def stop_agent(self, node: str) -> None:
        process = self.processes.pop(_agent(node), None)
        if process is not None:
            await process.stop()

    # --- resources

    async def apply(self, manifests: str) -> list[Json]:
        """Raises CannotDo with what the api found wrong."""
        return await self._ask(lambda: self._client.apply(manifests))

    async def delete(self, what: Reference) -> None:
        """Deleting a Node stops its agent first, as taking a machine away would. Raises CannotDo."""
        if what.kind == "Node":
            await self.stop_agent(what.name)
        await self._ask(lambda: self._client.delete_one(what.kind.lower(), what.name, what.namespace))

    async def label(self, what: Reference, changes: LabelChange) -> None:
        """Sets labels, and removes those whose value is None. Raises CannotDo."""
        path = object_path(what.kind.lower(), what.name, what.namespace)
        manifest = await self._ask(lambda: self._client.get(path))
        labels = dict(manifest["metadata"].get("labels", {}))
        for name, value in changes.items():
            if value is None:
                labels.pop(name, None)
            else:
                labels[name] = value
        manifest["metadata"]["labels"] = labels
        await self.apply(json.dumps(manifest))

    async def add_namespaces(self, namespaces: Mapping[str, Labels]) -> None:
        """With the label and the service account that Kubernetes gives each by itself."""
        new = {name: labels for name, labels in namespaces.items() if name not in self._namespaces}
        if not new:
            return
        documents: list[Json] = []
        for name, labels in new.items():
            own = {"kubernetes.io/metadata.name": name}
            documents.append(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**labels, **own}}}
            )
            account = {"name": "default", "namespace": name}
            documents.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        await self._apply_all(documents)
        self._namespaces |= set(new)

    async def blocks(self) -> dict[str, list[str]]:
        """Node -> its address blocks, in the order of the pools and addresses."""
        report = await self._ask(lambda: self._client.get("/v1/ipam"))
        owned: dict[str, list[str]] = {}
        for pool in report["pools"]:
            for block in pool["blocks"]:
                owned.setdefault(block["node"], []).append(block["cidr"])
        return owned

    def _node_manifest(self, node: str) -> Json:
        spec = self._nodes[node]
        subnets = list(map(str, self._flannel.subnets[node])) if self._flannel is not None else []
        addresses = {"ipv6Address" if ":" in text else "ipv4Address": text for text in spec.addresses}
        return {
            "apiVersion": "projectcalico.org/v3",
            "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node, **spec.labels}},
            "spec": {"bgp": addresses, **({"podCIDRs": subnets} if subnets else {})},
        }

    async def _apply_all(self, documents: Sequence[Json]) -> None:
        await self.apply("\n---\n".join(json.dumps(document) for document in documents))

    async def _ask(self, request: Callable[[], T]) -> T:
        """A request to the api, off the event loop."""
        try:
            return await asyncio.to_thread(request)
        except CommandError as error:
            raise CannotDo("\n  ".join((str(error), *error.details))) from error

    # --- pods

    async def start(self, pods: Mapping[PodKey, PodSpec]) -> None:
        """Raises CannotDo, PluginFailed."""
        if not pods:
            return
        await self.add_namespaces({key.namespace: {} for key in pods})
        new = [Pod(key, spec, pod_netns(self.name, *key)) for key, spec in pods.items()]
        await self._apply_all([pod.manifest() for pod in new])
        self.pods |= {pod.key: pod for pod in new}
        await _all(self._plug_in(pod) for pod in new)

    async def _plug_in(self, pod: Pod) -> None:
        await fabric.add_namespace(pod.netns)
        node = node_netns(self.name, pod.spec.node)
        if self._flannel is None:
            await pod.plug_in(node, self._cni_socket(pod.spec.node))
            return
        pod.link, pod.addresses = await self._flannel.plug_in(pod.spec.node, node, pod.netns, asked=pod.spec.addresses)
        await self._apply_all([pod.manifest(addresses=pod.addresses)])  # As its kubelet would say.
        await pod.listen()

    async def stop(self, keys: Iterable[PodKey]) -> None:
        """Raises CannotDo, PluginFailed."""
        await _all(self._stop(key) for key in keys)

    async def _stop(self, key: PodKey) -> None:
        pod = self.pod(key)
        node = node_netns(self.name, pod.spec.node)
        if self._flannel is None:
            await pod.unplug(node, self._cni_socket(pod.spec.node))
        else:
            pod.listeners.close()
            await self._flannel.unplug(node, pod.netns)
        await self._ask(lambda: self._client.delete_one("pod", key.name, key.namespace))
        await fabric.remove_namespaces([pod.netns])
        del self.pods[key]

    def pod(self, key: PodKey) -> Pod:
        try:
            return self.pods[key]
        except KeyError:
            raise CannotDo(f"there is no pod {key} now") from None

    def _cni_socket(self, node: str) -> Path:
        return self.directory / "node" / node / "cni.sock"

    # --- places

    def netns(self, place: Place) -> str:
        """The namespace of a pod or node, or of the outside host. Raises CannotDo."""
        match place.kind:
            case "pod":
                return self.pod(_key(place)).netns
            case "node":
                if place.name not in self._nodes:
                    raise CannotDo(f"there is no node {place.name}")
                return self.topology.nodes[place.name].netns
        if place.name == OUTSIDE_ADDRESS:
            return self.topology.outside.netns
        raise CannotDo(f"{place} is nowhere in this lab")

    def address(self, place: Place) -> str:
        """Where packets to the place go. Raises CannotDo."""
        match place.kind:
            case "pod":
                addresses = self.pod(_key(place)).addresses
                if not addresses:
                    raise CannotDo(f"{place} has no address")
                return addresses[0]
            case "node":
                if place.name not in self._nodes:
                    raise CannotDo(f"there is no node {place.name}")
                return self._nodes[place.name].address.partition("/")[0]
        return place.name

    async def listen(self, place: Place, protocol: str, port: int) -> None:
        """Opens a port of a node, which has none by itself. The ports of pods are their own affair."""
        if place.kind == "node" and protocol != "icmp":
            listeners = self._node_listeners.setdefault(place.name, Listeners(self.netns(place)))
            await listeners.open(protocol, port)

    def log_of(self, place: Place) -> str:
        """The log of the agent that a place depends on."""
        node = self.pods[_key(place)].spec.node if place.kind == "pod" and _key(place) in self.pods else place.name
        return str(self.directory / "log" / f"{_agent(node)}.log")


def _agent(node: str) -> str:
    return f"agent-{node}"


def _key(place: Place) -> PodKey:
    namespace, _, name = place.name.partition("/")
    return PodKey(namespace, name)


async def _all(work: Iterable[Awaitable[object]]) -> None:
    """Side by side; the first failure is raised as itself, after the others were cancelled."""

    async def one(item: Awaitable[object]) -> None:
        await item

    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(one(item))
    except BaseExceptionGroup as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if not isinstance(first, LabError):
            raise
        raise first from None
