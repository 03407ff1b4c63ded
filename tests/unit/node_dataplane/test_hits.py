"""What is said of counters, to whom, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from bus_schemas.ids import NodeName
from bus_schemas.policy import Hit, Hits
from bus_schemas.subjects import HITS
from chassis.errors import Unavailable
from chassis.health import Health
from services.node_dataplane import hits
from services.node_dataplane.hits import Beginning, HitCounters, Reading, beginning, hits_of
from services.node_dataplane.nft.attribution import Counted

WEB = "networkpolicy/default/web"
COUNTED = {
    "a": Counted(WEB, "ingress", "allow"),
    "b": Counted(WEB, "ingress", "deny"),
    "c": Counted(WEB, "egress", "pass"),
    "d": Counted("tier/default", "ingress", "deny"),
    "e": Counted(WEB, "ingress", "would_deny"),
}


def test_figures_by_policy_and_way_without_zeros() -> None:
    assert hits_of(COUNTED, {"a": 3, "b": 4, "c": 0, "d": 5, "unknown": 6, "e": 7}) == (
        Hit(rules=WEB, way="ingress", allowed=3, denied=4, would_deny=7),
        Hit(rules="tier/default", way="ingress", denied=5),
    )


def test_the_beginning_is_that_of_the_table() -> None:
    first = beginning(None, Reading("boot/1", {}), 10.0)
    assert first == Beginning("boot/1", 10.0)
    assert beginning(first, Reading("boot/1", {}), 20.0) is first
    assert beginning(first, Reading("boot/2", {}), 20.0) == Beginning("boot/2", 20.0)


class PlayedBus:
    def __init__(self) -> None:
        self.said: list[Hits] = []
        self.away = False

    async def put(self, family: Any, key: Any, message: Hits, *, ttl_s: float | None = None) -> int:
        if self.away:
            raise Unavailable("nobody")
        assert (family, key) == (HITS, ("node1",))
        assert ttl_s == hits.TTL_S
        self.said.append(message)
        return 1


class PlayedTable:
    def __init__(self) -> None:
        self.meaning: Mapping[str, Counted] = COUNTED

    def counted(self) -> Mapping[str, Counted]:
        return self.meaning


class Node(HitCounters):
    """Reads what the test says."""

    def __init__(self, directory: Path) -> None:
        self.bus, self.table = PlayedBus(), PlayedTable()
        self.reading = Reading("boot/1", {})
        settings = {"directory": directory, "interval_s": 1.0, "metrics": True}
        super().__init__(NodeName("node1"), self.table, self.bus, Health(), **settings)  # type: ignore[arg-type]

    def _read(self) -> Reading:
        return self.reading


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_it_is_said_when_something_changed(node: Node) -> None:
    await node.read_once()
    assert node.bus.said == [], "there is nothing to say"
    node.reading = Reading("boot/1", {"a": 1})
    await node.read_once()
    await node.read_once()
    node.reading = Reading("boot/1", {"a": 2})
    await node.read_once()
    assert [said.hits[0].allowed for said in node.bus.said] == [1, 2]
    assert node.bus.said[0].since == node.bus.said[1].since


async def test_it_is_said_again_before_it_expires(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.reading = Reading("boot/1", {"a": 1})
    await node.read_once()
    monkeypatch.setattr(hits, "RENEW_S", 0.0)
    await node.read_once()
    assert len(node.bus.said) == 2


async def test_what_the_bus_did_not_take_is_said_the_next_time(node: Node) -> None:
    node.reading = Reading("boot/1", {"a": 1})
    node.bus.away = True
    await node.read_once()
    node.bus.away = False
    await node.read_once()
    assert len(node.bus.said) == 1


async def test_policies_that_are_gone_are_not_said_any_more(node: Node) -> None:
    node.reading = Reading("boot/1", {"a": 1, "spoofed": 2})
    await node.read_once()
    assert metric("tortie_policy_connections_total", policy=WEB, direction="ingress", verdict="allow") == 1
    assert metric("tortie_denied_packets_total", reason="spoofed") == 2
    node.table.meaning = {}
    await node.read_once()
    await node.read_once()
    assert [len(said.hits) for said in node.bus.said] == [1, 0]
    assert metric("tortie_policy_connections_total", policy=WEB, direction="ingress", verdict="allow") is None


async def test_a_restarted_agent_knows_since_when(tmp_path: Path) -> None:
    since = []
    for figure in (1, 2):
        node = Node(tmp_path)
        try:
            node.reading = Reading("boot/1", {"a": figure})
            node._beginning = hits._load(tmp_path / hits.FILE)
            await node.read_once()
        finally:
            node.close()
        since.append(node.bus.said[0].since)
    assert since[0] == since[1]
