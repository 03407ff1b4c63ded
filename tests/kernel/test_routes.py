"""The routes driver against the real kernel."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.routes import BLACKHOLE, SPARE, Row, destination
from services.node_dataplane.routing import RouteTable
from tests.support.netns import Namespace, namespaces

pytestmark = pytest.mark.root


class Node:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        for name, address in (("up0", "10.0.0.1/24"), ("up1", "10.0.1.1/24")):
            namespace.ip("link", "add", name, "type", "bridge")
            namespace.ip("address", "add", address, "dev", name)
            namespace.ip("link", "set", name, "up")
        namespace.ip("-6", "address", "add", "fd00::1/64", "dev", "up0", "nodad")
        self.socket = namespace.call(lambda: NetlinkSocket(NETLINK_ROUTE))
        self.table = self.new_table()

    def new_table(self) -> RouteTable:
        return RouteTable(self.socket, self.index)

    def index(self, name: str) -> int | None:
        try:
            return self.namespace.call(lambda: socket.if_nametoindex(name))
        except OSError:
            return None

    def ours(self) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for family in ("-4", "-6"):
            for row in json.loads(self.namespace.ip("-j", family, "route", "show", "proto", "84") or "[]"):
                rows[str(ip_network(row["dst"]))] = row
        return rows

    def all(self) -> str:
        return self.namespace.ip("route")


@pytest.fixture
def node() -> Iterator[Node]:
    with namespaces(1) as (namespace,):
        made = Node(namespace)
        yield made
        made.socket.close()


def via(address: str, device: str = "up0", *, onlink: bool = False) -> Row:
    return Row(device, ip_address(address).packed, onlink)


def test_every_kind_of_row(node: Node) -> None:
    table = node.table
    table.adopt()
    table.want(destination("10.244.0.0/26"), BLACKHOLE)
    table.want(destination("10.244.0.64/26"), via("10.0.0.2"))
    table.want(destination("10.244.0.128/26"), via("192.168.9.9", onlink=True))
    table.want(destination("10.244.0.5/32"), Row("up0"))
    table.want(destination("fd00:244::/122"), BLACKHOLE)
    table.want(destination("fd00:244::40/122"), via("fd00::2"))
    table.want(destination("fd00:244::5/128"), Row("up0"))
    table.flush()

    assert not table.stuck
    rows = node.ours()
    assert rows["10.244.0.0/26"]["type"] == "blackhole"
    assert rows["10.244.0.64/26"]["gateway"] == "10.0.0.2"
    assert rows["10.244.0.128/26"]["flags"] == ["onlink"]
    assert rows["10.244.0.5/32"]["scope"] == "link"
    assert rows["fd00:244::/122"]["type"] == "blackhole"
    assert rows["fd00:244::40/122"]["gateway"] == "fd00::2"
    assert rows["fd00:244::5/128"]["dev"] == "up0"
    assert table.check() == []


@pytest.mark.parametrize("cidr", ["10.244.0.64/26", "fd00:244::40/122"])
def test_a_row_changes_in_place_in_every_way_and_goes(node: Node, cidr: str) -> None:
    six = ":" in cidr
    near = "fd00::2" if six else "10.0.0.2"
    other = "fd00::3" if six else "10.0.0.3"
    node.table.adopt()
    node.table.complete()
    for row in (via(near), via(other), BLACKHOLE, via(near, onlink=True), Row("up0"), Row("up1"), BLACKHOLE):
        node.table.want(destination(cidr), row)
        node.table.flush()
        assert not node.table.stuck
        assert list(node.ours()) == [cidr]
        assert node.table.check() == []
    node.table.want(destination(cidr), None)
    node.table.flush()
    assert node.ours() == {}


def test_thousands_go_in_batches_and_come_back_the_same(node: Node) -> None:
    cidrs = [str(block) for block in list(ip_network("10.0.0.0/8").subnets(new_prefix=26))[5000:7000]]
    for cidr in cidrs:
        node.table.want(destination(cidr), via("10.0.0.2"))
    node.table.flush()
    assert len(node.ours()) == 2000
    assert node.table.check() == []
    for cidr in cidrs:
        node.table.want(destination(cidr), None)
    node.table.flush()
    assert node.ours() == {}


def test_a_restart_adopts_and_sweeps_only_when_complete(node: Node) -> None:
    node.table.want(destination("10.244.0.0/26"), BLACKHOLE)
    node.table.want(destination("10.244.9.0/26"), via("10.0.0.2"))
    node.table.flush()

    reborn = node.new_table()
    assert reborn.adopt() == 2
    reborn.flush()
    assert set(node.ours()) == {"10.244.0.0/26", "10.244.9.0/26"}
    reborn.want(destination("10.244.0.0/26"), BLACKHOLE)
    reborn.complete()
    reborn.flush()
    assert set(node.ours()) == {"10.244.0.0/26"}


def test_others_routes_are_neither_replaced_nor_removed(node: Node) -> None:
    node.namespace.ip("route", "add", "10.244.0.64/26", "via", "10.0.0.9", "proto", "static")
    before = node.all()
    node.table.adopt()
    node.table.complete()
    node.table.want(destination("10.244.0.64/26"), via("10.0.0.2"))
    node.table.flush()

    assert "in the way" in node.table.stuck[destination("10.244.0.64/26")]
    assert node.all() == before
    node.table.want(destination("10.244.0.64/26"), None)
    node.table.flush()
    assert node.all() == before

    node.table.want(destination("10.244.0.64/26"), via("10.0.0.2"))
    node.namespace.ip("route", "delete", "10.244.0.64/26")
    node.table.flush()
    assert set(node.ours()) == {"10.244.0.64/26"}
    assert not node.table.stuck


@pytest.mark.parametrize(
    "damage",
    [
        ("route", "delete", "10.244.0.64/26"),
        ("route", "replace", "10.244.0.64/26", "via", "10.0.0.7", "proto", "84"),
        ("route", "add", "10.77.0.0/16", "via", "10.0.0.7", "proto", "84"),
    ],
)
def test_damage_is_found_and_mended(node: Node, damage: tuple[str, ...]) -> None:
    node.table.adopt()
    node.table.complete()
    node.table.want(destination("10.244.0.64/26"), via("10.0.0.2"))
    node.table.flush()
    before = node.ours()
    node.namespace.ip(*damage)

    assert len(node.table.check()) == 1
    assert node.ours() == before
    assert node.table.check() == []


def test_a_missing_device_is_waited_for(node: Node) -> None:
    where = destination("10.244.0.5/32")
    node.table.want(where, Row("tor0"))
    node.table.flush()
    assert node.table.stuck == {where: "the device tor0 is not there"}
    node.namespace.ip("link", "add", "tor0", "up", "type", "bridge")
    node.table.flush()
    assert not node.table.stuck
    assert node.ours()["10.244.0.5/32"]["dev"] == "tor0"


def test_a_device_made_anew_gets_its_routes_again(node: Node) -> None:
    node.table.want(destination("10.244.0.5/32"), Row("tor0"))
    for _ in range(2):
        node.namespace.ip("link", "add", "tor0", "up", "type", "bridge")
        node.table.device_changed("tor0")
        node.table.flush()
        assert node.ours()["10.244.0.5/32"]["dev"] == "tor0"
        node.namespace.ip("link", "delete", "tor0")


def test_a_pod_here_wins_over_what_is_told_of_its_address(node: Node) -> None:
    where = destination("10.244.0.5/32")
    node.table.want(where, Row("up1"), local=True)
    node.table.want(where, via("10.0.0.2"))
    node.table.flush()
    assert node.ours()["10.244.0.5/32"]["dev"] == "up1"
    node.table.want(where, None, local=True)
    node.table.flush()
    assert node.ours()["10.244.0.5/32"]["gateway"] == "10.0.0.2"


def test_an_unreachable_gateway_is_named(node: Node) -> None:
    node.table.want(destination("10.244.0.64/26"), via("172.16.0.1"))
    node.table.flush()
    assert "refuses" in node.table.stuck[destination("10.244.0.64/26")]


@pytest.mark.parametrize(("cidr", "near"), [("10.244.0.64/26", "10.0.0.2"), ("fd00:244::40/122", "fd00::2")])
def test_a_row_becomes_a_spare_one_and_comes_back_without_a_gap(node: Node, cidr: str, near: str) -> None:
    node.table.adopt()
    node.table.complete()
    where, first, spare = destination(cidr), via(near), via(near)._replace(metric=SPARE)
    for row in (first, spare, spare, first):
        heard = node.namespace.call(lambda: NetlinkSocket(NETLINK_ROUTE, groups=0x40 | 0x400))
        before = node.table.wanted(where)
        node.table.want(where, row)
        node.table.flush()
        assert not node.table.stuck
        [held] = [row for dst, row in node.ours().items() if dst == cidr]
        assert held.get("metric", 0) == (row.metric or (1024 if ":" in cidr else 0))
        told = [type_ for type_, body in heard.notifications() if readback.route(bytes(body)).destination == where[0]]
        moved = before is not None and before != row
        assert told == ([] if before == row else [rtnl.RTM_NEWROUTE, *([rtnl.RTM_DELROUTE] if moved else [])])
        heard.close()
        assert node.table.check() == []


def test_somebody_elses_better_route_is_left_beside_the_spare_one(node: Node) -> None:
    node.namespace.ip("route", "add", "10.244.0.64/26", "via", "10.0.0.9", "proto", "bird", "metric", "1024")
    node.table.adopt()
    node.table.complete()
    node.table.want(destination("10.244.0.64/26"), via("10.0.0.2")._replace(metric=SPARE))
    node.table.flush()
    assert "via 10.0.0.9" in node.namespace.ip("route", "get", "10.244.0.65")
    node.namespace.ip("route", "del", "10.244.0.64/26", "proto", "bird")
    assert "via 10.0.0.2" in node.namespace.ip("route", "get", "10.244.0.65")


@pytest.mark.parametrize("metric", [0, SPARE])
def test_what_a_life_left_between_two_writes_is_cleared_up(node: Node, metric: int) -> None:
    for left in (0, SPARE):
        node.namespace.ip("route", "add", "10.244.0.64/26", "via", "10.0.0.2", "proto", "84", "metric", str(left))
    node.table.adopt()
    node.table.want(destination("10.244.0.64/26"), via("10.0.0.2")._replace(metric=metric))
    node.table.complete()
    node.table.flush()
    node.table.check()
    assert node.namespace.ip("route", "show", "proto", "84").count("10.244.0.64/26") == 1
    assert node.ours()["10.244.0.64/26"].get("metric", 0) == metric


CHANGES = [
    pytest.param("10.244.0.64/26", [Row("up0", ip_address(f"10.0.0.{n}").packed) for n in (2, 3)], id="IPv4"),
    pytest.param("10.244.0.64/26", [Row("up0", ip_address("10.0.0.2").packed), Row("up1")], id="IPv4-device"),
    pytest.param("10.244.0.64/26", [BLACKHOLE, Row("up0")], id="IPv4-blackhole"),
    pytest.param("10.244.0.64/26", [Row("up0"), Row("up0", ip_address("10.0.0.2").packed)], id="IPv4-one-device"),
    pytest.param("fd00:244::40/122", [Row("up0", ip_address(f"fd00::{n}").packed) for n in (2, 3)], id="IPv6"),
    pytest.param("fd00:244::40/122", [Row("up0", ip_address("fd00::2").packed), BLACKHOLE], id="IPv6-blackhole"),
    pytest.param(
        "fd00:244::40/122",
        [Row("up0", ip_address("fd00::2").packed), Row("up1", ip_address("fd00:244::41").packed, onlink=True)],
        id="IPv6-tunnel",
    ),
    pytest.param("fd00:244::40/122", [Row("up1"), Row("up0", ip_address("fd00::2").packed)], id="IPv6-device"),
]


@pytest.mark.parametrize(("cidr", "rows"), CHANGES)
def test_a_route_changes_without_a_gap(node: Node, cidr: str, rows: list[Row]) -> None:
    node.table.adopt()
    node.table.complete()
    where = destination(cidr)
    node.table.want(where, rows[0])
    node.table.flush()
    for row in (rows[1], rows[0]):
        heard = node.namespace.call(lambda: NetlinkSocket(NETLINK_ROUTE, groups=0x40 | 0x400))
        node.table.want(where, row)
        node.table.flush()
        there = 1
        for type_, body in heard.notifications():
            if readback.route(bytes(body)).destination == where[0]:
                there += 1 if type_ == rtnl.RTM_NEWROUTE else -1
                assert there > 0
        assert there == 1
        heard.close()
        assert node.table.check() == []
        assert node.namespace.ip("-4" if "." in cidr else "-6", "route", "show", "proto", "84").count(cidr) == 1


@pytest.mark.parametrize(("cidr", "rows"), CHANGES)
def test_what_took_the_place_of_a_route_that_changes_stays(node: Node, cidr: str, rows: list[Row]) -> None:
    """Nobody has heard of the theft when the route changes; afterwards ours goes first again."""
    node.table.adopt()
    node.table.complete()
    where = destination(cidr)
    family, thief = ("-4", "10.0.0.9") if "." in cidr else ("-6", "fd00::9")
    node.table.want(where, rows[0])
    node.table.flush()
    node.namespace.ip(family, "route", "replace", cidr, "via", thief, "proto", "static")
    for row in (rows[1], rows[0]):
        node.table.want(where, row)
        node.table.flush()
        assert node.table.stuck == {}
        assert f"{cidr} via {thief}" in node.namespace.ip(family, "route", "show", "proto", "static")
        [ours] = [
            line for line in node.namespace.ip(family, "route", "show", "proto", "84").splitlines() if cidr in line
        ]
        assert ("blackhole" in ours) == (row == BLACKHOLE)
        assert node.table.check() == []
        if row != BLACKHOLE:
            way = node.namespace.ip(family, "route", "get", str(ip_network(cidr)[1]))
            assert f"dev {row.device}" in way
            assert thief not in way
    node.table.want(where, None)
    node.table.flush()
    assert cidr not in node.namespace.ip(family, "route", "show", "proto", "84")
    assert f"{cidr} via {thief}" in node.namespace.ip(family, "route", "show", "proto", "static")


@pytest.mark.parametrize("held", ["10.0.0.2", "10.0.0.3"])
def test_of_two_that_a_life_left_the_wanted_one_stays(node: Node, held: str) -> None:
    for gateway in ("10.0.0.2", "10.0.0.3"):
        node.namespace.ip("route", "prepend", "10.244.0.64/26", "via", gateway, "proto", "84")
    node.table.adopt()
    node.table.want(destination("10.244.0.64/26"), via(held))
    node.table.complete()
    node.table.flush()
    assert node.namespace.ip("route", "show", "proto", "84").count("10.244.0.64/26") == 1
    assert node.ours()["10.244.0.64/26"]["gateway"] == held
    assert node.table.check() == []


class Noting:
    """A socket that notes what is asked of the kernel: whether something is added, and the prefix length."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self.asked: list[tuple[bool, int]] = []

    def transact(self, requests: list[bytes]) -> list[int]:
        self.asked += [(int.from_bytes(r[4:6], sys.byteorder) == rtnl.RTM_NEWROUTE, r[17]) for r in requests]
        return self._socket.transact(requests)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_a_summary_falls_apart_and_comes_together_without_a_gap(node: Node) -> None:
    noting = Noting(node.socket)
    table = RouteTable(noting, node.index)  # type: ignore[arg-type]
    whole, left, right = map(destination, ("10.244.0.0/25", "10.244.0.0/26", "10.244.0.64/26"))
    lent = destination("10.244.0.70/32")
    table.want(whole, via("10.0.0.2"))
    table.flush()
    noting.asked.clear()
    for where, row in ((whole, None), (left, via("10.0.0.2")), (right, via("10.0.0.3")), (lent, via("10.0.0.2"))):
        table.want(where, row)
    table.flush()
    assert noting.asked == [(True, 32), (True, 26), (True, 26), (False, 25)]
    noting.asked.clear()
    for where, row in ((lent, None), (left, None), (right, None), (whole, via("10.0.0.3"))):
        table.want(where, row)
    table.flush()
    assert noting.asked == [(True, 25), (False, 26), (False, 26), (False, 32)]
    assert node.ours().keys() == {"10.244.0.0/25"}
