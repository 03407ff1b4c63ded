"""What is told of a route that changed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bus_schemas.ids import NodeName
from bus_schemas.routes import Encapsulation, Route, Tunnel, WireguardEnd
from services.route_distribution.news import changed

CIDR = "10.244.0.0/26"
ROUTE = Route(cidr=CIDR, node=NodeName("node1"), address="10.0.0.1/24")
OVER = replace(ROUTE, tunnel=Tunnel.VXLAN, encapsulation=Encapsulation.ALWAYS)


@pytest.mark.parametrize(
    ("before", "after", "change", "message"),
    [
        (None, ROUTE, "added", f"{CIDR} leads to node1 now, by 10.0.0.1."),
        (ROUTE, None, "removed", f"{CIDR} leads nowhere any more; it led to node1."),
        (ROUTE, OVER, "changed", f"{CIDR} leads to node1 as before, but by 10.0.0.1, through vxlan now."),
        (
            ROUTE,
            replace(ROUTE, node=NodeName("node2"), address="10.0.0.2/24"),
            "changed",
            f"{CIDR} leads to node2 now, by 10.0.0.2; it led to node1.",
        ),
        (
            None,
            replace(OVER, encapsulation=Encapsulation.CROSS_SUBNET),
            "added",
            f"{CIDR} leads to node1 now, by 10.0.0.1, through vxlan across subnets.",
        ),
        (
            ROUTE,
            replace(ROUTE, wireguard=WireguardEnd(key="k", port=51820)),
            "changed",
            f"{CIDR} leads to node1 as before, but by 10.0.0.1, encrypted between nodes that can now.",
        ),
        (
            None,
            replace(ROUTE, address=""),
            "added",
            f"{CIDR} leads to node1 now, whose address is not known yet.",
        ),
    ],
)
def test_the_sentence(before: Route | None, after: Route | None, change: str, message: str) -> None:
    event = changed(CIDR, before, after, 1.0)
    assert event is not None
    assert (event.detail["change"], event.message) == (change, message)


def test_the_same_again_is_no_news() -> None:
    assert changed(CIDR, ROUTE, ROUTE, 1.0) is None
    assert changed(CIDR, None, None, 1.0) is None
