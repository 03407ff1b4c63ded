"""This node's endpoints on the bus: the store's content, kept published."""

from __future__ import annotations

from collections.abc import Callable

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName, PodKey
from bus_schemas.subjects import ENDPOINT
from chassis.pacing import Pacer
from chassis.publication import Publication


class Announcements:
    def __init__(self, node: NodeName, publication: Publication, retry_s: float = 0.5) -> None:
        self._node = node
        self._publication = publication
        self._pacer = Pacer(0.0, 0.0, retry_s)
        self._said: dict[PodKey, Endpoint] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called whenever something else is said."""

    def covers(self, endpoint: Endpoint) -> bool:
        """Whether all of its addresses are announced."""
        said = self._said.get(endpoint.pod)
        return said is not None and (said.addresses, said.floating) == (endpoint.addresses, endpoint.floating)

    def announce(self, endpoint: Endpoint) -> None:
        self._publication.want(ENDPOINT, (self._node, endpoint.namespace, endpoint.name), endpoint)
        self._said[endpoint.pod] = endpoint
        self._pacer.mark()
        self.changed()

    def withdraw(self, pod: PodKey) -> None:
        self._publication.want(ENDPOINT, (self._node, pod.namespace, pod.name), None)
        self._said.pop(pod, None)
        self._pacer.mark()
        self.changed()

    def complete(self) -> None:
        """Everything that was plugged in when the agent started has been announced."""
        self._publication.complete()
        self._pacer.mark()

    async def published(self) -> None:
        """Returns when the bus has everything said so far. Raises BusError."""
        await self._publication.flush()

    async def verify(self) -> None:
        """Looks whether the bus still has all of it; what it lost is said again with the next `published`. Raises
        BusError."""
        await self._publication.verify()

    def refused(self) -> list[PodKey]:
        """What the bus does not take."""
        return sorted(PodKey(namespace, name) for _, namespace, name in self._publication.refused)

    async def run(self) -> None:
        await self._pacer.run(self._publication.flush)
