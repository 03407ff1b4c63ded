"""Floating addresses and foreign sources in the kernel: taken as they are written, read back as they were taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.netns import Namespace, namespaces
from tests.support.nft_worlds import attach, plug, pod, tell

pytestmark = pytest.mark.root

FLOATING = (("10.9.0.1", "10.244.0.1"), ("10.9.0.2", "10.244.0.1"), ("fd09::1", "fd00::1"))
NODE = NodeRules(
    masquerade_pools=("10.244.0.0/16",),
    all_pools=("10.244.0.0/16", "fd00::/48"),
    nodes=("192.168.0.1", "fd01::1"),
    spoofing=True,
    floating=True,
    exclude_nodes=True,
)


@pytest.fixture
def node() -> Iterator[Namespace]:
    with namespaces(1) as (made,):
        yield made


def settle(table: PolicyTable, driver: NftDriver) -> None:
    flush = table.flush()
    assert flush.transaction is not None
    driver.commit(flush.transaction)
    table.committed(flush.transaction)
    expected = table.expected()
    assert expected is not None
    assert driver.verify(expected) == []


def test_they_come_and_go_with_their_pod(node: Namespace) -> None:
    table = PolicyTable(NODE)
    with node.call(NftDriver) as driver, node.inside():
        settle(table, driver)
        plain = node.run("nft", "list", "table", "inet", "tortie")
        plug(table, "a", "10.244.0.1", "fd00::1", floating=FLOATING, sources=("10.1.0.0/16", "::/0"))
        tell(table, attach("a"))
        settle(table, driver)
        listed = node.run("nft", "list", "table", "inet", "tortie")
        for line in (
            "ip daddr 10.9.0.2 dnat ip to 10.244.0.1",
            "ip6 daddr fd09::1 dnat ip6 to fd00::1",
            "ip saddr 10.244.0.1 ip daddr 10.244.0.1 snat ip to 10.9.0.1",
            "ip saddr 10.244.0.1 ip daddr != @pools4 ip daddr != @nodes4 snat ip to 10.9.0.1",
            "ip saddr 10.1.0.0/16 accept",
        ):
            assert line in listed
        table.remove_endpoint(pod("a"))
        settle(table, driver)
        after = node.run("nft", "list", "table", "inet", "tortie")
        assert [row for row in after.splitlines() if "chain " in row] == [
            row for row in plain.splitlines() if "chain " in row
        ]
