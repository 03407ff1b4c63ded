"""The bridge with a cluster of many pods: how long until all of them are on the bus, with how much memory, how many
requests; then a steady stream of changes.

    python -m benchmarks.kube_bridge [--pods 50000] [--per-second 1000] [--seconds 10] [--pages]

The API server is the stand-in of the tests, in this process, with pods as a cluster has them (managed fields, probes,
volumes: 5 kB each); the bridge is `tortie serve kube-bridge`, a process of its own, on a nats-server of its own. The
peer is what the library's own models make of the same pods, read in pages, without a bus.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path

import msgspec

from benchmarks.figures import machine
from bus_schemas.resources import Pod
from bus_schemas.subjects import DESIRED, Stream
from chassis import jetstream
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.errors import Unavailable
from chassis.feed import Interest
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.kube_processes import serving
from tests.support.kube_server import KubeServer
from tests.support.kube_store import CREATED, Object

PODS = "/api/v1/pods"
NAMESPACES = 500
NODES = 500
PATIENCE_S = 900.0


def realistic(number: int) -> Object:
    """A pod as a Deployment makes it, with what a network has no use for."""
    app, namespace = f"app-{number % 2000}", f"ns-{number % NAMESPACES}"
    probe = {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1}
    mounts = [{"name": f"v{i}", "mountPath": f"/mnt/{i}", "readOnly": True} for i in range(4)]
    fields = {f"f:field{i}": {".": {}, "f:value": {}, "f:other": {}} for i in range(20)}
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    container = {
        "name": "main",
        "image": "registry.example.com/team/app:1.2.3",
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
        "env": [{"name": f"VARIABLE_{i}", "value": f"value-{i}"} for i in range(12)],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": mounts,
        "livenessProbe": probe,
        "readinessProbe": probe,
    }
    return {
        "metadata": {
            "name": f"{app}-{number:06d}",
            "namespace": namespace,
            "labels": {"app": app, "pod-template-hash": f"{number % 977:x}", "tier": "backend", "release": "stable"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": "u" * 36}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": fields}] * 2,
        },
        "spec": {
            "nodeName": f"node-{number % NODES}",
            "serviceAccountName": "default",
            "containers": [container],
            "volumes": [{"name": f"v{i}", "configMap": {"name": f"config-{i}", "defaultMode": 420}} for i in range(4)],
            "tolerations": [{"key": f"k{i}", "operator": "Exists", "effect": "NoExecute"} for i in range(2)],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": f"C{i}", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"} for i in range(5)
            ],
        },
    }


def fill(server: KubeServer, pods: int) -> float:
    """kB of a pod."""
    store = server.store
    for number in range(NAMESPACES):
        store.create("/api/v1/namespaces", "", {"metadata": {"name": f"ns-{number}"}})
    for number in range(NODES):
        store.create("/api/v1/nodes", "", {"metadata": {"name": f"node-{number}"}})
    objects = store.resource(PODS).objects
    for number in range(pods):
        store.version += 1
        made = {"apiVersion": "v1", "kind": "Pod", **realistic(number)}
        metadata = made["metadata"]
        metadata |= {"uid": f"{number:036d}", "resourceVersion": str(store.version), "creationTimestamp": CREATED}
        objects[metadata["namespace"], metadata["name"]] = made
    store.history.clear()
    store.compact()
    return len(msgspec.json.encode(made)) / 1000


async def stored(bus: Bus) -> int:
    try:
        info = await jetstream.stream_info(await bus.session(), Stream.DESIRED)
    except Unavailable:
        return 0
    return info.state.messages if info is not None else 0


def memory_mb(process: Process) -> tuple[float, float]:
    """Now, and at most."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    now, most = (
        int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) / 1024
        for name in ("VmRSS", "VmHWM")
    )
    return now, most


