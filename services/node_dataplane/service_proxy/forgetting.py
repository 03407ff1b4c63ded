"""The shell of `stale`: looks for the connections of frontends that changed, and cuts those that are stale.

Few frontends are asked for by address, of which the kernel makes a short answer; many by a look at everything.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

from chassis.health import Health
from services.node_dataplane.netlink import conntrack
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkError, NetlinkSocket
from services.node_dataplane.service_proxy.core import Frontend, Target
from services.node_dataplane.service_proxy.stale import concerned, stale

CAUSE = "connections of services"
FEW = 64
"""Addresses that are asked for one by one."""
BATCH = 256
RETRY_S = 5.0


class StaleConnections:
    """In the network namespace of the thread that makes it."""

    def __init__(self, health: Health) -> None:
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        self._health = health
        self._due: dict[Frontend, Target | None] = {}
        self._woken = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def changed(self, frontends: Mapping[Frontend, Target | None]) -> None:
        """They are in the kernel."""
        due = concerned(frontends)
        if due:
            self._due.update((frontend, frontends[frontend]) for frontend in due)
            self._woken.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            due, self._due = self._due, {}
            try:
                await asyncio.to_thread(self.forget, due)
            except OSError as error:
                self._health.note(CAUSE, f"the kernel does not forget them: {error}")
                self._due = due | self._due
                await asyncio.sleep(RETRY_S)
                self._woken.set()
            else:
                self._health.note(CAUSE, None)

    def forget(self, due: Mapping[Frontend, Target | None]) -> None:
        """Takes its while; raises OSError."""
        found = list(stale(self._connections({frontend.address for frontend in due}), due))
        for at in range(0, len(found), BATCH):
            self._cut(found[at : at + BATCH])

    def _connections(self, asked: Iterable[bytes]) -> Iterator[Tracked]:
        addresses = list(asked)
        if len(addresses) <= FEW:
            try:
                yield from [t for address in addresses for t in self._read(conntrack.dump_asked(address))]
                return
            except NetlinkError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise  # Before Linux 5.8 nobody can ask so.
        yield from self._read(conntrack.dump())

    def _read(self, request: bytes) -> Iterator[Tracked]:
        return map(conntrack.read, self._socket.stream(request))

    def _cut(self, connections: Sequence[Tracked]) -> None:
        for number in self._socket.transact([conntrack.cut(connection) for connection in connections]):
            if number not in (0, errno.ENOENT):
                raise NetlinkError(number, "a connection cannot be deleted")
