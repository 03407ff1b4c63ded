"""Counter objects as the kernel tells them."""

from __future__ import annotations

import pytest

from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft import counters
from services.node_dataplane.nft.counters import Figures
from tests.support.netns import namespaces

pytestmark = pytest.mark.root

BIG = 2**40 + 7


def test_all_counters_of_our_table_and_no_others() -> None:
    with namespaces(1) as (node,), node.inside(), NetlinkSocket(NETLINK_NETFILTER) as socket:
        node.run(
            *("nft", "-f", "-"),
            text=f"""
            add table inet other
            add counter inet other foreign
            add table inet tortie
            add counter inet tortie spoofed
            add counter inet tortie allowed {{ packets {BIG} bytes {BIG * 60} }}
            add quota inet tortie none {{ over 10 mbytes }}
            """,
        )
        figures = counters.read(socket.stream(counters.dump()))
        assert figures == {"spoofed": Figures(0, 0), "allowed": Figures(BIG, BIG * 60)}


def test_a_table_that_is_replaced_has_another_handle() -> None:
    with namespaces(1) as (node,), node.inside(), NetlinkSocket(NETLINK_NETFILTER) as socket:
        assert socket.get(counters.get_table()) is None
        handles = []
        for _ in range(2):
            node.run("nft", "add", "table", "inet", "tortie")
            answer = socket.get(counters.get_table())
            assert answer is not None
            handles.append(counters.table_handle(answer[1]))
            node.run("nft", "add", "counter", "inet", "tortie", "more")
            answer = socket.get(counters.get_table())
            assert answer is not None
            assert counters.table_handle(answer[1]) == handles[-1]
            node.run("nft", "delete", "table", "inet", "tortie")
        assert handles[0] != handles[1]
        assert counters.read(socket.stream(counters.dump())) == {}
