"""What the kernel remembers of connections, and has to forget when an address changes hands.

Established flows are accepted without a look at policy. An address that comes to a pod here, or goes from it, must not
bring the flows of its former owner along: they would pass whatever the new owner's policy says.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from ipaddress import ip_address

from chassis.health import Health
from services.node_dataplane.netlink import conntrack
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket

CAUSE = "connections of addresses that changed hands"


class Connections:
    """The driver, in the network namespace of the thread that makes it."""

    def __init__(self, health: Health) -> None:
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        self._health = health
        self._pending: set[str] = set()
        self._turn = asyncio.Lock()
        self._at_work = threading.Lock()
        """A caller may be cancelled, its thread is not."""

    def close(self) -> None:
        self._socket.close()

    async def forget(self, addresses: Iterable[str]) -> None:
        """Returns when nothing is remembered of the addresses; concurrent callers share a turn. Where the kernel cannot
        do it that is a note: a node on which no pod starts would be worse than flows that end by themselves."""
        self._pending.update(addresses)
        async with self._turn:
            batch, self._pending = self._pending, set()
            if not batch:
                return  # Another caller's turn was ours, too.
            try:
                complaint = await asyncio.to_thread(self._forget, batch)
            except OSError as error:
                complaint = str(error)
        self._health.note(CAUSE, f"the kernel does not forget them: {complaint}" if complaint else None)

    def _forget(self, addresses: Iterable[str]) -> str:
        """Why not, or empty. A pass over a large table takes milliseconds."""
        requests = [request for address in addresses for request in conntrack.forget(ip_address(address).packed)]
        with self._at_work:
            number = next(filter(None, self._socket.transact(requests)), 0)
            return f"{os.strerror(number)} {self._socket.complaint}".strip() if number else ""
