"""What the agent says of its policies' decisions, and what becomes of connections when a policy changes: one real
agent, the compiler played by the test.

client --- [ node1 ] --- web       pods of one node; the bus and the address service are in the hub
             hub
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.events import Event
from bus_schemas.ids import GroupId, NodeName, PodKey, RulesId
from bus_schemas.policy import (
    CUT_ANNOTATION,
    Attachment,
    Direction,
    Group,
    Hit,
    Hits,
    Match,
    PortRange,
    Rule,
    Rules,
    TierRules,
    rules_id,
)
from bus_schemas.resources import FelixConfiguration, IPPool, Namespace, Node, Pod, Resource
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import ATTACHMENT, DESIRED, EVENT, GROUP, HITS, RULES
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings
from chassis.tail import Tail
from tests.support import netns
from tests.support.agent import AgentProcess, ServiceProcess
from tests.support.api import resource
from tests.support.netns import connect, listen, namespaces, tcp
from tests.support.waiting import within

pytestmark = pytest.mark.root

HUB = "10.0.0.254"
WEB, CLIENT = PodKey("default", "web"), PodKey("default", "client")
POLICY = rules_id("networkpolicy", "default", "web")
TITLE = "NetworkPolicy/default/web"
FRIENDS = GroupId("s:friends")
REFUSED_S = 0.1
TCP = 6


def ports(*numbers: int) -> Match:
    return Match(ports=tuple(PortRange(first=n, last=n) for n in numbers))


def allow(*numbers: int, source: Match = Match(), index: int = 0) -> Rule:  # noqa: B008
    return Rule(action="allow", protocol=TCP, source=source, destination=ports(*numbers), index=index)


def tier(*ids: RulesId) -> tuple[TierRules, ...]:
    return (TierRules(tier="default", rules=ids),)


class Seen:
    """The cluster of the drawing, with the client plugged in and open; the web gets what the test attaches."""

    def __init__(self, directory: Path, node: netns.Namespace, client: netns.Namespace, web: netns.Namespace) -> None:
        self.directory = directory
        self.nats_url = ""
        self.node, self.client, self.web = node, client, web
        self.bus: Bus
        self.agent: AgentProcess
        self.address = ""
        """Of the web."""
        self.client_address = ""
        self.events: list[Event] = []

    async def apply(self, resource: Resource) -> None:
        await self.bus.put(DESIRED[type(resource)], resource.key, resource)

    async def attach(self, pod: PodKey, ingress: Direction, egress: Direction = Direction(default="allow")) -> None:  # noqa: B008
        message = Attachment(
            node=NodeName("node1"),
            namespace=pod.namespace,
            name=pod.name,
            container=pod.name,
            ingress=ingress,
            egress=egress,
        )
        await self.bus.put(ATTACHMENT, ("node1", *pod), message)

    async def rules(self, *ingress: Rule, id_: RulesId = POLICY, cut: bool = False) -> None:
        await self.bus.put(RULES, (id_,), Rules(policy=TITLE, ingress=ingress, cut=cut))

    async def friends(self, *addresses: str) -> None:
        packed = b"".join(sorted(socket.inet_aton(address) for address in addresses))
        await self.bus.put(GROUP, (FRIENDS, "0"), Group(v4=packed, selector="friends"))

    async def govern(self, **more: Any) -> None:
        """The web is plugged in, governed at ingress by POLICY."""
        await self.attach(WEB, Direction(tiers=tier(POLICY), **more))
        self.address = await self.add(WEB, self.web)

    async def add(self, pod: PodKey, namespace: netns.Namespace) -> str:
        code, answer = await asyncio.to_thread(self.agent.cni, "ADD", pod.name, namespace, pod)
        assert code == 0, f"{answer}\n{self.agent.log()}"
        address: str = answer["ips"][0]["address"]
        return address.partition("/")[0]

    async def told(self, what: str, accept: Callable[[Event], bool] = lambda _: True) -> Event:
        async def found() -> Event | None:
            return next((event for event in self.events if event.what == what and accept(event)), None)

        event = await within(found, f"an event {what} among {[event.what for event in self.events]}")
        assert event is not None
        return event

    async def listen_to_events(self) -> None:
        tail = Tail(self.bus, EVENT, "policy", since=0.0)
        try:
            while True:
                self.events += [fact.value for fact in await tail.next()]
        finally:
            await tail.close()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(netns.wait_for, condition, what, 20.0)

    async def hits(self, accept: Callable[[dict[tuple[str, str], Hit]], bool]) -> Hits:
        """The node's figures as soon as they are as they should be."""

        async def found() -> Hits | None:
            message: Hits | None = (await self.bus.get(HITS, ("node1",))).value
            assert message is not None, "nothing is said yet"
            hits = {(hit.rules, hit.way): hit for hit in message.hits}
            assert accept(hits), f"{message.hits}"
            return message

        message = await within(found, "the figures")
        assert message is not None
        return message

    def reaches(self, port: int) -> bool:
        return tcp(self.client, self.address, port)

    def refused(self, port: int) -> bool:
        return not tcp(self.client, self.address, port, wait_s=REFUSED_S)


