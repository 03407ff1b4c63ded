"""The parts of one CNI ADD, each by itself: what the whole is made of, and where its time goes.

They use the services and the code that an ADD uses, one call at a time and in turn. Several of them overlap in a real
ADD (the endpoint is published and its policy compiled while the pod is written down and its link made), so the whole is
less than their sum.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from itertools import count
from pathlib import Path

from benchmarks import nft_member
from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, ReleaseRequest
from bus_schemas.subjects import ASSIGN, ATTACHMENT, ENDPOINT, RELEASE
from chassis.bus import Bus
from chassis.feed import Interest
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.links import PodLink, PodLinks
from services.node_dataplane.netlink import conntrack
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.link_groups import first_choice
from tests.support.netns import Namespace, namespaces, veth

ROUNDS = 60
FLOWS = 20_000
"""Connections that a busy node remembers."""
ELSEWHERE = NodeName("elsewhere")
"""A node without an agent: nobody but us looks at its attachments."""


async def measure(bus: Bus, directory: Path, pod: Namespace, plugin: Path) -> dict[str, list[float]]:
    """Milliseconds of every part."""
    taken: dict[str, list[float]] = {}

    async def take(part: str, work: Callable[[], Awaitable[object]]) -> None:
        begun = time.perf_counter()
        await work()
        taken.setdefault(part, []).append((time.perf_counter() - begun) * 1e3)

    numbers = count(1)
    store = EndpointStore(directory / "parts")
    with ExitStack() as stack:
        node = stack.enter_context(namespaces(1))[0]
        stack.enter_context(node.inside())
        driver = stack.enter_context(NftDriver())
        links = PodLinks()
        stack.callback(links.close)
        table = nft_member.build(1, 100)
        nft_member.commit(table, driver)

        async def start_plugin() -> None:
            await asyncio.to_thread(subprocess.run, [plugin], env={"CNI_COMMAND": "VERSION"}, capture_output=True)

        async def save() -> None:
            store.put(Plugin(endpoint=_endpoint(1), handle=HandleId("h"), interface="eth0", netns="", mac="", mtu=1))
            await store.save()

        async with bus.follow(Interest(ATTACHMENT, (ELSEWHERE,))) as feed:

            async def compiled(number: int, *, wanted: bool) -> None:
                key = (ELSEWHERE, "bench", f"p{number % 2}")
                await (bus.put(ENDPOINT, key, _endpoint(number)) if wanted else bus.delete(ENDPOINT, key))
                while True:
                    for fact in (await feed.next()).facts:
                        if (fact.value is not None) is wanted:
                            return

            forget_flows = stack.enter_context(remembering(FLOWS))

            async def forget(work: Callable[[], None]) -> None:
                await asyncio.to_thread(work)

            while not feed.in_sync:
                await feed.next()
            for _ in range(ROUNDS):
                number = next(numbers)
                handle = HandleId(f"part-{number}")
                request = AssignRequest(node=ELSEWHERE, handle=handle, families=(4,))
                name = f"tor{number:011x}"
                link = PodLink(name, "eth0", pod.path, ("10.244.255.1",), 1450, first_choice(name))

                async def assign(request: AssignRequest = request) -> None:
                    reply = await bus.request(ASSIGN, request, timeout_s=5)
                    assert isinstance(reply, Assigned), reply

                async def make(link: PodLink = link) -> None:
                    links.ensure(link)

                async def join(number: int = number) -> None:
                    nft_member.pod(table, number, 0)
                    nft_member.commit(table, driver)

                await take("start of the plugin's process", start_plugin)
                await take("rpc: an address", assign)
                await take("the pod written down, durable", save)
                await take("link, addresses and routes", make)
                await take("endpoint published -> attachment heard", lambda n=number: compiled(n, wanted=True))  # type: ignore[misc]
                await take("policy table: one pod more", join)
                await take(f"old connections forgotten, of {FLOWS}", lambda: forget(forget_flows))
                await compiled(number, wanted=False)
                await bus.request(RELEASE, ReleaseRequest(handle=handle), timeout_s=5)
                await asyncio.to_thread(links.remove, [link.name])
    return taken


@contextmanager
def remembering(flows: int) -> Iterator[Callable[[], None]]:
    """A node that tracks that many connections; what it takes to forget those of an address that has none."""
    with namespaces(2) as (node, peer):
        veth(node, "up0", peer, "up0", addresses=("10.1.0.1/24", "10.1.0.2/24"))
        chain = "chain o { type filter hook output priority 0; ct state new accept; }\n"
        node.run("nft", "-f", "-", text=f"table t {{\n{chain}}}\n")
        with node.inside():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            driver = NetlinkSocket(NETLINK_NETFILTER)
        with sender, driver:
            for port in range(1, flows + 1):
                sender.sendto(b"?", ("10.1.0.2", port))

            def forget() -> None:
                driver.execute(conntrack.forget(ip_address("10.9.9.9").packed), "forget")

            yield forget


def _endpoint(number: int) -> Endpoint:
    return Endpoint(
        node=ELSEWHERE,
        namespace="bench",
        name=f"p{number % 2}",
        container=f"part{number}",
        link=f"tor{number:011x}",
        addresses=("10.244.255.1",),
    )
