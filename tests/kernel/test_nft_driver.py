"""The driver: what it writes is what the kernel shows, and what somebody else changed is seen."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from bus_schemas.ids import GroupId
from bus_schemas.policy import Match
from services.node_dataplane.nft import encode
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.nft.link_groups import first_choice
from services.node_dataplane.nft.names import address_set, port_set
from services.node_dataplane.nft.sets import ADDRESSES4
from services.node_dataplane.nft.table import Flush, NodeRules, PolicyTable
from services.node_dataplane.nft.transaction import Elements, Statement, Transaction
from tests.support.netns import Namespace, bind_udp, namespaces, udp
from tests.support.nft_worlds import TCP, allow, attach, direction, group, groups, plug, ports, rules, tell, tier

pytestmark = pytest.mark.root

A4, A6 = address_set(GroupId("s:a"), 4), address_set(GroupId("s:a"), 6)
SERVER_LINK = first_choice("torserver")
P4, P6 = port_set(GroupId("p:http"), 4), port_set(GroupId("p:http"), 6)


class Kernel:
    def __init__(self, namespace: Namespace, driver: NftDriver) -> None:
        self.namespace, self.driver = namespace, driver
        self.table = PolicyTable(
            NodeRules(masquerade_pools=("10.0.0.0/8",), all_pools=("10.0.0.0/8",), nodes=("1.2.3.4",), vxlan_port=4789)
        )
        web = allow(
            protocol=TCP,
            source=Match(groups=groups("s:a"), not_nets=("10.0.0.0/24", "11.0.0.0/24")),
            destination=Match(ports=ports(80, (90, 99)), named_ports=groups("p:http")),
        )
        plug(self.table, "server", "10.244.0.2", "fd00::2")
        tell(self.table, attach("server", ingress=direction(tier("web"))), rules("web", ingress=[web]))
        tell(self.table, group("s:a", "10.244.0.1", "fd00::1"), group("p:http", "10.244.0.2 6 8080"))

    def settle(self) -> Flush:
        flush = self.table.flush()
        if flush.transaction is not None:
            self.driver.commit(flush.transaction)
            self.table.committed(flush.transaction)
        return flush

    def nft(self, text: str) -> str:
        return self.namespace.run("nft", "-f", "-", text=text + "\n")

    def elements(self, name: str, word: str = "set") -> list[Any]:
        """As nft shows them, with numbers for words."""
        listing = self.namespace.run("nft", "-j", "-n", "list", word, "inet", "tortie", name)
        for row in json.loads(listing)["nftables"]:
            if word in row:
                return [e.get("elem", e) if isinstance(e, dict) else e for e in row[word].get("elem", [])]
        raise AssertionError(listing)

    def differences(self) -> list[str]:
        expected = self.table.expected()
        assert expected is not None
        found = self.driver.verify(expected)
        assert found is not None
        return found


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with namespaces(1) as (namespace,), ExitStack() as stack:
        kernel = Kernel(namespace, stack.enter_context(namespace.call(NftDriver)))
        kernel.settle()
        yield kernel


def test_elements_by_netlink_are_what_nft_reads(kernel: Kernel) -> None:
    tell(kernel.table, group("s:a", "10.244.0.9", "fd00::9"), group("p:http", "10.244.0.2 17 53", "fd00::2 132 65535"))
    plug(kernel.table, "tw", "10.244.0.3", "fd00::3")
    tell(kernel.table, attach("tw", ingress=direction(tier("web"))))
    before = kernel.driver.by_elements
    kernel.settle()
    assert kernel.driver.by_elements == before + 1
    assert kernel.elements(A4) == ["10.244.0.9"]
    assert kernel.elements(A6) == ["fd00::9"]
    assert kernel.elements(P4) == [{"concat": ["10.244.0.2", 17, 53]}]
    assert kernel.elements(P6) == [{"concat": ["fd00::2", 132, 65535]}]
    assert {"concat": [first_choice("tortw"), "10.244.0.3"]} in kernel.elements("pod_sources4")
    assert {"concat": [first_choice("tortw"), "fd00::3"]} in kernel.elements("pod_sources6")
    dispatch = dict(kernel.elements("pods_to", "map"))
    assert dispatch[first_choice("tortw")] == dispatch[first_choice("torserver")]
    assert dispatch[first_choice("tortw")]["goto"]["target"].startswith("to_")
    assert kernel.differences() == []


def test_elements_can_be_sent_twice(kernel: Kernel) -> None:
    tell(kernel.table, group("s:a", "10.244.0.9"))
    flush = kernel.table.flush()
    assert flush.transaction is not None
    kernel.driver.commit(flush.transaction)
    kernel.driver.commit(flush.transaction)
    kernel.table.committed(flush.transaction)
    assert kernel.differences() == []


def test_many_elements_are_several_messages_of_one_batch(kernel: Kernel) -> None:
    members = [f"10.{n >> 8 & 255}.{n & 255}.1" for n in range(10_000)]
    tell(kernel.table, group("s:a", *members))
    flush = kernel.settle()
    assert flush.transaction is not None
    assert flush.transaction.elements is not None
    assert len(encode.batch(flush.transaction.elements)) > 4
    assert kernel.differences() == []
    tell(kernel.table, group("s:a"))
    kernel.settle()
    assert kernel.elements(A4) == []


def test_a_refused_transaction_leaves_everything_and_says_why(kernel: Kernel) -> None:
    key = bytes((9, 9, 9, 9))
    missing = Elements("add", "no_such_set", ADDRESSES4, ((key, ""),))
    good = Elements("add", A4, ADDRESSES4, ((key, ""),))
    with pytest.raises(NftError, match="No such file"):
        kernel.driver.commit(Transaction(99, (good, missing)))
    with pytest.raises(NftError, match="No such file"):
        kernel.driver.commit(Transaction(99, (good, missing, Statement("add chain inet tortie x"))))
    with pytest.raises(NftError, match="syntax error"):
        kernel.driver.commit(Transaction(99, (Statement("add chain inet tortie x"), Statement("make it so"))))
    assert kernel.differences() == []


def test_kernels_without_destroy_delete(kernel: Kernel) -> None:
    key = bytes((10, 244, 0, 1))
    delete = Elements("delete", A4, ADDRESSES4, ((key, ""),))
    socket = kernel.driver._netlink
    assert not any(socket.transact(encode.batch([delete], destroy=False)))
    assert kernel.elements(A4) == []
    assert any(socket.transact(encode.batch([delete], destroy=False)))


# --- the self-check


@pytest.mark.parametrize(
    ("meddling", "complaint"),
    [
        ("flush ruleset", "the table inet tortie is gone"),
        ("delete table inet tortie", "the table inet tortie is gone"),
        (f"delete element inet tortie {A4} {{ 10.244.0.1 }}", f"set {A4} lacks 10.244.0.1"),
        (f"delete element inet tortie {A6} {{ fd00::1 }}", f"set {A6} lacks fd00::1"),
        (f"add element inet tortie {A4} {{ 6.6.6.6 }}", f"set {A4} holds 6.6.6.6, which is not ours"),
        (f"delete element inet tortie pods_to {{ {SERVER_LINK} }}", f"map pods_to lacks {SERVER_LINK}"),
        ("add element inet tortie pools4 { 172.16.0.0/12 }", "set pools4 was changed"),
        ("insert rule inet tortie forward accept", "the rules of chain forward were changed"),
        ("flush chain inet tortie guard", "the rules of chain guard were changed"),
        ("add chain inet tortie foreign", "chain foreign is not ours"),
        ("add set inet tortie foreign { type ipv4_addr; }", "set foreign is not ours"),
        ("add chain inet tortie input { policy drop; }", "chain input was changed"),
    ],
)
def test_what_somebody_else_did_is_seen_and_undone(kernel: Kernel, meddling: str, complaint: str) -> None:
    assert kernel.differences() == []
    kernel.nft(meddling)
    assert kernel.differences() == [complaint]
    whole = kernel.table.whole()
    kernel.driver.commit(whole)
    kernel.table.committed(whole)
    assert kernel.differences() == []


def test_counted_packets_and_other_tables_are_no_difference(kernel: Kernel) -> None:
    with bind_udp(kernel.namespace, "127.0.0.1", 4789) as receiver:
        assert udp(kernel.namespace, receiver, "127.0.0.1", 4789, wait_s=0.1) is None
    assert kernel.driver.counters()["vxlan_from_stranger"].packets == 1
    kernel.nft("add table inet other\nadd chain inet other x { type filter hook input priority 0; }")
    assert kernel.differences() == []


def test_an_old_expectation_says_nothing(kernel: Kernel) -> None:
    expected = kernel.table.expected()
    assert expected is not None
    tell(kernel.table, group("s:a"))
    kernel.settle()
    assert kernel.driver.verify(expected) is None


def test_exists(kernel: Kernel) -> None:
    assert kernel.driver.exists()
    kernel.nft("flush ruleset")
    assert not kernel.driver.exists()
    assert kernel.driver.counters() == {}


def test_closed_in_the_middle_of_a_reading_it_waits_for_the_reading(kernel: Kernel) -> None:
    """As when an agent is told to stop: its task is cancelled, the thread that reads the table is not."""
    expected = kernel.table.expected()
    assert expected is not None
    with ThreadPoolExecutor(1) as readers:
        for _ in range(50):
            driver = kernel.namespace.call(NftDriver)
            driver.revision = driver._begun = expected.revision
            begun = threading.Event()

            def read(driver: NftDriver = driver, begun: threading.Event = begun) -> None:
                begun.set()
                while True:
                    assert driver.verify(expected) == []

            reading = readers.submit(read)
            begun.wait()
            driver.close()
            assert isinstance(reading.exception(timeout=30), NftError)


def test_a_restarted_agent_replaces_the_table_of_the_one_before(kernel: Kernel) -> None:
    with kernel.namespace.call(NftDriver) as driver:
        table = PolicyTable()
        flush = table.flush()
        assert flush.transaction is not None
        driver.commit(flush.transaction)
        table.committed(flush.transaction)
        expected = table.expected()
        assert expected is not None
        assert driver.verify(expected) == []


def test_other_peoples_chains_that_drop_forwarded_packets_are_seen(kernel: Kernel) -> None:
    kernel.settle()
    assert kernel.driver.strangers() == []
    for line in (
        "add table ip filter",
        "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
        "add chain ip filter INPUT { type filter hook input priority 0; policy drop; }",
        "add chain ip filter OTHER { type filter hook forward priority 1; policy accept; }",
        "add chain ip filter DOCKER",
    ):
        kernel.namespace.run("nft", *line.split(" "))
    assert kernel.driver.strangers() == ["ip filter FORWARD"]