@pytest.fixture
def spaces() -> Iterator[tuple[netns.Namespace, ...]]:
    with ExitStack() as stack:
        hub, *rest = stack.enter_context(namespaces(4))
        netns.veth(rest[0], "up0", hub, "node1", addresses=("10.0.0.1/24", f"{HUB}/24"))
        rest[0].ip("route", "add", "default", "via", HUB)
        stack.enter_context(hub.inside())
        yield tuple(rest)


@pytest.fixture
def settings() -> dict[str, str]:
    return {"hits_interval_s": "0.05"}


@pytest.fixture
async def seen(spaces: tuple[netns.Namespace, ...], settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Seen]:
    made = Seen(tmp_path, *spaces)
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(EmbeddedNats(tmp_path / "nats", host=HUB))
        made.nats_url = nats.url
        bus = Bus.connect(ServiceSettings(nats_url=nats.url, health_listen=""), name="test", health=Health())
        made.bus = await stack.enter_async_context(bus)
        await made.bus.connected()
        ipam = ServiceProcess("ipam", tmp_path / "ipam.log", nats_url=nats.url, health_listen="")
        ipam.start()
        stack.callback(ipam.stop)
        await made.apply(Namespace(metadata=Metadata(name="default")))
        spec = NodeSpec(bgp=NodeBgp(ipv4_address="10.0.0.1/24"))
        await made.apply(Node(metadata=Metadata(name="node1"), spec=spec))
        pool = IPPoolSpec(cidr="10.244.0.0/16", nat_outgoing=True, vxlan_mode="Never")
        await made.apply(IPPool(metadata=Metadata(name="default"), spec=pool))
        for pod in (WEB, CLIENT):
            await made.apply(Pod(metadata=Metadata(name=pod.name, namespace=pod.namespace)))
        made.agent = AgentProcess("node1", made.node, nats.url, tmp_path, **settings)
        made.agent.start()
        stack.callback(made.agent.stop)
        await made.until(Path(made.agent.socket).exists, "the agent listens")
        await made.attach(CLIENT, Direction(default="allow"))
        made.client_address = await made.add(CLIENT, made.client)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        listening = tasks.create_task(made.listen_to_events())
        yield made
        listening.cancel()


# --- denials


