"""What a person is told in a running cluster: each thing is done, and the event of it read as a user reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import lab_name
from tests.support.listener import Listener, listening, tortie
from tests.support.waiting import DEADLINE_S
from tortie.lab import ownership

pytestmark = [pytest.mark.root, pytest.mark.lab]

CLUSTER = """\
name: two nodes and a pod
nodes: {n1: {address: 10.0.0.15/24}, n2: {address: 10.0.0.16/24}}
resources: |
  apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: pods}
  spec: {cidr: 10.244.0.0/16, natOutgoing: true}
namespaces: {shop: {}}
pods:
  shop/db: {node: n1, labels: {app: db}, listen: [tcp/80]}
  shop/web: {node: n2, labels: {app: web}}
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: ALLOWED}}}]}]
"""


TAIL = ("events", "tail", "-o", "json", "--since", "1h")


class Cluster:
    def __init__(self, name: str, events: Listener) -> None:
        self.name = name
        self.api = {"TORTIE_API": ownership.api_address(name), "TORTIE_LAB": name}
        self._events = events

    async def do(self, *arguments: str) -> str:
        async with listening(tortie(*arguments), self.api) as program:
            said, complaints = await program.process.communicate()
            assert program.process.returncode in (0, 1), complaints.decode()
            return said.decode()

    async def event(self, name: str, object_: str, **detail: str) -> dict[str, Any]:
        """The next one of the name and object, whatever comes before."""
        async with asyncio.timeout(DEADLINE_S * 4):
            while True:
                event: dict[str, Any] = json.loads(await self._events.line())
                said = (f"{event['domain']}.{event['what']}", event["object"])
                if said == (name, object_) and detail.items() <= event["detail"].items():
                    return event

    async def events(self, awaited: set[tuple[str, str]]) -> None:
        """All of these, names and objects, in whatever order: they are of different services."""
        async with asyncio.timeout(DEADLINE_S * 4):
            while awaited:
                event: dict[str, Any] = json.loads(await self._events.line())
                awaited.discard((f"{event['domain']}.{event['what']}", event["object"]))


@asynccontextmanager
async def cluster_of(tmp_path: Path) -> AsyncIterator[Cluster]:
    name = lab_name()
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER)
    async with listening(tortie("lab", "up", name, "-f", str(file))) as up:
        _, complaints = await up.process.communicate()
        assert up.process.returncode == 0, complaints.decode()
    try:
        async with listening(tortie(*TAIL), {"TORTIE_API": ownership.api_address(name)}) as events:
            yield Cluster(name, events)
    finally:
        async with listening(tortie("lab", "down", name)) as down:
            await down.process.communicate()


async def test_each_thing_is_an_event_that_a_person_can_act_on(tmp_path: Path) -> None:
    async with cluster_of(tmp_path) as cluster:
        events = [json.loads(line) for line in (await cluster.do(*TAIL, "--no-follow")).splitlines()]
        pods = {event["object"]: event for event in events if event["domain"] == "pod"}
        assert {(name, one["what"]) for name, one in pods.items()} == {("shop/db", "started"), ("shop/web", "started")}
        address = pods["shop/db"]["detail"]["addresses"]
        given = {event["object"]: event["detail"] for event in events if event["what"] == "assigned"}
        assert given["shop/db"]["addresses"] == address
        routes = [event["detail"] for event in events if event["domain"] == "route"]
        assert {(route["change"], route["node"]) for route in routes} == {("added", "n1"), ("added", "n2")}

        told = await cluster.do("lab", "start", "shop/new", "--node", "n1", "--label", "app=new")
        assert "runs on n1" in told
        new = await cluster.event("pod.started", "shop/new")
        assert (new["node"], new["severity"]) == ("n1", "info")

        policy = tmp_path / "policy.yaml"
        policy.write_text(POLICY.replace("ALLOWED", "web"))
        await cluster.do("apply", "-f", str(policy))
        compiled = await cluster.event("policy.compiled", "NetworkPolicy/shop/db", change="added")
        assert (compiled["detail"]["endpoints"], compiled["detail"]["nodes"]) == ("1", "n1")
        in_force = await cluster.event("policy.in_force", "NetworkPolicy/shop/db", change="governs")
        assert (in_force["node"], in_force["detail"]["pods"]) == ("n1", "shop/db")
        policy.write_text(POLICY.replace("ALLOWED", "nobody"))
        await cluster.do("apply", "-f", str(policy))
        await cluster.event("policy.in_force", "NetworkPolicy/shop/db", change="changed")

        await cluster.do("lab", "probe", "shop/web", "shop/db", "tcp/80")
        denied = await cluster.event("policy.denied", "shop/db", peer_pod="shop/web")
        assert (denied["severity"], "tortie policy explain" in denied["advice"]) == ("warning", True)

        await cluster.do("lab", "stop", "shop/new")
        await cluster.events({("pod.stopped", "shop/new"), ("ipam.released", "shop/new")})

        await cluster.do("lab", "exec", "n1", "--", "ip", "route", "del", f"{address}/32", "proto", "84")
        repaired = await cluster.event("node.repaired", f"{address}/32")
        assert "second network plugin" in repaired["advice"]

        await cluster.do("lab", "kill", "agent-n2")
        lost = await cluster.event("node.lost", "n2")
        assert (lost["severity"], "tortie delete node" in lost["advice"]) == ("error", True)
        await cluster.do("lab", "revive", "agent-n2")
        assert "silent_s" in (await cluster.event("node.found", "n2"))["detail"]
