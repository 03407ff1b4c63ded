"""Looks at the kernel for what somebody else broke, and puts it right: routes, tunnels, pod links, forwarding, policy.

What the monitor heard by name (a route, a neighbour, a forwarding entry, a tunnel, a pod's link) is mended a moment
later, by itself. A look at everything is taken every interval, and soon after the monitor heard something; `turns` says
what is read back then. Only what is ours is touched.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from bus_schemas.ids import PodKey
from chassis.health import Health
from services.node_dataplane import sysctl
from services.node_dataplane.endpoint_store import EndpointStore
from services.node_dataplane.enforcement import Enforcement
from services.node_dataplane.fabric import Fabric, Report
from services.node_dataplane.links import PodLinks
from services.node_dataplane.monitor import Heard, Monitor
from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.repairs import Repair
from services.node_dataplane.turns import Part, Turns

SETTLE_S = 0.1
"""After a notification: a flush comes as many of them, and whoever flushes does not stop while something comes back."""
VANISHED = "links gone"
CONTESTED = "fought for"


class SelfCheck:
    def __init__(
        self,
        *,
        fabric: Fabric,
        links: PodLinks,
        store: EndpointStore,
        enforcement: Enforcement,
        surroundings: Callable[[], None],
        health: Health,
        report: Report,
        interval_s: float,
    ) -> None:
        """`surroundings` reads the node's devices again; `report(what, object, message)` emits an event."""
        self._fabric = fabric
        self._links = links
        self._store = store
        self._enforcement = enforcement
        self._surroundings = surroundings
        self._health = health
        self._report = report
        self._interval_s = interval_s
        self._heard = asyncio.Event()
        self._suspected = False
        """Heard of, and not looked at yet: the part still rests."""
        self.turns = Turns()
        self._vanished: set[str] = set()
        self._news = Heard()
        """What is to be mended."""
        self._mending: asyncio.TimerHandle | None = None

    async def run(self, monitor: Monitor) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            monitor.drain(self._news)
            if self._news.concerns:
                self._news.concerns = False
                self._heard.set()
            if self._news.names_something and self._mending is None:
                self._mending = loop.call_later(SETTLE_S, self._mend)

        loop.add_reader(monitor.fileno(), readable)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._interval_s):
                        await self._heard.wait()
                    await asyncio.sleep(SETTLE_S)
                except TimeoutError:
                    pass
                self._suspected = self._suspected or self._heard.is_set()
                self._heard.clear()
                await self.look()
        finally:
            loop.remove_reader(monitor.fileno())
            if self._mending is not None:
                self._mending.cancel()

    def _mend(self) -> None:
        """What was heard of by name. That, and not more, so that it costs nothing worth a rest."""
        news, self._news, self._mending = self._news, Heard(), None
        try:
            if news.fallen or news.entries:
                self._pods(news)
            self._fabric.mend(news, self._report)
        except OSError:
            self._heard.set()  # The look that follows tries it anew, and says so where it cannot.
        self._health.note(CONTESTED, "; ".join(self._fabric.repairs.contested) or None)

    def _pods(self, news: Heard) -> None:
        """Pods' links that are down, and neighbours on them that are gone."""
        entries: dict[str, set[bytes]] = {}
        for device, key in news.entries:
            with suppress(OSError):  # It is gone meanwhile.
                entries.setdefault(socket.if_indextoname(device), set()).add(key)
        made = []
        for plugin in self._store.all():
            name = plugin.endpoint.link
            link = self._links.find(name) if plugin.mac and (name in news.fallen or name in entries) else None
            if link is None:
                continue
            if not link.up and not self._fabric.repairs.rests(name):
                self._raise_up(name, link.device)
                made.append(Repair(name, name, _up(name, plugin.pod), "ip monitor link"))
            for address in self._links.acquaint(link, plugin, entries.get(name, set())):
                message = f"The neighbour {address} of {plugin.pod} had been deleted; it was put right."
                made.append(Repair((name, address), name, message, "ip monitor neigh"))
        self._fabric.repairs.tell(made, self._report)

    def _raise_up(self, name: str, device: int) -> None:
        self._links.raise_up(device)
        self._fabric.routes.device_changed(name)
        self._fabric.routes.flush()

    async def look(self) -> None:
        """Everything whose turn it is; whether the policy table exists is always asked: it costs nothing."""
        now = asyncio.get_running_loop().time()
        if self.turns.due("kernel", now, heard=self._suspected):
            self._suspected = False
            with self._timed("kernel"):
                self._kernel()
        if self.turns.due("policy", now):
            with self._timed("policy"):
                await self._policy(deep=True)
        else:
            await self._policy(deep=False)

    @contextmanager
    def _timed(self, part: Part) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        yield
        self.turns.took(part, begun, loop.time())

    def _kernel(self) -> None:
        try:
            self._surroundings()
            self._forwarding()
            self._pod_links()
            self._fabric.check(self._report)
            self._health.note(CONTESTED, "; ".join(self._fabric.repairs.contested) or None)
        except OSError as error:
            self._health.note("self-check", f"the kernel cannot be read: {error}")
        else:
            self._health.note("self-check", None)

    def _forwarding(self) -> None:
        wanted = {"ipv4/ip_forward": "IPv4"}
        if any(":" in address for plugin in self._store.all() for address in plugin.endpoint.addresses):
            wanted["ipv6/conf/all/forwarding"] = "IPv6"
        for path, name in wanted.items():
            if sysctl.read(path) != "1":
                sysctl.write([(path, "1")])
                self._report(
                    "repaired",
                    f"net.{path.replace('/', '.')}",
                    f"{name} forwarding had been switched off; it is on again.",
                )

    def _pod_links(self) -> None:
        """A link that is down is set up again; one that is gone took its far end with it and cannot be made again
        without the runtime, so it is only named, until the runtime says DEL or GC."""
        for name in self._links.regroup(self._enforcement.table.link_groups.right):
            self._report("repaired", name, f"The link {name} had left its group of devices; it is in it again.")
        present = self._links.present()
        gone: dict[str, str] = {}
        for plugin in self._store.all():
            name = plugin.endpoint.link
            found = present.get(name)
            if not plugin.mac:
                continue  # Its ADD is still under way.
            if found is None:
                gone[name] = str(plugin.pod)
            elif not found.up and not self._fabric.repairs.rests(name):
                self._raise_up(name, found.device)
                self._fabric.repairs.tell([Repair(name, name, _up(name, plugin.pod), "ip monitor link")], self._report)
        for name in sorted(gone.keys() - self._vanished):
            self._report("link_gone", gone[name], f"The link {name} of {gone[name]} is gone from the node.")
        self._vanished = set(gone)
        self._health.note(VANISHED, ", ".join(f"{pod} ({link})" for link, pod in sorted(gone.items())) or None)

    async def _policy(self, *, deep: bool) -> None:
        try:
            await self._enforcement.check(deep=deep)
        except NftError as error:
            self._health.note("policy self-check", str(error))
        else:
            self._health.note("policy self-check", None)


def _up(link: str, pod: PodKey) -> str:
    return f"The link {link} of {pod} was down; it is up again."
