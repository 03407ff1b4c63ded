"""Hears of the packets that rules drop, and emits what `denials` makes of them.

    nftables `log group 84` --> socket --> Logged --recognise--> Denials --> events of the domain `policy`

The group has one listener in a network namespace. While that is somebody else (another agent that still ends, a
packet logger) the policies are enforced all the same and nothing is heard: health says so, and it is tried again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import Counter

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName, PodKey, RulesId
from chassis.health import Health
from services.node_dataplane.denials import Denials, Owners, Told, is_news, recognise
from services.node_dataplane.netlink import nflog
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft.attribution import Denial

RETRY_S = 5.0
CAUSE = "denied packets"
RECEIVE_BUFFER = 1 << 20
DATAGRAMS = 1
"""Read at a time: what else the event loop has to do comes between."""

UNTOLD = Counter("tortie_policy_untold", "Denied packets that were seen and not told in an event, for their number")
LOST = Counter("tortie_policy_unseen", "Denied packets of which the kernel could not hand out a copy")
OVERRUNS = Counter("tortie_policy_overruns", "Times that denied packets came faster than they could be read")
STRANGE = Counter("tortie_policy_strange", "Packets in our log group from rules that are not in the policy table")


class OnLink(Protocol):
    """A pod that is plugged in."""

    @property
    def pod(self) -> PodKey: ...

    @property
    def endpoint(self) -> Endpoint: ...


class Plugged(Protocol):
    """The pods of this node."""

    def of_link(self, link: str) -> OnLink | None: ...

    def all(self) -> Iterable[OnLink]: ...


class DenialLog:
    def __init__(
        self,
        node: NodeName,
        *,
        meaning: Callable[[str], Denial | None],
        title: Callable[[RulesId], str],
        store: Plugged,
        host_endpoint: Callable[[str], str],
        health: Health,
        tell: Callable[[Told], None],
        most_per_s: int,
    ) -> None:
        """`meaning` of a log prefix, None: not ours; `title` of a policy; `host_endpoint` of a device,
        empty: none. `most_per_s` 0: nothing is listened to."""
        self._node = node
        self._meaning = meaning
        self._owners = owners(store, host_endpoint)
        self._health = health
        self._tell_one = tell
        self._denials = Denials(title, most_per_s)
        self._woken = asyncio.Event()
        self._sequence: int | None = None
        self._untold = 0

    async def run(self) -> None:
        """For ever."""
        while self._denials.most_per_s:
            with NetlinkSocket(NETLINK_NETFILTER, receive_buffer=RECEIVE_BUFFER) as heard:
                complaint = _bind(heard)
                self._health.note(CAUSE, complaint or None)
                if not complaint:
                    self._sequence = None
                    await self._listen(heard)
            await asyncio.sleep(RETRY_S)

    async def _listen(self, heard: NetlinkSocket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(heard.fileno(), self._readable, heard)
        try:
            while True:
                due = self._denials.due()
                if due is None:
                    await self._woken.wait()
                    self._woken.clear()
                    continue
                await asyncio.sleep(max(0.0, due - loop.time()))
                self._tell(self._denials.settle(loop.time()))
        finally:
            loop.remove_reader(heard.fileno())

    def _readable(self, heard: NetlinkSocket) -> None:
        now = asyncio.get_running_loop().time()
        try:
            for type_, body in heard.notifications(DATAGRAMS):
                logged = nflog.read(type_, body)
                if logged is not None:
                    self._see(logged, now)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            OVERRUNS.inc()
        self._woken.set()

    def _see(self, logged: nflog.Logged, now: float) -> None:
        if self._sequence is not None:
            LOST.inc((logged.sequence - self._sequence - 1) & 0xFFFFFFFF)
        self._sequence = logged.sequence
        denial = self._meaning(logged.prefix)
        if denial is None:
            STRANGE.inc()
            return
        if not is_news(denial):
            return
        sighting = recognise(logged, denial, _device(logged.indev), _device(logged.outdev), self._owners, self._node)
        self._tell(self._denials.see(sighting, now))

    def _tell(self, told: list[Told]) -> None:
        UNTOLD.inc(self._denials.untold - self._untold)
        self._untold = self._denials.untold
        for one in told:
            self._tell_one(one)


def owners(store: Plugged, host_endpoint: Callable[[str], str]) -> Owners:
    """The pods that are plugged in, and the host endpoints."""

    def of_link(link: str) -> str:
        plugin = store.of_link(link)
        return str(plugin.pod) if plugin is not None else ""

    def of_address(address: str) -> str:
        found = (str(plugin.pod) for plugin in store.all() if address in plugin.endpoint.addresses)
        return next(found, "")

    def of_device(device: str) -> str:
        name = host_endpoint(device) if device else ""
        return f"HostEndpoint/{name}" if name else ""

    return Owners(of_link, of_address, of_device)


def _bind(heard: NetlinkSocket) -> str:
    """Why the group is not ours to listen to; empty: it is."""
    number = next(filter(None, heard.transact(nflog.bind())), 0)
    if number in (errno.EPERM, errno.EBUSY):
        return f"they are not told: another process listens to the log group {nflog.GROUP}"
    return f"they are not told: the kernel refuses the log group {nflog.GROUP}: {os.strerror(number)}" if number else ""


def _device(index: int) -> str:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:
        return ""  # It is gone; the address still tells who it was.
