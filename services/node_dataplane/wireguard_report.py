"""This node's public WireGuard keys on the bus, kept as the kernel has them.

Nothing is said before the devices have been looked at once: a restarted agent does not take back, not even for a
moment, what others encrypt by.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping

from bus_schemas.ids import NodeName
from bus_schemas.routes import WireguardEnd, WireguardKeys
from bus_schemas.subjects import WIREGUARD_KEYS
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.pacing import Pacer
from chassis.publication import Publication
from services.node_dataplane.core import Spec
from services.node_dataplane.wireguard import DEVICES, WireguardSpec

RETRY_S = 0.5


class WireguardKeysReport:
    def __init__(self, node: NodeName, bus: Bus) -> None:
        self._node = node
        self.publication = Publication(bus, [Interest(WIREGUARD_KEYS, (node,))], independent=True)
        self._pacer = Pacer(0.0, 0.0, RETRY_S)
        self._said: WireguardKeys | None = None
        self._begun = False

    def say(self, tunnels: Mapping[str, Spec | None], keys: Mapping[int, bytes]) -> None:
        """`keys` by family, of the devices that are ready."""
        ends = {
            family: WireguardEnd(key=b64encode(key).decode(), port=spec.port)
            for family, key in keys.items()
            if isinstance(spec := tunnels.get(DEVICES[family]), WireguardSpec)
        }
        now = WireguardKeys(node=self._node, ipv4=ends.get(4), ipv6=ends.get(6)) if ends else None
        if self._begun and now == self._said:
            return
        self._said = now
        self.publication.want(WIREGUARD_KEYS, (self._node,), now)
        if not self._begun:
            self._begun = True
            self.publication.complete()
        self._pacer.mark()

    async def run(self) -> None:
        """For ever. The publication runs by itself: what others change is mended."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.publication.run())
            tasks.create_task(self._pacer.run(self.publication.flush))
