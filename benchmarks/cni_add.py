"""CNI ADD and DEL, against Debian's `ptp` + `host-local`, in the same run and in turn.

    python -m benchmarks.cni_add [--pods 48] [--store DIRECTORY]

    agent     from the request on the agent's socket to its answer: address, link, endpoint, policy in the kernel
    whole     the plugin's process included, as a container runtime sees it
    warm      the same by an agent that keeps addresses assigned ahead (as many as start at once here); the others of an
              agent that keeps none
    ptp       the same through /usr/lib/cni/ptp with host-local and, for the comparison to be fair, ipMasq

Two series: one at a time, and 16 at once. ADD includes a policy that is really compiled and really in the kernel; the
peers have no policy at all. Then an outage: the bus is stopped, pods are started, the bus is started, and how long it
takes from then until all of them have their policy. Then the parts of an ADD, each by itself on the real services or
the real driver, one at a time. `--store` says where the bus and the agent keep their files: the disk matters. Needs
root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from benchmarks import cni_parts
from benchmarks.figures import p50, show, spread
from bus_schemas.resources import IPPool, KubernetesNetworkPolicy, Namespace, Node
from bus_schemas.resources.core import NodeBgp, NodeSpec, Pod
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import DESIRED
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support import netns
from tests.support.agent import CONF, AgentProcess, ServiceProcess, cni_env
from tests.support.netns import namespaces
from tortie.cni import install

CNI = Path("/usr/lib/cni")
HUB = "10.0.0.254"
AT_ONCE = 16

Call = Callable[[str, str, netns.Namespace], None]


class Failed(Exception):
    pass


def through_socket(path: str) -> Call:
    def call(command: str, container: str, pod: netns.Namespace) -> None:
        env = cni_env(command, container, pod.path) | _pod(container)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(json.dumps({"env": env, "stdin": json.dumps(CONF)}).encode())
            connection.shutdown(socket.SHUT_WR)
            data = b""
            while part := connection.recv(65536):
                data += part
        answer = json.loads(data)
        if answer["exit"]:
            raise Failed(answer["stdout"])

    return call


def through_process(executable: Path, conf: dict[str, Any], home: netns.Namespace) -> Call:
    text = json.dumps(conf).encode()

    def call(command: str, container: str, pod: netns.Namespace) -> None:
        env = cni_env(command, container, pod.path) | _pod(container) | {"CNI_PATH": str(CNI)}
        with home.inside():
            done = subprocess.run([executable], input=text, env=env | {"PATH": os.environ["PATH"]}, capture_output=True)
        if done.returncode:
            raise Failed(done.stdout.decode() + done.stderr.decode())

    return call


def _pod(container: str) -> dict[str, str]:
    return {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={container.rpartition('-')[2]}"}


Times = dict[tuple[str, str], list[float]]
"""(what, verb) -> milliseconds."""


def measure(calls: dict[str, Call], pods: tuple[netns.Namespace, ...], width: int) -> Times:
    """ADD and DEL of every pod by each of the calls in turn, `width` at once."""
    times: Times = {}
    lock = threading.Lock()

    def one(name: str, verb: str, number: int) -> None:
        container = f"{''.join(filter(str.isalnum, name))}{width}-p{number}"
        begun = time.perf_counter()
        calls[name](verb, container, pods[number])
        with lock:
            times.setdefault((name, verb), []).append((time.perf_counter() - begun) * 1000)

    with ThreadPoolExecutor(width) as pool:
        for start in range(0, len(pods), width):
            numbers = range(start, min(start + width, len(pods)))
            for name in calls:
                for verb in ("ADD", "DEL"):
                    list(pool.map(one, [name] * width, [verb] * width, numbers))
    return times


async def run(count: int, store: Path | None) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=store)))
        hub, node, warm_node, peer = stack.enter_context(namespaces(4))
        pods = stack.enter_context(namespaces(count))
        hub.ip("link", "add", "br0", "type", "bridge")
        hub.ip("address", "add", f"{HUB}/24", "dev", "br0")
        hub.ip("link", "set", "br0", "up")
        for number, space in enumerate((node, warm_node), 1):
            netns.veth(space, "up0", hub, f"node{number}", addresses=(f"10.0.0.{number}/24", ""))
            hub.ip("link", "set", f"node{number}", "master", "br0")
        stack.enter_context(hub.inside())
        async with AsyncExitStack() as services:
            nats = await services.enter_async_context(EmbeddedNats(directory / "nats", host=HUB))
            settings = ServiceSettings(nats_url=nats.url, health_listen="")
            bus = await services.enter_async_context(Bus.connect(settings, name="bench", health=Health()))
            await bus.connected()
            for name in ("ipam", "route_distribution", "policy_compiler"):
                service = ServiceProcess(name, directory / f"{name}.log", nats_url=nats.url, health_listen="")
                service.start()
                services.callback(service.stop)
            await desire(bus, count)
            agent = AgentProcess("node1", node, nats.url, directory, warm_addresses="0")
            warm = AgentProcess("node2", warm_node, nats.url, directory, warm_addresses=str(AT_ONCE))
            for each in (agent, warm):
                each.start()
                services.callback(each.stop)
                await asyncio.to_thread(netns.wait_for, Path(each.socket).exists, "the agent listens", 20.0)
            await stocked(directory)
            plugin = install.install_plugin(directory / "bin")
            calls: dict[str, Call] = {
                "agent": through_socket(agent.socket),
                "agent, warm": through_socket(warm.socket),
                "whole": through_process(plugin, {**CONF, "socket": agent.socket}, node),
                "whole, warm": through_process(plugin, {**CONF, "socket": warm.socket}, warm_node),
            }
            if (CNI / "ptp").exists():
                for masquerade in (False, True):
                    conf = ptp(directory, masquerade)
                    calls["ptp + host-local" + (", ipMasq" if masquerade else "")] = through_process(
                        CNI / "ptp", conf, peer
                    )
            both = {name: calls[name] for name in ("agent", "agent, warm")}
            await asyncio.to_thread(measure, both, pods[:AT_ONCE], AT_ONCE)
            series = {width: await asyncio.to_thread(measure, calls, pods, width) for width in (1, AT_ONCE)}
            outage = await in_an_outage(calls["agent, warm"], nats, directory, pods[:AT_ONCE])
            await bus.connected()
            parts = await cni_parts.measure(bus, directory, pods[0], plugin)
            for width, times in series.items():
                rows = []
                reference = p50(times.get(("ptp + host-local", "ADD"), times["whole", "ADD"]))
                for (name, verb), values in sorted(times.items(), key=lambda item: item[0][1]):
                    ratio = f"{p50(values) / reference:.2f}x" if verb == "ADD" else ""
                    rows.append({"what": name, "verb": verb, **spread(values, 1), "of ptp's ADD": ratio})
                show("CNI, one at a time" if width == 1 else f"CNI, {width} at once", rows)
            show("An outage, one at a time", [{"what": what, **spread(values, 1)} for what, values in outage.items()])
            show("Parts of one ADD", [{"part": part, **spread(values)} for part, values in parts.items()])


def kept(directory: Path) -> dict[str, Any]:
    """What the warm agent has written down."""
    path = directory / "node2" / "endpoints.json"
    return json.loads(path.read_text()) if path.exists() else {}


async def stocked(directory: Path) -> None:
    def full() -> bool:
        return sum(bool(each.get("addresses")) for each in kept(directory).get("warm", ())) == AT_ONCE

    await asyncio.to_thread(netns.wait_for, full, "the warm addresses are there", 30.0)


async def in_an_outage(
    call: Call, nats: EmbeddedNats, directory: Path, pods: tuple[netns.Namespace, ...]
) -> dict[str, list[float]]:
    """Milliseconds: of each ADD without a bus, and from its return until every pod has its policy."""
    await stocked(directory)
    await nats.stop()
    taken: dict[str, list[float]] = {}
    for number, pod in enumerate(pods):
        begun = time.perf_counter()
        await asyncio.to_thread(call, "ADD", f"outage-p{number}", pod)
        taken.setdefault("ADD without a bus", []).append((time.perf_counter() - begun) * 1000)
    await nats.start()
    begun = time.perf_counter()

    def closed() -> bool:
        return "pods that started closed" in ready(directory / "node2.health")

    await asyncio.to_thread(netns.wait_for, lambda: not closed(), "every pod has its policy", 60.0)
    taken[f"bus back -> {len(pods)} pods have their policy"] = [(time.perf_counter() - begun) * 1000]
    for number, pod in enumerate(pods):
        await asyncio.to_thread(call, "DEL", f"outage-p{number}", pod)
    return taken


def ready(path: Path) -> str:
    """/readyz."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        data = b""
        while part := connection.recv(65536):
            data += part
    return data.decode()


