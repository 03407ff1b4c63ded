"""Ends the connections that `cutting` finds: the hand on the kernel's memory of them.

    Enforcement: changes in the kernel --> dump of conntrack (thread) --> judged, a few at a time --> deleted, told

The next packet of a connection that is forgotten is a new one's first, and meets the policy. At most one dump a second;
what changes meanwhile is in the next one.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from ipaddress import ip_address

from prometheus_client import Counter

from bus_schemas.ids import PodKey
from chassis.health import Health
from services.node_dataplane import cutting, host_cutting
from services.node_dataplane.cutting import Changed, Changes, Concerned, Cut, Known
from services.node_dataplane.denials import Told
from services.node_dataplane.host_cutting import Around, ConcernedHost
from services.node_dataplane.netlink import conntrack, readback, rtnl
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkError, NetlinkSocket

PAUSE_S = 1.0
CAUSE = "connections to be cut"
FEW = 4
"""Addresses up to which the kernel is asked for theirs alone."""
AT_ONCE = 200
"""Connections judged before others have their turn."""
BATCH = 500

CUTS = Counter("tortie_policy_connections_cut", "Connections cut because a policy that cuts no longer allows them")


class Kernel:
    """Connections and addresses, in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._conntrack = NetlinkSocket(NETLINK_NETFILTER)
        self._route = NetlinkSocket(NETLINK_ROUTE)

    def close(self) -> None:
        self._conntrack.close()
        self._route.close()

    def connections(self, addresses: Set[bytes] | None) -> tuple[list[Tracked], frozenset[bytes]]:
        """Those that one of the addresses (None: anybody) began or answers, and the node's own addresses. Raises
        OSError."""
        found = self._few(addresses) if addresses is not None and len(addresses) <= FEW else None
        if found is None:
            found = [
                conntrack.read(body)
                for body in self._conntrack.stream(conntrack.dump())
                if addresses is None or not addresses.isdisjoint(conntrack.ends(body))
            ]
        rows = self._route.dump(rtnl.addresses_dump())
        return found, frozenset(readback.address(body).packed for _, body in rows)

    def devices(self, addresses: Iterable[bytes]) -> dict[bytes, str]:
        """By which the addresses are reached, those that are. Raises OSError."""
        names = {(link := readback.link(body)).device: link.name for _, body in self._route.dump(rtnl.links_dump())}
        found = {}
        for address in addresses:
            try:
                answer = self._route.get(rtnl.route_lookup(address))
            except NetlinkError as error:
                if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES):
                    continue  # prohibited, or nowhere: nobody is reached there
                raise
            if answer is not None and (name := names.get(readback.route(answer[1]).device)):
                found[address] = name
        return found

    def _few(self, addresses: Iterable[bytes]) -> list[Tracked] | None:
        """None: this kernel cannot look for addresses itself."""
        found = {}
        try:
            for address in addresses:
                for request in conntrack.dumps_of(address):
                    for body in self._conntrack.stream(request):
                        connection = conntrack.read(body)
                        found[connection.entry] = connection
        except NetlinkError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return None
            raise
        return list(found.values())

    def cut(self, connections: Sequence[Tracked]) -> None:
        """Those that ended meanwhile are fine. Raises OSError."""
        for at in range(0, len(connections), BATCH):
            for number in self._conntrack.transact(list(map(conntrack.cut, connections[at : at + BATCH]))):
                if number not in (0, errno.ENOENT):
                    raise NetlinkError(number, f"a connection cannot be deleted: {os.strerror(number)}")


class ConnectionCutter:
    def __init__(
        self,
        changes: Changes,
        known: Known,
        pods: Callable[[], Mapping[PodKey, Iterable[str]]],
        programmed: Callable[[], Set[PodKey]],
        *,
        health: Health,
        tell: Callable[[Told], None],
    ) -> None:
        """`pods` are plugged in, with their addresses; of `programmed` ones the whole policy is in the kernel."""
        self._changes = changes
        self._known = known
        self._pods = pods
        self._programmed = programmed
        self._health = health
        self._tell = tell
        self._kernel = Kernel()
        self._woken = asyncio.Event()

    def close(self) -> None:
        self._kernel.close()

    def wake(self) -> None:
        """Something is due."""
        self._woken.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            changed = self._changes.take()
            try:
                await self._cut(changed)
            except OSError as error:
                self._changes.give_back(changed)
                self._health.note(CAUSE, str(error))
                self._woken.set()
            else:
                self._health.note(CAUSE, None)
            await asyncio.sleep(PAUSE_S)

    async def _cut(self, changed: Changed) -> None:
        pods = self._enforced(cutting.concerned(changed, self._known.attachments, self._pods()))
        hosts = self._whole(host_cutting.concerned(changed, self._known.hosts, self._known.governed))
        if not pods and not hosts:
            return
        looked_at = None if hosts else pods.keys()
        connections, node = await asyncio.to_thread(self._kernel.connections, looked_at)
        cuts = await self._judge(connections, pods, node)
        if hosts:
            cut = {each.connection.entry for each in cuts}
            cuts += await self._judge_hosts([c for c in connections if c.entry not in cut], hosts, node)
        if not cuts:
            return
        await asyncio.to_thread(self._kernel.cut, [cut.connection for cut in cuts])
        CUTS.inc(len(cuts))
        for told in cutting.describe(cuts, self._known):
            self._tell(told)

    def _enforced(self, pods: Mapping[bytes, Concerned]) -> dict[bytes, Concerned]:
        """Without those of whose policy something is still missing, which would seem to deny everything: their turn
        comes with what is missing."""
        programmed = self._programmed()
        waiting = {entry.pod: set(entry.policies) for entry in pods.values() if entry.pod not in programmed}
        if waiting:
            self._changes.give_back(Changed(pods=waiting))
        return {address: entry for address, entry in pods.items() if entry.pod in programmed}

    def _whole(self, hosts: Mapping[str, ConcernedHost]) -> dict[str, ConcernedHost]:
        """The same of host endpoints."""
        whole = {name: host for name, host in hosts.items() if host_cutting.is_whole(host.attachment, self._known)}
        waiting = {name: set(host.policies) for name, host in hosts.items() if name not in whole}
        if waiting:
            self._changes.give_back(Changed(hosts=waiting))
        return whole

    async def _judge_hosts(
        self, connections: Sequence[Tracked], hosts: Mapping[str, ConcernedHost], node: Set[bytes]
    ) -> list[Cut]:
        pods = frozenset(ip_address(address).packed for own in self._pods().values() for address in own)
        far: Set[bytes] = frozenset()
        if self._known.governed.by_device:
            far = {end for c in connections for end in (c.source, c.destination)} - node - pods
        around = Around(node, pods, await asyncio.to_thread(self._kernel.devices, far) if far else {})
        cuts: list[Cut] = []
        for at in range(0, len(connections), AT_ONCE):
            some = connections[at : at + AT_ONCE]
            cuts += host_cutting.not_allowed(some, hosts, self._known.governed, self._known.node, around, self._known)
            await asyncio.sleep(0)
        return cuts

    async def _judge(
        self, connections: Sequence[Tracked], pods: Mapping[bytes, Concerned], node: Set[bytes]
    ) -> list[Cut]:
        cuts: list[Cut] = []
        for at in range(0, len(connections), AT_ONCE):
            cuts += cutting.not_allowed(connections[at : at + AT_ONCE], pods, self._known, node)
            await asyncio.sleep(0)
        return cuts
