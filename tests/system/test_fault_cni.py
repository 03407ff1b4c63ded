"""The container runtime at its worst: the same ADD twice, DEL of what never was, and pods that are gone before their
policy is there."""

from __future__ import annotations

import asyncio
import random

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.subjects import ATTACHMENT, GROUP
from tests.support.faults import World
from tests.support.waiting import within
from tortie.lab import fabric
from tortie.lab.errors import PluginFailed
from tortie.lab.pods import Pod
from tortie.lab.scenario import PodSpec, Reference
from tortie.lab.topology import pod_netns

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

ROUNDS = 12
AT_ONCE = 4


def pod_of(world: World, name: str, node: str, labels: dict[str, str]) -> Pod:
    key = PodKey("shop", name)
    return Pod(key, PodSpec(node=node, labels=labels), pod_netns(world.cluster.name, *key))


async def test_the_same_add_twice(world: World) -> None:
    async with world.watched():
        pod = await world.start_pod(PodKey("shop", "twice"), "node1", {"app": "a"})
        first = (pod.addresses, pod.link)
        await world.add(pod)
        assert (pod.addresses, pod.link) == first
        await world.allowed(pod.key)
        await world.books_agree()
        await world.stop_pod(pod.key)
        await world.books_agree()


async def test_the_same_add_several_times_at_once(world: World) -> None:
    pod = pod_of(world, "impatient", "node2", {"app": "a"})
    await world.apply(pod.manifest())
    await fabric.add_namespace(pod.netns)
    twins = [Pod(pod.key, pod.spec, pod.netns, container=pod.container, uid=pod.uid) for _ in range(4)]
    async with world.watched():
        await asyncio.gather(*map(world.add, (pod, *twins)))
        assert {(twin.addresses, twin.link) for twin in twins} == {(pod.addresses, pod.link)}
        world.cluster.pods[pod.key] = pod
        await world.allowed(pod.key)
        await world.books_agree()
        await world.stop_pod(pod.key)
        await world.books_agree()


async def test_del_of_what_never_was(world: World) -> None:
    async with world.watched():
        for node in world.nodes:
            stranger = pod_of(world, "never-was", node, {})
            await world.unplug(stranger)
            await world.unplug(stranger)
        await world.books_agree()


async def test_del_twice_and_of_an_older_incarnation(world: World) -> None:
    """The late DEL of a container that is gone does nothing to the one of the same name that is there."""
    key = PodKey("shop", "again")
    old = await world.start_pod(key, "node1", {"app": "a"})
    await world.stop_pod(key)
    new = await world.start_pod(key, "node1", {"app": "a"})
    async with world.watched():
        await world.unplug(old)
        await world.allowed(key)
        await world.books_agree()
        assert new.container != old.container
        await world.stop_pod(key)
        await world.books_agree()


async def test_a_pod_without_a_resource_gets_nothing(world: World) -> None:
    """Its ADD is given up by the runtime: DEL, and no trace is left."""
    ghost = pod_of(world, "ghost", "node1", {"app": "a"})
    await fabric.add_namespace(ghost.netns)
    async with world.watched(), asyncio.TaskGroup() as tasks:
        adding = tasks.create_task(fails(ghost, world))
        await world.unplug(ghost)
        adding.cancel()
    await fabric.remove_namespaces([ghost.netns])
    await world.books_agree()


async def fails(pod: Pod, world: World) -> None:
    with pytest.raises(PluginFailed):
        await pod.plug_in(world.node_netns(pod.spec.node), world.cni_socket(pod.spec.node))


async def test_pods_deleted_while_their_policy_is_being_compiled(world: World) -> None:
    """Many come and go, faster than their policies; groups, rules and attachments of none of them stay."""
    dice = random.Random("deleted while compiled")
    kept = await world.snapshot(GROUP, ATTACHMENT)

    async def short_life(number: int) -> None:
        name = f"brief-{number}"
        pod = pod_of(world, name, dice.choice(world.nodes), {"app": dice.choice(("a", "web")), "brief": name})
        policy = Reference("NetworkPolicy", "shop", name)
        await world.apply(
            pod.manifest(),
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"namespace": "shop", "name": name},
                "spec": {
                    "podSelector": {"matchLabels": {"brief": name}},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}],
                    "egress": [{"to": [{"podSelector": {"matchLabels": {"brief": name}}}]}],
                },
            },
        )
        await fabric.add_namespace(pod.netns)
        async with asyncio.TaskGroup() as tasks:
            adding = tasks.create_task(whatever_comes(pod, world))
            match dice.randrange(3):
                case 0:  # the resource goes first, in the middle of ADD
                    await world.delete(Reference("Pod", *pod.key))
                    adding.cancel()
                case 1:  # the runtime gives up
                    adding.cancel()
                case 2:
                    await adding
        first, second = dice.sample((policy, Reference("Pod", *pod.key)), 2)
        await world.delete(first)
        await world.unplug(pod)
        await world.delete(second)
        await fabric.remove_namespaces([pod.netns])

    async with world.watched():
        for start in range(0, ROUNDS, AT_ONCE):
            async with asyncio.TaskGroup() as tasks:
                for number in range(start, start + AT_ONCE):
                    tasks.create_task(short_life(number))
        await world.converged(f"{ROUNDS} pods deleted while their policy was compiled")

    async def as_before() -> bool:
        now = await world.snapshot(GROUP, ATTACHMENT)
        assert {family: set(values) for family, values in now.items()} == {f: set(v) for f, v in kept.items()}
        return True

    await within(as_before, "no group and no attachment is left")


async def whatever_comes(pod: Pod, world: World) -> None:
    try:
        await pod.plug_in(world.node_netns(pod.spec.node), world.cni_socket(pod.spec.node))
    except PluginFailed:
        pass  # its resource went