def ptp(directory: Path, masquerade: bool) -> dict[str, Any]:
    subnet = "10.250.1.0/24" if masquerade else "10.250.0.0/24"
    ipam = {"type": "host-local", "subnet": subnet, "dataDir": str(directory / "host-local")}
    return {"cniVersion": "1.0.0", "name": f"ptp{masquerade:d}", "type": "ptp", "ipMasq": masquerade, "ipam": ipam}


async def desire(bus: Bus, count: int) -> None:
    resources = [
        Namespace(metadata=Metadata(name="bench")),
        Node(metadata=Metadata(name="node1"), spec=NodeSpec(bgp=NodeBgp(ipv4_address="10.0.0.1/24"))),
        Node(metadata=Metadata(name="node2"), spec=NodeSpec(bgp=NodeBgp(ipv4_address="10.0.0.2/24"))),
        Node(metadata=Metadata(name=cni_parts.ELSEWHERE), spec=NodeSpec(bgp=NodeBgp(ipv4_address="10.0.0.9/24"))),
        IPPool(metadata=Metadata(name="default"), spec=IPPoolSpec(cidr="10.244.0.0/16", nat_outgoing=True)),
        KubernetesNetworkPolicy(metadata=Metadata(name="deny", namespace="bench")),
        *(Pod(metadata=Metadata(name=f"p{number}", namespace="bench")) for number in range(count)),
    ]
    for resource in resources:
        await bus.put(DESIRED[type(resource)], resource.key, resource)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=48)
    parser.add_argument("--store", type=Path)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("cni_add: network namespaces need root", file=sys.stderr)
        return 2
    asyncio.run(run(arguments.pods, arguments.store))
    return 0


if __name__ == "__main__":
    sys.exit(main())
