"""Agents for tests: the CNI's verbs on a real kernel with the other services played by a few lines each, and the plugin
as a container runtime runs it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import Assigned, AssignReply, AssignRequest, PoolExhausted, Refused, Released, ReleaseRequest
from bus_schemas.resources import Pod
from bus_schemas.resources.metadata import Metadata
from bus_schemas.subjects import ASSIGN, RELEASE, Rpc
from chassis.errors import Unavailable
from chassis.health import Health
from services.node_dataplane import cni_server
from services.node_dataplane.addressing import Addressing, OutageAdd
from services.node_dataplane.closed_starts import ClosedStarts
from services.node_dataplane.connections import Connections
from services.node_dataplane.endpoint_store import EndpointStore
from services.node_dataplane.links import PodLinks
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.nft.link_groups import first_choice
from services.node_dataplane.outage import Reach
from services.node_dataplane.pods import Pods
from services.node_dataplane.reaper import Reaper
from services.node_dataplane.routing import RouteTable
from services.node_dataplane.take_overs import TakeOvers
from services.node_dataplane.warm_pool import WarmPool
from services.node_dataplane.wishes import Allowed
from tests.support.netns import Namespace
from tests.support.waiting import eventually
from tortie.cni import plugin

CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "tortie"}
REPOSITORY = Path(__file__).parents[2]


def cni_env(
    command: str, container: str, netns: str, pod: PodKey | None = None, interface: str = "eth0"
) -> dict[str, str]:
    env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": interface, "CNI_PATH": "/opt/cni/bin"}
    if netns:
        env["CNI_NETNS"] = netns
    if pod is not None:
        env["CNI_ARGS"] = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name}"
    return env


PYTHON_FRONT = (sys.executable, "-I", "-S", str(plugin.__file__))


def run_plugin(
    env: dict[str, str], conf: dict[str, Any], front: Sequence[str] = PYTHON_FRONT
) -> tuple[int, dict[str, Any]]:
    """The plugin as a process of its own: (exit code, its JSON; empty when it printed nothing)."""
    done = subprocess.run(
        front,
        input=json.dumps(conf).encode(),
        env=env,
        capture_output=True,
        check=False,
    )
    assert not done.stderr, done.stderr.decode()
    return done.returncode, json.loads(done.stdout or b"{}")


# --- the other services, played


class PlayedIpam:
    """Hands out 10.244.0.<n>, idempotent by handle."""

    def __init__(self, size: int = 200) -> None:
        self.held: dict[HandleId, tuple[str, ...]] = {}
        self.requests: list[AssignRequest] = []
        self.away = False
        self.size = size

    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("nobody answers")
        if rpc == ASSIGN:
            return self.assign(message) if message.takes_over is None else self.take_over(message)
        assert rpc == RELEASE
        return self.release(message)

    def assign(self, request: AssignRequest) -> AssignReply:
        self.requests.append(request)
        if request.handle in self.held:
            return Assigned(addresses=self.held[request.handle], repeated=True)
        used = {address for held in self.held.values() for address in held}
        free = (f"10.244.0.{number}" for number in range(2, 2 + self.size))
        chosen = request.addresses or next(((a,) for a in free if a not in used), ())
        if taken := used & set(request.addresses):
            return Refused(reason=f"{', '.join(taken)} is in use")
        if not chosen:
            return PoolExhausted(pools=("default",), reason="the pool default (10.244.0.0/24) is exhausted")
        self.held[request.handle] = chosen
        return Assigned(addresses=chosen)

    def take_over(self, request: AssignRequest) -> AssignReply:
        self.requests.append(request)
        assert request.takes_over is not None
        addresses = self.held.pop(request.takes_over, self.held.get(request.handle, request.addresses))
        assert addresses == request.addresses, "another address than the warm one"
        self.held[request.handle] = addresses
        return Assigned(addresses=addresses)

    def release(self, request: ReleaseRequest) -> Released:
        assert request.handle is not None
        return Released(addresses=self.held.pop(request.handle, ()))


class PlayedPolicy:
    """In place as soon as it is asked for, unless `blocked`."""

    def __init__(self) -> None:
        self.plugged: dict[PodKey, Endpoint] = {}
        self.blocked = ""

    def plug(self, endpoint: Endpoint, sources: tuple[str, ...] = ()) -> None:
        self.plugged[endpoint.pod] = endpoint

    def link_group(self, link: str) -> int:
        return first_choice(link)

    def unplug(self, pod: PodKey) -> None:
        self.plugged.pop(pod, None)

    async def in_place(self, endpoint: Endpoint) -> None:
        await eventually(lambda: not self.blocked)

    def obstacle(self, pod: PodKey) -> str:
        return self.blocked


class PlayedAnnouncements:
    def __init__(self) -> None:
        self.endpoints: dict[PodKey, Endpoint] = {}

    def announce(self, endpoint: Endpoint) -> None:
        self.endpoints[endpoint.pod] = endpoint

    def withdraw(self, pod: PodKey) -> None:
        self.endpoints.pop(pod, None)


class PlayedResources:
    """Every pod exists, with these annotations; or none does until they `appear`."""

    def __init__(self) -> None:
        self.annotations: dict[str, str] = {}
        self.missing = False
        self._appeared = asyncio.Event()

    def appear(self) -> None:
        self.missing = False
        self._appeared.set()

    async def read(self, kind: type[Any], namespace: str, name: str) -> Any:
        return None

    async def await_pod(self, pod: PodKey, accept: Callable[[Pod], bool]) -> Pod:
        if self.missing:
            await self._appeared.wait()
        return Pod(metadata=Metadata(name=pod.name, namespace=pod.namespace, annotations=self.annotations))


class PlayedBus:
    """There until it is taken away."""

    def __init__(self) -> None:
        self._here, self._gone = asyncio.Event(), asyncio.Event()
        self._here.set()

    async def connected(self) -> None:
        await self._here.wait()

    async def away(self) -> None:
        await self._gone.wait()

    def leave(self) -> None:
        self._here.clear()
        self._gone.set()

    def come_back(self) -> None:
        self._gone.clear()
        self._here.set()


@dataclass
class VerbsNode:
    """The verbs with everything around them played; must be used inside the node's namespace."""

    state_dir: Path
    ipam: PlayedIpam = field(default_factory=PlayedIpam)
    policy: PlayedPolicy = field(default_factory=PlayedPolicy)
    announcements: PlayedAnnouncements = field(default_factory=PlayedAnnouncements)
    resources: PlayedResources = field(default_factory=PlayedResources)
    bus: PlayedBus = field(default_factory=PlayedBus)
    health: Health = field(default_factory=Health)
    allowed: Allowed = field(default_factory=Allowed)
    told: list[tuple[str, str, str]] = field(default_factory=list)
    """Events: what, object, message."""
    pod_events: list[tuple[str, str, str]] = field(default_factory=list)
    """Events of the domain `pod`, likewise."""
    warm_addresses: int = 0
    warm_idle_s: float = math.inf
    outage_add: OutageAdd = "start-closed"
    obstacle: str = ""
    deadline_s: float = 10.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from the start."""
    store: EndpointStore = field(init=False)
    pods: Pods = field(init=False)
    routes: RouteTable = field(init=False)
    links: PodLinks = field(init=False)
    warm_pool: WarmPool = field(init=False)
    take_overs: TakeOvers = field(init=False)
    closed_starts: ClosedStarts = field(init=False)

    @property
    def socket(self) -> str:
        return str(self.state_dir / "cni.sock")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        import socket

        def index(name: str) -> int | None:
            return next((number for number, found in socket.if_nameindex() if found == name), None)

        self.ready.set()
        self.store = EndpointStore(self.state_dir)
        self.links = PodLinks()
        netlink = NetlinkSocket(NETLINK_ROUTE)
        self.routes = RouteTable(netlink, index)
        reaper = Reaper(self.links)
        connections = Connections(Health())
        reach = Reach(self.bus)
        self.warm_pool = WarmPool(
            NodeName("node1"),
            self.store,
            self.ipam,
            self.routes,
            self.health,
            count=self.warm_addresses,
            idle_s=self.warm_idle_s,
            forget=connections.forget,
            debts=lambda: None,
            changed=lambda: None,
            name=lambda: secrets.token_hex(4),
        )
        self.take_overs = TakeOvers(
            NodeName("node1"), self.store, self.ipam, self.health, lambda: None, lambda *event: self.told.append(event)
        )
        self.closed_starts = ClosedStarts(
            self.store,
            self.resources,
            self.policy,
            self.announcements,
            self.health,
            lambda: None,
            lambda *event: self.told.append(event),
        )
        addressing = Addressing(
            NodeName("node1"),
            store=self.store,
            bus=self.ipam,
            reach=reach,
            resources=self.resources,
            warm=self.warm_pool,
            allowed=lambda: self.allowed,
            mtu=lambda: 1450,
            outage_add=self.outage_add,
        )
        self.pods = Pods(
            store=self.store,
            links=self.links,
            reaper=reaper,
            routes=self.routes,
            connections=connections,
            policy=self.policy,
            announcements=self.announcements,
            addressing=addressing,
            reach=reach,
            closed=self.closed_starts,
            debts=lambda: None,
            take_overs=self.take_overs.mark,
            ready=self.ready.wait,
            obstacle=lambda: self.obstacle,
            tell=lambda what, pod, message, detail: self.pod_events.append((what, str(pod), message)),
            deadline_s=self.deadline_s,
            outage_add=self.outage_add,
        )
        self.warm_pool.adopt()
        self.closed_starts.adopt()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(task)
                    for task in (
                        reaper.run(),
                        reach.run(),
                        self.warm_pool.run(),
                        self.take_overs.run(addressing.handles),
                        self.closed_starts.run(),
                    )
                ]
                async with cni_server.serve(self.socket, self.pods.handle):
                    yield
                for task in running:
                    task.cancel()
        finally:
            netlink.close()
            connections.close()
            self.links.close()

    async def call(
        self,
        command: str,
        container: str = "c1",
        namespace: Namespace | None = None,
        *,
        pod: PodKey | None = None,
        interface: str = "eth0",
        **conf: Any,
    ) -> tuple[int, dict[str, Any]]:
        """One call at the agent's side of the socket."""
        env = cni_env(command, container, namespace.path if namespace is not None else "", pod, interface)
        code, text = await self.pods.handle(env, json.dumps({**CONF, **conf}))
        return code, json.loads(text or "{}")