def cpu_s(process: Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def until_stored(bus: Bus, count: int) -> float:
    began = time.monotonic()
    while await stored(bus) < count:
        assert time.monotonic() - began < PATIENCE_S, f"{await stored(bus)} of {count} after {PATIENCE_S} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def change(server: KubeServer, per_s: int, seconds: float) -> dict[str, float]:
    """Labels of pods change, one after another, evenly; when each was told."""
    told: dict[str, float] = {}
    pods = list(server.store.resource(PODS).objects)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(int(per_s * seconds)):
        due = began + number / per_s
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        namespace, name = pods[number % len(pods)]
        told[f"c{number}"] = time.monotonic()
        labels = {"metadata": {"labels": {"changed": f"c{number}"}}}
        server.store.patch(PODS, namespace, name, labels, "application/merge-patch+json", status=False)
    return told


async def listen(bus: Bus, ready: asyncio.Event, heard: dict[str, float]) -> None:
    async with bus.follow(Interest(DESIRED[Pod])) as feed:
        while True:
            batch = await feed.next()
            now = time.monotonic()
            for fact in batch.facts:
                mark = fact.value.metadata.labels.get("changed") if fact.value is not None else None
                if mark:
                    heard[mark] = now
            if batch.in_sync:
                ready.set()


PEER = """
import asyncio, sys, time
from kubernetes_asyncio import client, config
async def main():
    await config.load_kube_config(config_file=sys.argv[1])
    began, count, token = time.monotonic(), 0, None
    kept = []
    async with client.ApiClient() as api:
        while True:
            page = await client.CoreV1Api(api).list_pod_for_all_namespaces(limit=500, _continue=token)
            kept += page.items
            token = page.metadata._continue
            if not token:
                break
    took = time.monotonic() - began
    most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(len(kept), took, int(most.split()[1]) / 1024)
asyncio.run(main())
"""


async def peer(directory: Path, pods: int) -> None:
    async with KubeServer() as server:
        fill(server, pods)
        config = server.kubeconfig(directory / "peer")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", PEER, str(config), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    count, took, most = map(float, out.split())
    print(f"the library's models: {count:.0f} pods in {took:.2f} s ({took / count * 1e6:.0f} us a pod), {most:.0f} MB")


async def mirror(directory: Path, options: argparse.Namespace, server: KubeServer, size: float) -> None:
    server.bookmark_s = 5.0
    server.streams_lists = not options.pages
    with tempfile.TemporaryDirectory(dir=options.store or directory) as store:
        async with EmbeddedNats(Path(store)) as nats:
            told = ServiceSettings(nats_url=nats.url, instance="bench", health_listen="")
            async with server, Bus.connect(told, name="bench", health=Health()) as bus:
                await bus.connected()
                await measure(directory, options, server, size, bus, nats.url)


async def measure(
    directory: Path, options: argparse.Namespace, server: KubeServer, size: float, bus: Bus, url: str
) -> None:
    settings = {"KUBECONFIG": str(server.kubeconfig(directory / "config")), "LOG_LEVEL": "warning"}
    began = time.monotonic()
    async with serving("kube-bridge", url, "bench", directory / "log", **settings) as process:
        total = options.pods + NAMESPACES + NODES + 2
        await until_stored(bus, total)
        took = time.monotonic() - began
        now, most = memory_mb(process)
        how = "in pages" if options.pages else "streamed"
        print(f"{options.pods} pods of {size:.1f} kB, {how}: all on the bus after {took:.2f} s of process life")
        spent = cpu_s(process)
        print(f"  cpu {spent:.2f} s ({spent / total * 1e6:.0f} us an object), RSS {now:.0f} MB, at most {most:.0f} MB")
        requests = server.requests
        of_pods = sum(number for (_, plural), number in requests.items() if plural == "pods")
        verbs: Counter[str] = Counter()
        for (verb, plural), number in requests.items():
            verbs["discovery" if plural == "discovery" else verb] += number
        print(f"  {sum(requests.values())} requests, {of_pods} of pods: {dict(sorted(verbs.items()))}")
        await steady(server, bus, options, process)


async def steady(server: KubeServer, bus: Bus, options: argparse.Namespace, process: Process) -> None:
    heard: dict[str, float] = {}
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen(bus, ready, heard))
        await ready.wait()
        before, began = cpu_s(process), time.monotonic()
        told = await change(server, options.per_second, options.seconds)
        deadline = time.monotonic() + 60
        while len(heard) < len(told) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        took = time.monotonic() - began
        listening.cancel()
    late = sorted((heard[mark] - at) * 1000 for mark, at in told.items() if mark in heard)
    if not late:
        print("no change was heard of")
        return
    print(
        f"  {len(told)} changes in {took:.1f} s ({len(told) / took:.0f}/s), {len(told) - len(late)} not heard of: "
        f"p50 {statistics.median(late):.1f} ms, p99 {late[int(len(late) * 0.99)]:.1f} ms, "
        f"bridge {(cpu_s(process) - before) / took * 100:.0f} % of a CPU, RSS {memory_mb(process)[0]:.0f} MB"
    )


async def main(options: argparse.Namespace) -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = KubeServer()
        await mirror(directory, options, server, fill(server, options.pods))
        await peer(directory, min(options.pods, options.peer_pods))
    print(f"(this process, with the stand-in: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=50_000)
    parser.add_argument("--peer-pods", type=int, default=2_000)
    parser.add_argument("--per-second", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--store", default="", help="where the bus keeps its files, such as /dev/shm")
    parser.add_argument("--pages", action="store_true", help="a server that does not stream lists")
    asyncio.run(main(parser.parse_args()))
