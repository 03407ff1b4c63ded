"""Connections of a node, and through it, that its host endpoints do not allow any more: ended in the real kernel.

world --- near  [        ]       192.168.0.9
far   --- away  [  node  ]       192.168.1.9       both have the node for their router
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import msgspec
import pytest

from bus_schemas.policy import HostAttachment, Match, Rule
from bus_schemas.subjects import Fact
from chassis.health import Health
from services.node_dataplane.connection_cutter import ConnectionCutter
from services.node_dataplane.cutting import Changes
from services.node_dataplane.denials import Told
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.failsafe import TCP as FAILSAFE_TCP
from services.node_dataplane.nft.failsafe import Failsafe
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.host_worlds import host, hosted
from tests.support.netns import Namespace, connect, listen, namespaces, veth
from tests.support.nft_worlds import TCP, allow, direction, ports, rules, tier

pytestmark = pytest.mark.root

NODE, WORLD = "192.168.0.1", "192.168.0.9"
NODE_FAR, FAR = "192.168.1.1", "192.168.1.9"
PORT, SSH, NODE_PORT = 81, 22, 30081
SILENT_S = 0.3
"""How long to wait for what should not arrive."""
SETTINGS = NodeRules(nodes=(NODE,), failsafe_inbound=(Failsafe(FAILSAFE_TCP, SSH),), tcp_by_syn_only=True)
POLICY = direction(tier("p"))
OPEN, SHUT = Rule(action="allow"), Rule(action="deny")


class Lab:
    def __init__(self, node: Namespace, world: Namespace, far: Namespace, stack: ExitStack) -> None:
        self.node, self.world, self.far = node, world, far
        self._keep = stack
        node.forward()
        veth(node, "near", world, "near", addresses=(f"{NODE}/24", f"{WORLD}/24"))
        veth(node, "away", far, "away", addresses=(f"{NODE_FAR}/24", f"{FAR}/24"))
        world.ip("route", "add", "default", "via", NODE)
        far.ip("route", "add", "default", "via", NODE_FAR)
        self.told: list[Told] = []
        self.table = PolicyTable(SETTINGS)
        self.changes = Changes(self.table)
        self.driver = stack.enter_context(node.call(NftDriver))
        self.cutter = node.call(
            lambda: ConnectionCutter(self.changes, self.table, dict, frozenset, health=Health(), tell=self.told.append)
        )
        stack.enter_context(closing(self.cutter))
        self.table.set_devices(
            {"lo": frozenset({"127.0.0.1"}), "near": frozenset({NODE}), "away": frozenset({NODE_FAR})}
        )

    def tell(self, *facts: Fact) -> bool:
        """Into the kernel; whether something is to be cut."""
        for fact in facts:
            self.changes.note(fact)
            self.table.learn(fact)
        self.changes.begin()
        flush = self.table.flush()
        if flush.transaction is not None:
            self.driver.commit(flush.transaction)
            self.table.committed(flush.transaction)
        return self.changes.committed()

    async def change(self, *facts: Fact) -> None:
        """The same, and what is due is done."""
        assert self.tell(*facts)
        await self.cutter._cut(self.changes.take())

    def begin(self, attachment: HostAttachment) -> None:
        self.tell(policy(OPEN), hosted(attachment))
        self.changes.take()

    def talk(
        self, source: Namespace, at: Namespace, address: str, port: int, asked: tuple[str, int] | None = None
    ) -> Talk:
        """A connection; `asked`: where it was sent, if something redirects it."""
        listener = self._keep.enter_context(listen(at, address, port))
        client = connect(source, *(asked or (address, port)))
        assert client is not None
        server, _ = listener.accept()
        return Talk(self._keep.enter_context(client), self._keep.enter_context(server))


class Talk:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server

    def goes_on(self) -> bool:
        """Both ways, whoever speaks first."""
        return any([self.goes_out(), _arrives(self._server, self._client)])

    def goes_out(self) -> bool:
        """From whoever began."""
        return _arrives(self._client, self._server)


def _arrives(sender: socket.socket, receiver: socket.socket) -> bool:
    sender.sendall(b"x")
    receiver.settimeout(SILENT_S)
    try:
        return receiver.recv(1) == b"x"
    except TimeoutError:
        return False


def policy(ingress: Rule, egress: Rule | None = None, id_: str = "p", *, cut: bool = True) -> Fact:
    fact = rules(id_, ingress=[ingress], egress=[egress or ingress])
    return fact._replace(value=msgspec.structs.replace(fact.value, cut=cut))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with namespaces(3) as (node, world, far), ExitStack() as stack:
        yield Lab(node, world, far, stack)


NEAR = host("near", "near", ingress=POLICY, egress=POLICY)
EVERY = host("all", "*", ingress=POLICY, egress=POLICY)
ROUTER = host("near", "near", ingress=direction(default="allow"), egress=direction(default="allow"))
FORWARDING_IN = msgspec.structs.replace(ROUTER, forward_ingress=POLICY)
FORWARDING_OUT = msgspec.structs.replace(ROUTER, forward_egress=POLICY)


@pytest.mark.parametrize("attachment", [NEAR, EVERY], ids=["the device's", "of all devices"])
async def test_connections_to_and_from_the_node(lab: Lab, attachment: HostAttachment) -> None:
    lab.begin(attachment)
    inbound = lab.talk(lab.world, lab.node, NODE, PORT)
    outbound = lab.talk(lab.node, lab.world, WORLD, PORT)
    failsafe = lab.talk(lab.world, lab.node, NODE, SSH)
    itself = lab.talk(lab.node, lab.node, NODE, PORT + 1)
    await lab.change(policy(SHUT, OPEN))
    assert not inbound.goes_on()
    assert all(talk.goes_on() for talk in (outbound, failsafe, itself))
    assert [(told.object, told.detail["direction"]) for told in lab.told] == [
        (f"HostEndpoint/{attachment.name}", "ingress")
    ]
    await lab.change(policy(SHUT))
    assert not outbound.goes_on()
    assert all(talk.goes_on() for talk in (failsafe, itself))


async def test_what_is_still_allowed_goes_on(lab: Lab) -> None:
    lab.begin(NEAR)
    talk = lab.talk(lab.world, lab.node, NODE, PORT)
    other = lab.talk(lab.world, lab.node, NODE, PORT + 1)
    await lab.change(policy(allow(protocol=TCP, destination=Match(ports=ports(PORT)))))
    assert talk.goes_on()
    assert not other.goes_on()


@pytest.mark.parametrize("attachment", [FORWARDING_IN, FORWARDING_OUT], ids=["entering", "leaving"])
async def test_what_is_forwarded(lab: Lab, attachment: HostAttachment) -> None:
    lab.begin(attachment)
    if attachment is FORWARDING_IN:
        talk = lab.talk(lab.world, lab.far, FAR, PORT)
    else:
        talk = lab.talk(lab.far, lab.world, WORLD, PORT)
    mine = lab.talk(lab.world, lab.node, NODE, PORT)
    await lab.change(policy(SHUT))
    assert mine.goes_on(), "what ends at the node is no business of what is forwarded"
    assert len(lab.told) == 1
    assert not talk.goes_out()


async def test_policy_before_nat_is_asked_about_what_was_asked_for(lab: Lab) -> None:
    early = msgspec.structs.replace(ROUTER, pre_dnat_ingress=direction(tier("p", default="pass"), default="allow"))
    lab.begin(early)
    lab.node.run(
        "nft",
        "-f",
        "-",
        text="add table ip proxy\nadd chain ip proxy in { type nat hook prerouting priority dstnat; }\n"
        f"add rule ip proxy in ip daddr {NODE} tcp dport {NODE_PORT} dnat to {FAR}:{PORT}\n",
    )
    redirected = lab.talk(lab.world, lab.far, FAR, PORT, (NODE, NODE_PORT))
    direct = lab.talk(lab.world, lab.far, FAR, PORT + 1)
    shut = Rule(action="deny", protocol=TCP, destination=Match(ports=ports(NODE_PORT)))
    await lab.change(policy(shut))
    assert not redirected.goes_out()
    assert direct.goes_on()


async def test_a_host_endpoint_that_is_new(lab: Lab) -> None:
    lab.tell(policy(SHUT))
    lab.changes.take()
    talk = lab.talk(lab.world, lab.node, NODE, PORT)
    await lab.change(hosted(NEAR))
    assert not talk.goes_on()


async def test_whoever_keeps_cuts_nothing(lab: Lab) -> None:
    lab.changes.set_everywhere(True)
    keep = policy(OPEN, cut=False)
    lab.tell(keep._replace(value=msgspec.structs.replace(keep.value, keep=True)), hosted(NEAR))
    lab.changes.take()
    talk = lab.talk(lab.world, lab.node, NODE, PORT)
    shut = policy(SHUT, cut=False)
    assert not lab.tell(shut._replace(value=msgspec.structs.replace(shut.value, keep=True)))
    assert talk.goes_on()
