"""What the monitor makes the agent look at: not every step of a pod's link, but that it left its group, and its end."""

from __future__ import annotations

import pytest

from services.node_dataplane.monitor import Heard, Monitor
from services.node_dataplane.nft.link_groups import DOOMED, first_choice
from tests.support.netns import namespaces

pytestmark = pytest.mark.root


def test_a_pods_link_that_leaves_its_group_is_noticed() -> None:
    with namespaces(1) as (node,):
        monitor = node.call(Monitor)
        node.ip("link", "add", "tora", "group", str(first_choice("tora")), "type", "veth", "peer", "name", "far")
        node.ip("link", "set", "tora", "up")
        concerns(monitor)
        node.ip("link", "set", "tora", "mtu", "1400")
        assert not concerns(monitor)
        node.ip("link", "set", "tora", "group", "5")
        assert concerns(monitor)
        node.ip("link", "set", "tora", "group", str(DOOMED))
        assert not concerns(monitor)
        node.ip("link", "delete", "tora")
        assert concerns(monitor)
        monitor.close()


def concerns(monitor: Monitor) -> bool:
    heard = Heard()
    monitor.drain(heard)
    return heard.concerns