async def test_a_denied_packet_is_an_event_that_names_who_and_why(seen: Seen) -> None:
    deny = Rule(action="deny", protocol=TCP, destination=ports(81), index=1, name="no-81")
    await seen.rules(allow(80), deny)
    await seen.govern()
    assert await asyncio.to_thread(seen.refused, 81)
    event = await seen.told("denied")
    assert (event.node, event.object) == ("node1", "default/web")
    assert event.detail == {
        "direction": "ingress",
        "peer": seen.client_address,
        "peer_pod": "default/client",
        "protocol": "TCP",
        "port": "81",
        "policy": TITLE,
        "rule": "1",
        "rule_name": "no-81",
        "tier": "default",
        "count": "1",
    }
    assert await asyncio.to_thread(seen.refused, 82)
    event = await seen.told("denied", lambda event: event.detail["port"] == "82")
    assert "policy" not in event.detail
    assert event.detail["tier"] == "default"


async def test_a_staged_policy_only_says_what_it_would_do(seen: Seen) -> None:
    staged = rules_id("stagednetworkpolicy", "default", "web")
    await seen.rules(allow(80))
    await seen.rules(Rule(action="deny", index=0), id_=staged)
    await seen.govern(preview=tier(staged))
    with listen(seen.web, seen.address, 80):
        assert await asyncio.to_thread(seen.reaches, 80)
    event = await seen.told("would_be_denied")
    assert (event.object, event.detail["rule"], event.detail["port"]) == ("default/web", "0", "80")
    await seen.hits(
        lambda hits: hits[staged, "ingress"].would_deny == 1 and hits[POLICY, "ingress"].allowed == 1,
    )


@pytest.mark.parametrize("settings", [{"denied_events_per_s": "3"}])
async def test_many_denials_are_few_events(seen: Seen) -> None:
    await seen.rules()
    await seen.govern()
    with seen.client.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for port in range(1000, 1150):
            sender.sendto(b"x", (seen.address, port))
    event = await seen.told("denials_untold")
    told = [event for event in seen.events if event.what == "denied"]
    assert int(event.detail["count"]) + len(told) <= 150
    assert 3 <= len(told) <= 10


# --- counters


async def test_counters_are_right_and_survive_a_change_and_a_restart(seen: Seen) -> None:
    deny = Rule(action="deny", protocol=TCP, destination=ports(81))
    await seen.rules(allow(80), deny)
    await seen.govern()
    with listen(seen.web, seen.address, 80):
        for _ in range(3):
            assert await asyncio.to_thread(seen.reaches, 80)
        assert await asyncio.to_thread(seen.refused, 81)
        first = await seen.hits(
            lambda hits: (hits[POLICY, "ingress"].allowed, hits[POLICY, "ingress"].denied) == (3, 1),
        )
        await seen.rules(allow(80, 90), deny)
        with listen(seen.web, seen.address, 90):
            await seen.until(lambda: seen.reaches(90), "the change is in the kernel")
        await seen.hits(lambda hits: hits[POLICY, "ingress"].allowed == 4)
        seen.agent.kill()
        seen.agent.start()
        assert await asyncio.to_thread(seen.reaches, 80)
        last = await seen.hits(lambda hits: hits[POLICY, "ingress"].allowed == 5)
    assert last.since == first.since


# --- connections


class Talk:
    """A connection that lives."""

    def __init__(self, client: socket.socket, served: socket.socket) -> None:
        self.client, self.served = client, served
        self.served.settimeout(1)

    def passes(self) -> bool:
        """Whether data goes through, there and back."""
        try:
            self.client.sendall(b"ping")
            if self.served.recv(100)[-4:] != b"ping":
                return False
            self.served.sendall(b"pong")
            return self.client.recv(100)[-4:] == b"pong"
        except TimeoutError:
            return False

    def close(self) -> None:
        self.client.close()
        self.served.close()


@pytest.fixture
def talks(seen: Seen) -> Iterator[Callable[[int], Talk]]:
    with ExitStack() as stack:

        def talk(port: int) -> Talk:
            listener = stack.enter_context(listen(seen.web, seen.address, port))
            client = connect(seen.client, seen.address, port)
            assert client is not None
            made = Talk(client, listener.accept()[0])
            stack.callback(made.close)
            assert made.passes()
            return made

        yield talk


