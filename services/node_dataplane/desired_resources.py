"""Single resources, read when a pod needs them: the agent follows no kind that grows with the cluster's pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from bus_schemas.ids import PodKey
from bus_schemas.resources import Pod, Resource
from bus_schemas.subjects import DESIRED
from chassis.bus import Bus
from chassis.feed import Interest

R = TypeVar("R", bound=Resource)


class DesiredResources:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Raises BusError."""
        value: R | None = (await self._bus.get(DESIRED[kind], (namespace, name))).value
        return value

    async def await_pod(self, pod: PodKey, accept: Callable[[Pod], bool]) -> Pod:
        """The Pod, as soon as there is one that is accepted; a runtime may be faster than the mirror of its cluster.

        Raises BusError."""
        found = await self.read(Pod, *pod)
        if found is not None and accept(found):
            return found
        async with self._bus.follow(Interest(DESIRED[Pod], (pod.namespace, pod.name))) as feed:
            while True:
                for fact in (await feed.next()).facts:
                    if fact.value is not None and accept(fact.value):
                        value: Pod = fact.value
                        return value
