"""The bus restarted, gone for long, or not yet there: pods talk on under the policy that they had, DEL works, and
everything converges once it is back.

TORTIE_FAULTS_LONG=1 makes the long outage a minute.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.subjects import ATTACHMENT, ENDPOINT, HANDLE
from tests.support.fault_workload import words, workload
from tests.support.faults import World
from tortie.lab import fabric
from tortie.lab.cluster import BUS, SERVICES
from tortie.lab.pods import Pod
from tortie.lab.scenario import PodSpec, Reference
from tortie.lab.topology import pod_netns

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

OUTAGE_S = 60.0 if os.environ.get("TORTIE_FAULTS_LONG") else 15.0
AGENTS = ("agent-node1", "agent-node2")


async def test_the_bus_killed_and_restarted_on_its_store(world: World) -> None:
    async with world.watched():
        await world.kill(BUS)
        await world.start(BUS)
        await world.converged("bus restarted")


async def test_the_bus_killed_while_pods_come_and_go(world: World) -> None:
    dice = random.Random("kill the bus")

    async def killer() -> None:
        for _ in range(3):
            async with world.hearing(HANDLE, ENDPOINT, ATTACHMENT) as feed:
                await words(feed, dice.randrange(1, 6))
            await world.kill(BUS)
            await world.start(BUS)

    async with world.watched():
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(killer())
            await workload(world, dice)
            killing.cancel()
        await world.start(*world.dead)
        await world.converged(f"bus restarted {world.kills[BUS]} times while pods come and go")


async def test_the_bus_gone_for_long(world: World) -> None:
    """Meanwhile a pod goes, another comes with an address that its node kept ready, closed until its policy can be had,
    and an agent is restarted."""
    leaving = await world.start_pod(PodKey("shop", "leaving"), "node2", {"app": "a"})
    coming = Pod(PodKey("shop", "coming"), PodSpec(node="node1", labels={"app": "a"}), _netns(world, "coming"))
    await world.apply(coming.manifest())
    await fabric.add_namespace(coming.netns)
    loop = asyncio.get_running_loop()
    async with world.watched() as streams:
        await world.kill(BUS)
        back_at = loop.time() + OUTAGE_S
        await world.unplug(leaving)
        await world.add(coming)
        world.cluster.pods[coming.key] = coming
        await world.kill("agent-node2")
        await world.start("agent-node2")
        while loop.time() < back_at:
            await streams.more()
            for process in (*SERVICES, *AGENTS):
                await world.unready_for_want_of_the_bus(process)
        await world.denied(coming.key)
        await world.start(BUS)
        await world.allowed(coming.key)
        del world.cluster.pods[leaving.key]
        await world.delete(Reference("Pod", *leaving.key))
        await fabric.remove_namespaces([leaving.netns])
        await world.stop_pod(coming.key)
        await world.converged(f"bus gone for {OUTAGE_S:g} s")


async def test_everything_started_before_the_bus(world: World) -> None:
    async with world.watched() as streams:
        await world.kill(BUS, *SERVICES, *AGENTS)
        await streams.more()
        await world.start(*SERVICES, *AGENTS)
        for process in (*SERVICES, *AGENTS):
            await world.unready_for_want_of_the_bus(process)
        await streams.more()
        await world.start(BUS)
        await world.converged("everything started before the bus")


def _netns(world: World, name: str) -> str:
    return pod_netns(world.cluster.name, "shop", name)