async def test_connections_survive_a_policy_by_default(seen: Seen, talks: Callable[[int], Talk]) -> None:
    await seen.rules(allow(80))
    await seen.govern()
    talk = talks(80)
    await seen.rules(allow(81))
    await seen.until(lambda: seen.refused(80), "the change is in the kernel")
    assert talk.passes()


async def test_a_policy_that_cuts(seen: Seen, talks: Callable[[int], Talk]) -> None:
    await seen.rules(allow(80, 81), cut=True)
    await seen.govern()
    talk, other = talks(80), talks(81)
    await seen.rules(allow(81), cut=True)
    event = await seen.told("cut")
    assert event.object == "default/web"
    assert (event.detail["peer"], event.detail["count"]) == (seen.client_address, "1")
    assert event.detail["policy"] == TITLE
    assert not await asyncio.to_thread(talk.passes)
    assert other.passes()
    # Neither end takes it up again, though the web may call the client whenever it wants to.
    talk.served.sendall(b"hello")
    talk.client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(talk.client.recv, 100)
    assert not await asyncio.to_thread(talk.passes)
    assert other.passes()


async def test_a_member_that_leaves_is_cut_off(seen: Seen, talks: Callable[[int], Talk]) -> None:
    await seen.friends(seen.client_address)
    await seen.rules(allow(80, source=Match(groups=(FRIENDS,))), cut=True)
    await seen.govern()
    talk = talks(80)
    await seen.friends("10.244.9.9")
    await seen.told("cut")
    assert not await asyncio.to_thread(talk.passes)


async def test_the_whole_node_cuts_when_it_is_told_to(seen: Seen, talks: Callable[[int], Talk]) -> None:
    await seen.rules(allow(80, 81))
    await seen.govern()
    talk, other = talks(80), talks(81)
    metadata = Metadata(name="default", annotations={CUT_ANNOTATION: "cut"})
    await seen.apply(FelixConfiguration(metadata=metadata))
    await seen.until(lambda: "tcp flags" in seen.node.run("nft", "list", "chain", "inet", "tortie", "forward"), "told")
    await seen.rules(allow(81))
    await seen.told("cut")
    assert not await asyncio.to_thread(talk.passes)
    assert other.passes()


async def test_a_policy_that_changed_while_the_agent_was_away(seen: Seen, talks: Callable[[int], Talk]) -> None:
    await seen.rules(allow(80, 81), cut=True)
    await seen.govern()
    talk, other = talks(80), talks(81)
    seen.agent.kill()
    await seen.rules(allow(81), cut=True)
    assert talk.passes()
    seen.agent.start()
    await seen.told("cut")
    assert not await asyncio.to_thread(talk.passes)
    assert other.passes()


CUTTING = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: default, annotations: {tortie.io/existing-connections: cut}}
spec: {selector: role == 'web', ingress: [{action: Allow, source: {selector: role == 'friend'}}]}
"""


async def test_a_label_that_goes_with_the_real_compiler(seen: Seen, talks: Callable[[int], Talk]) -> None:
    async def label(pod: PodKey, **labels: str) -> None:
        await seen.apply(Pod(metadata=Metadata(name=pod.name, namespace=pod.namespace, labels=labels)))

    settings = {"nats_url": seen.nats_url, "health_listen": ""}
    compiler = ServiceProcess("policy_compiler", seen.directory / "policy_compiler.log", **settings)
    compiler.start()
    try:
        await label(WEB, role="web")
        await label(CLIENT, role="friend")
        await seen.apply(resource(CUTTING))
        seen.address = await seen.add(WEB, seen.web)
        talk = talks(80)
        await label(CLIENT)
        event = await seen.told("cut")
        assert event.detail["policy"] == TITLE
        assert not await asyncio.to_thread(talk.passes)
        assert await asyncio.to_thread(seen.refused, 80)
        event = await seen.told("denied")
        assert (event.object, event.detail["peer_pod"]) == ("default/web", "default/client")
    finally:
        compiler.stop()
