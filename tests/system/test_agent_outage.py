"""An outage of the bus: pods start nevertheless, closed, and are opened when it is back; nobody else loses a packet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.resources import Pod
from bus_schemas.resources.metadata import Metadata
from bus_schemas.subjects import ENDPOINT, HANDLE, HOLDING
from tests.support.netns import namespaces, ping
from tests.support.two_nodes import Cluster, Spaces, cluster_of, two_nodes, until
from tests.support.waiting import within

pytestmark = pytest.mark.root

LATE = PodKey("default", "late")


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with two_nodes() as made:
        yield made


@pytest.fixture
async def cluster(spaces: Spaces, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of(tmp_path, *spaces) as made:
        await made.pool()
        await until(lambda: warm(made) == 4, "the node has its warm addresses")
        yield made


def store(cluster: Cluster) -> dict[str, Any]:
    path = cluster.directory / "node1" / "endpoints.json"
    return json.loads(path.read_text()) if path.exists() else {}


def warm(cluster: Cluster) -> int:
    return sum(bool(kept.get("addresses")) for kept in store(cluster).get("warm", ()))


async def test_pods_start_in_an_outage_and_nobody_else_notices(cluster: Cluster) -> None:
    web, client = await cluster.both()
    await until(lambda: warm(cluster) == 4, "what was taken is replaced")
    await cluster.apply(Pod(metadata=Metadata(name=LATE.name, namespace=LATE.namespace)))
    agent = cluster.agents[0]
    lost: list[str] = []

    async def watch(stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await asyncio.to_thread(ping, cluster.pods[1], web):
                lost.append(web)

    stop = asyncio.Event()
    with namespaces(1) as (pod,):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch(stop))
            await cluster.nats.stop()
            code, answer = await asyncio.to_thread(agent.cni, "ADD", LATE.name, pod, LATE)
            assert code == 0, answer
            late = answer["ips"][0]["address"].partition("/")[0]
            status, told = await asyncio.to_thread(agent.cni, "STATUS", "", None, None, cniVersion="1.1.0")
            assert (status, told) == (0, {}), "the node takes pods"
            assert not await asyncio.to_thread(ping, cluster.pods[1], late, wait_s=0.2), "it is closed"
            (noted,) = [row for row in store(cluster)["endpoints"] if row["endpoint"]["name"] == LATE.name]
            assert noted["unread"]
            assert noted["takes_over"]

            await cluster.nats.start()
            await until(lambda: ping(cluster.pods[1], late, wait_s=0.2), "it is opened")
            assert await asyncio.to_thread(ping, pod, client)
            stop.set()
        assert lost == []
        await until(lambda: not any(row.get("takes_over") for row in store(cluster)["endpoints"]), "it was taken over")
    await cluster.bus.connected()
    endpoint = (await cluster.bus.get(ENDPOINT, ("node1", *LATE))).value
    assert endpoint.addresses == (late,)
    assert (await cluster.bus.get(HANDLE, (endpoint.handle,))).value.addresses == (late,)
    await until(lambda: warm(cluster) == 4, "what was taken is replaced")

    async def let_go() -> bool:
        held = (await cluster.bus.get(HOLDING, ("node1",))).value.held
        return len(held) == 4 and not any(late in one.addresses for one in held)

    await within(let_go, "the node lists what it keeps, and no longer what became the pod's")


async def test_a_restart_in_the_middle_forgets_nothing(cluster: Cluster) -> None:
    web, _ = await cluster.both()
    await until(lambda: warm(cluster) == 4, "what was taken is replaced")
    await cluster.apply(Pod(metadata=Metadata(name=LATE.name, namespace=LATE.namespace)))
    agent = cluster.agents[0]
    with namespaces(1) as (pod,):
        await cluster.nats.stop()
        code, answer = await asyncio.to_thread(agent.cni, "ADD", LATE.name, pod, LATE)
        assert code == 0, answer
        late = answer["ips"][0]["address"].partition("/")[0]
        agent.kill()
        agent.start()
        await until(Path(agent.socket).exists, "the agent listens")
        assert not await asyncio.to_thread(ping, cluster.pods[1], late, wait_s=0.2), "it is closed"
        await cluster.nats.start()
        await until(lambda: ping(cluster.pods[1], late, wait_s=0.2), "it is opened")
    assert await asyncio.to_thread(ping, cluster.pods[1], web)
