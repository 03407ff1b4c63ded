"""The door to a lab that another process owns: a unix socket in its directory, one JSON line each way.

{"do": "probe", "traffic": "a/x -> b/y tcp/80"}      -> {"ok": "answered", "text": "answered after 1.2 ms ..."}
{"do": "seen-from", "from": "a/x", "to": "ip:..."}   -> {"ok": "10.0.0.15"}
{"do": "status"}                                     -> {"ok": {nodes, pods, processes ...}}
{"do": "start", "pod": "a/x", "spec": {"node": ...}} -> {"ok": ["10.0.0.1"]}, the keys of a scenario's pod
{"do": "stop", "pod": "a/x"}                         -> {"ok": ["10.0.0.1"]}
{"do": "kill", "process": "ipam"}                    -> {"ok": 4711}, its process id
{"do": "revive", "process": "ipam", "set": {...}}    -> {"ok": 4712}, with these settings beside its own
{"do": "down"}                                       -> {"ok": "going down"}
anything that cannot be done                         -> {"error": "one sentence"}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tortie.lab import ownership, probes, scenario
from tortie.lab.checks import ask
from tortie.lab.cluster import Cluster
from tortie.lab.errors import CannotDo, LabError, NoSuchLab
from tortie.lab.scenario import Place, Traffic

SEEN_FROM_PORT = 9
"""Where a place that listens nowhere is asked by `seen-from`."""

Request = Mapping[str, Any]


@asynccontextmanager
async def serve(cluster: Cluster, down: asyncio.Event | None = None) -> AsyncIterator[None]:
    """Answers until the body ends. `down` is set when somebody asks for the lab's end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline() or b"{}")
            reply = await _answer(cluster, request, down)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except ConnectionError:
            pass  # the one who asked has gone
        finally:
            writer.close()

    path = ownership.control_socket(cluster.name)
    server = await asyncio.start_unix_server(answer, str(path))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def request(lab: str, **fields: Any) -> Any:
    """Asks the owner of a lab. Raises NoSuchLab, or CannotDo with its answer."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(ownership.control_socket(lab)))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoSuchLab(f"there is no lab {lab!r}: `tortie lab up` starts one") from None
    try:
        writer.write(json.dumps(fields).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise CannotDo(f"the lab {lab!r} ended before it answered")
    reply = json.loads(line)
    if "error" in reply:
        raise CannotDo(reply["error"])
    return reply["ok"]


async def _answer(cluster: Cluster, request: Request, down: asyncio.Event | None) -> Request:
    try:
        match request:
            case {"do": "probe", "traffic": str(text)}:
                return {"ok": _outcome(await ask(cluster, scenario.traffic(text)))}
            case {"do": "seen-from", "from": str(source), "to": str(destination)}:
                way = await _any_service(cluster, scenario.place(source), scenario.place(destination))
                outcome = await ask(cluster, way)
                if isinstance(outcome, probes.Answered):
                    return {"ok": outcome.seen_as}
                return {"error": f"{way}: {outcome}"}
            case {"do": "status"}:
                return {"ok": status(cluster)}
            case {"do": "start", "pod": str(text), "spec": dict(fields)}:
                return {"ok": await _start(cluster, text, fields)}
            case {"do": "stop", "pod": str(text)}:
                key = scenario.pod_key(text)
                addresses = cluster.pod(key).addresses
                await cluster.stop([key])
                return {"ok": addresses}
            case {"do": "kill", "process": str(name)}:
                return {"ok": await cluster.kill_process(name)}
            case {"do": "revive", "process": str(name), "set": dict(settings)}:
                return {"ok": await cluster.revive_process(name, settings)}
            case {"do": "down"} if down is not None:
                down.set()
                return {"ok": "going down"}
            case {"do": "down"}:
                return {"error": "a scenario runs in this lab: it goes down by itself, or with its process"}
        return {"error": f"not understood: {request}"}
    except LabError as error:
        return {"error": str(error)}


async def _start(cluster: Cluster, text: str, fields: dict[str, Any]) -> tuple[str, ...]:
    """The addresses of a new pod. One that cannot start leaves nothing: no kubelet is here that would try again."""
    try:
        spec = msgspec.convert(fields, scenario.PodSpec)
    except msgspec.ValidationError as error:
        raise CannotDo(f"pod {text}: {error}") from error
    for service in (*spec.listen, *spec.ports.values()):
        scenario.port(service)
    key = scenario.pod_key(text)
    if key in cluster.pods:
        raise CannotDo(f"there is a pod {key} already: `tortie lab stop {key}` ends it")
    cluster.netns(Place("node", spec.node))
    try:
        await cluster.start({key: spec})
    except LabError as error:
        if key in cluster.pods:
            try:
                await cluster.stop([key])
            except LabError as another:
                raise CannotDo(f"{error}\n  what is left of it: {another}") from error
        raise
    return cluster.pod(key).addresses


async def _any_service(cluster: Cluster, source: Place, destination: Place) -> Traffic:
    """Traffic that the destination tells about: its first open port, or one opened for the purpose."""
    if destination.kind != "pod":
        return Traffic(source, destination, "udp", SEEN_FROM_PORT)
    listeners = cluster.pod(scenario.pod_key(destination.name)).listeners
    if not listeners.ports:
        await listeners.open("udp", SEEN_FROM_PORT)
    protocol, port = listeners.ports[0]
    return Traffic(source, destination, protocol, port)


def _outcome(outcome: probes.Outcome) -> Request:
    return {"outcome": type(outcome).__name__.lower(), "text": str(outcome)}


def status(cluster: Cluster) -> Request:
    """What is up, for a person."""
    hosts = cluster.topology.nodes
    return {
        "lab": cluster.name,
        "directory": str(cluster.directory),
        "api": ownership.api_address(cluster.name),
        "nodes": [
            {
                "name": name,
                "address": cluster.address(Place("node", name)),
                "netns": host.netns,
                "agent": name in cluster.agents,
            }
            for name, host in hosts.items()
        ],
        "pods": [
            {
                "name": str(pod.key),
                "node": pod.spec.node,
                "addresses": list(pod.addresses),
                "link": pod.link,
                "netns": pod.netns,
                "listens": [f"{protocol}/{port}" for protocol, port in pod.listeners.ports],
                "labels": dict(pod.spec.labels),
            }
            for pod in cluster.pods.values()
        ],
        "processes": [
            {"name": process.name, "pid": process.pid, "log": str(process.log), "fate": process.fate}
            for process in cluster.processes.values()
        ],
    }
