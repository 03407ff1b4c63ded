"""kill -9 of any service or agent, at any moment: nothing of a healthy pod is lost, nothing opens, no address is given
twice, and changes take effect again within seconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.subjects import ATTACHMENT, ENDPOINT, HANDLE, Family
from tests.support.fault_workload import words, workload
from tests.support.faults import World
from tortie.lab import fabric
from tortie.lab.cluster import SERVICES
from tortie.lab.errors import PluginFailed
from tortie.lab.pods import Pod
from tortie.lab.scenario import PodSpec, Reference
from tortie.lab.topology import pod_netns

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

KILLS = 4
WORDS_BETWEEN_KILLS = 8
"""At most so many messages about pods pass on the bus from one kill to the next; a round of the workload is six."""


async def killer(world: World, process: str, dice: random.Random) -> None:
    """Kills the process after some words on the bus, and starts it again, as a supervisor would."""
    async with world.hearing(HANDLE, ENDPOINT, ATTACHMENT) as feed:
        for _ in range(KILLS):
            await words(feed, dice.randrange(1, WORDS_BETWEEN_KILLS))
            await world.kill(process)
            await world.start(process)


@pytest.mark.parametrize("process", ["api", "ipam", "route-distribution", "policy-compiler"])
async def test_a_service_killed_at_any_moment(world: World, process: str) -> None:
    dice = random.Random(f"kill {process}")
    async with world.watched():
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(killer(world, process, dice))
            await workload(world, dice)
            killing.cancel()
        await world.start(*world.dead)
        assert world.kills[process] >= 2
        await world.converged(f"kill -9 of {process}, {world.kills[process]} times")


async def test_all_services_killed_together(world: World) -> None:
    async with world.watched():
        await world.kill(*SERVICES)
        await world.start(*SERVICES)
        await world.converged("kill -9 of all services")


async def test_an_agent_killed_while_nothing_happens(world: World) -> None:
    """Pods talk on without it, what the rest of the cluster does waits for it, and it takes up where it was."""
    newcomer = await world.start_pod(PodKey("shop", "late"), "node2", {"app": "other"})
    await world.denied(newcomer.key)
    async with world.watched() as streams:
        await world.kill("agent-node1", "agent-node2")
        await world.label(newcomer.key, app="a")
        await streams.more()
        with pytest.raises(PluginFailed, match="CNI ADD"):
            await newcomer.plug_in(world.node_netns("node2"), world.cni_socket("node2"))
        await world.start("agent-node1", "agent-node2")
        await world.allowed(newcomer.key)
        await world.stop_pod(newcomer.key)
        await world.converged("kill -9 of both agents")


@pytest.mark.parametrize("moment", [HANDLE, ENDPOINT, ATTACHMENT], ids=lambda family: f"once-there-is-{family.name}")
@pytest.mark.parametrize("then", ["ADD", "DEL"])
async def test_an_agent_killed_in_the_middle_of_an_add(world: World, moment: Family[Any], then: str) -> None:
    """The runtime repeats ADD: one address, the same where the bus knew it. Or it gives up and says DEL: none. (An
    address that the node kept ready is the pod's in the agent's notes before the bus hears of it.)"""
    key = PodKey("shop", "interrupted")
    pod = Pod(key, PodSpec(node="node2", labels={"app": "other"}), pod_netns(world.cluster.name, *key))
    await world.apply(pod.manifest())
    await fabric.add_namespace(pod.netns)
    async with world.watched():
        async with world.hearing(moment) as feed, asyncio.TaskGroup() as tasks:
            adding = tasks.create_task(answer_of(pod.plug_in(world.node_netns("node2"), world.cni_socket("node2"))))
            await words(feed, 1)
            await world.kill("agent-node2")
            await adding
        given = await addresses_of(world, key)
        assert len(given) <= 1
        await world.start("agent-node2")
        if then == "ADD":
            world.cluster.pods[key] = pod
            await world.add(pod)
            assert given in ([], [pod.addresses])
            await world.books_agree()
            assert await addresses_of(world, key) == [pod.addresses]
            await world.stop_pod(key)
        else:
            await world.unplug(pod)
            await world.delete(Reference("Pod", *key))
            await fabric.remove_namespaces([pod.netns])
        await world.books_agree()
        assert await addresses_of(world, key) == []


async def answer_of(call: Coroutine[Any, Any, None]) -> str:
    """What the plugin complains of; empty when it had its answer before the kill."""
    try:
        await call
    except PluginFailed as failure:
        return str(failure)
    return ""


async def addresses_of(world: World, pod: PodKey) -> list[tuple[str, ...]]:
    """By handle."""
    handles = (await world.snapshot(HANDLE))[HANDLE].values()
    return [handle.addresses for handle in handles if (handle.namespace, handle.pod) == pod]


async def test_an_agent_killed_in_the_middle_of_a_del(world: World) -> None:
    """Whatever of it was done, the repeated DEL does the rest; the address is free, once."""
    key = PodKey("shop", "leaving")
    pod = await world.start_pod(key, "node2", {"app": "other"})
    async with world.watched():
        async with world.hearing(ENDPOINT) as feed, asyncio.TaskGroup() as tasks:
            removing = tasks.create_task(answer_of(pod.unplug(world.node_netns("node2"), world.cni_socket("node2"))))
            await words(feed, 1)
            await world.kill("agent-node2")
            await removing
        await world.start("agent-node2")
        await world.stop_pod(key)
        await world.converged("kill -9 of an agent in the middle of DEL")
