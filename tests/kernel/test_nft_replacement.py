"""A whole table takes the place of another one: what is denied stays denied, what is allowed arrives.

pod a --- tora [ node ] torb --- pod b
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bus_schemas.policy import Match, Rule
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.replacement import MEANWHILE
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.nft.transaction import Transaction
from tests.support.netns import Namespace, bind_udp, namespaces, veth
from tests.support.nft_worlds import OPEN, UDP, attach, direction, link, plug, ports, rules, tell, tier

pytestmark = pytest.mark.root

A, B = "10.244.0.1", "10.244.0.2"
MAC = "ee:ee:ee:ee:ee:ee"
ALLOWED, DENIED = 80, 30_003
REPLACEMENTS = 40
ROOM = 64 << 20
SO_RCVBUFFORCE = 33


class Node:
    def __init__(self, namespace: Namespace, pods: dict[str, Namespace], stack: ExitStack) -> None:
        self.namespace, self.pods = namespace, pods
        namespace.forward()
        for (name, pod), address, other in zip(pods.items(), (A, B), (B, A), strict=True):
            veth(namespace, link(name), pod, "eth0")
            namespace.ip("link", "set", link(name), "address", MAC)
            namespace.ip("route", "add", address, "dev", link(name))
            pod.ip("address", "add", f"{address}/32", "dev", "eth0")
            pod.ip("route", "add", other, "dev", "eth0")
            pod.ip("neighbour", "add", other, "lladdr", MAC, "dev", "eth0")
        self.table = PolicyTable()
        self.driver = stack.enter_context(namespace.call(NftDriver))
        plug(self.table, "a", A)
        plug(self.table, "b", B)
        tell(self.table, rules("closed", ingress=self.intervals(), egress=self.intervals()))

    @staticmethod
    def intervals() -> list[Rule]:
        """Denied ranges, too wide for hash maps, and then everything."""
        denied = [
            Rule(
                action="deny",
                protocol=UDP,
                destination=Match(nets=(f"{B}/32",), ports=ports((first, first + 40))),
            )
            for first in range(30_000, 30_600, 100)
        ]
        return [*denied, Rule(action="allow")]

    def put(self, transaction: Transaction | None) -> None:
        if transaction is not None:
            self.driver.commit(transaction)
            self.table.committed(transaction)


@pytest.fixture
def node() -> Iterator[Node]:
    with namespaces(3) as (namespace, a, b), ExitStack() as stack:
        yield Node(namespace, {"a": a, "b": b}, stack)


@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_no_packet_notices(node: Node, way: str) -> None:
    closed = direction(tier("closed"))
    tell(node.table, attach("a", OPEN, closed if way == "egress" else OPEN))
    tell(node.table, attach("b", closed if way == "ingress" else OPEN))
    node.put(node.table.flush().transaction)
    with ExitStack() as stack:
        receivers = {port: stack.enter_context(bind_udp(node.pods["b"], B, port)) for port in (ALLOWED, DENIED)}
        for receiver in receivers.values():
            receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        sent = 0
        over = threading.Event()

        def send() -> None:
            nonlocal sent
            while not over.is_set():
                for sender in senders:
                    sender.send(b"")
                sent += 1

        senders = [stack.enter_context(bind_udp(node.pods["a"], A, 0)) for _ in receivers]
        for sender, port in zip(senders, receivers, strict=True):
            sender.connect((B, port))
        thread = threading.Thread(target=send)
        thread.start()
        try:
            for _ in range(REPLACEMENTS):
                node.put(node.table.whole())
        finally:
            over.set()
            thread.join()
        assert received(receivers[DENIED]) == 0
        assert received(receivers[ALLOWED]) == sent


def received(receiver: socket.socket) -> int:
    receiver.setblocking(False)
    count = 0
    while True:
        try:
            receiver.recv(1)
        except BlockingIOError:
            return count
        count += 1


def test_only_one_table_stays(node: Node) -> None:
    node.put(node.table.whole())
    node.put(node.table.whole())
    assert node.namespace.run("nft", "list", "tables").split() == ["table", "inet", TABLE]


def test_a_replacement_that_was_broken_off_is_done_again(node: Node) -> None:
    node.put(node.table.flush().transaction)
    node.namespace.run("nft", "add", "table", "inet", MEANWHILE)
    expected = node.table.expected()
    assert expected is not None
    assert node.driver.verify(expected) == [
        f"the table inet {MEANWHILE} is there, of a replacement that was broken off"
    ]
    node.put(node.table.whole())
    assert node.namespace.run("nft", "list", "tables").split() == ["table", "inet", TABLE]
    expected = node.table.expected()
    assert expected is not None
    assert node.driver.verify(expected) == []