def environment(**settings: str) -> dict[str, str]:
    """For a service's process."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        **{f"TORTIE_{name.upper()}": value for name, value in settings.items()},
    }


def attachments(containers: Iterable[str]) -> list[dict[str, str]]:
    return [{"containerID": container, "ifname": "eth0"} for container in containers]


# --- the real services, as processes


class ServiceProcess:
    """One service as users start it, in the namespace in which it is started."""

    wrapper: tuple[str, ...] = ()
    """A command that starts it with other rights than the test has."""

    def __init__(self, name: str, log: Path, **settings: str) -> None:
        self.name = name
        self._log = log
        self._environment = environment(**settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, **variables: str) -> None:
        """`variables`: further ones of its environment."""
        program = (
            "import sys; from chassis.runner import run; "
            f"from services.{self.name}.service import serve; from services.{self.name}.settings import Settings; "
            f"sys.exit(run({self.name!r}, Settings, serve))"
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.wrapper, sys.executable, "-c", program],
                env=self._environment | variables,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        """As kill -9 does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int | None:
        """As SIGTERM does; the exit code. What fell over, or had to be thrown out, is a failure of any test."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.terminate()
        code = process.wait(timeout=60)
        assert code != 1, f"{self.name} did not end as it should:\n{self.log()[-8000:]}"
        return code

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


class AgentProcess(ServiceProcess):
    """One node's agent with its kernel, and the runtime that plugs pods into it."""

    def __init__(self, node: str, namespace: Namespace, nats_url: str, directory: Path, **settings: str) -> None:
        self.node = node
        self.namespace = namespace
        self.socket = str(directory / f"{node}.sock")
        super().__init__(
            "node_dataplane",
            directory / f"{node}.log",
            node=node,
            nats_url=nats_url,
            state_dir=str(directory / node),
            cni_socket=self.socket,
            health_listen=f"unix:{directory / node}.health",
            **settings,
        )

    def start(self, **variables: str) -> None:
        with self.namespace.inside():
            super().start(**variables)

    def cni(
        self, command: str, container: str, netns: Namespace | None = None, pod: PodKey | None = None, **conf: Any
    ) -> tuple[int, dict[str, Any]]:
        """Through the plugin, as a runtime calls it."""
        env = cni_env(command, container, netns.path if netns is not None else "", pod)
        return run_plugin(env, {**CONF, "socket": self.socket, **conf})
