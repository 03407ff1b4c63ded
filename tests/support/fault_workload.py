"""What goes on in a cluster while something is killed: pods come and go, labels and a policy change."""

from __future__ import annotations

import random

from bus_schemas.ids import PodKey
from chassis.feed import Feed
from tests.support.faults import World
from tortie.lab.scenario import Reference

ROUNDS = 6

EXTRA_POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"namespace": "shop", "name": "extra"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "extra"}}}]}],
    },
}


async def workload(world: World, dice: random.Random) -> None:
    """Pods come and go, change their labels, and a policy comes and goes: whatever happens, in the end all are gone."""
    running: list[PodKey] = []
    for number in range(ROUNDS):
        key = PodKey("shop", f"work-{number}")
        await world.start_pod(key, dice.choice(world.nodes), {"app": dice.choice(("a", "extra", "other"))})
        running.append(key)
        if number % 2 == 0:
            await world.apply(EXTRA_POLICY)
        else:
            await world.delete(Reference("NetworkPolicy", "shop", "extra"))
        await world.label(dice.choice(running), app=dice.choice(("a", "extra", "other")))
        if len(running) > 2:
            await world.stop_pod(running.pop(dice.randrange(len(running))))
    for key in running:
        await world.stop_pod(key)


async def words(feed: Feed, count: int) -> None:
    """Returns when so many messages were heard: a moment that no clock decides."""
    heard = 0
    while heard < count:
        heard += len((await feed.next()).facts)
