"""What others do to our routes, neighbours, forwarding entries and tunnels is heard of by name and put right, without
touching what is theirs, and without a fight that never ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.routes import vtep_mac_of
from services.node_dataplane.contention import FREE
from services.node_dataplane.core import Desired
from services.node_dataplane.fabric import Fabric
from services.node_dataplane.monitor import Heard, Monitor
from services.node_dataplane.routes import BLACKHOLE, SPARE, Peer, Row, destination
from services.node_dataplane.tunnel import TunnelSpec
from tests.support.netns import Namespace, links, namespaces

pytestmark = pytest.mark.root

V4, V6, FAR, OWN = "10.244.0.64/26", "fd00:244::40/122", "10.244.0.128/26", "10.244.0.0/26"
MAC = vtep_mac_of("node2")


class Node:
    """A fabric with every kind of row, and the monitor beside it."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        namespace.ip("link", "add", "up0", "type", "bridge")
        namespace.ip("address", "add", "10.0.0.1/24", "dev", "up0")
        namespace.ip("link", "set", "up0", "up")
        namespace.ip("-6", "address", "add", "fd00::1/64", "dev", "up0", "nodad")
        self.now = 0.0
        self.told: list[tuple[str, str, str]] = []
        self.fabric = namespace.call(lambda: Fabric("auto", directory))
        self.fabric.repairs.now = lambda: self.now
        self.monitor = namespace.call(lambda: Monitor([self.fabric.socket.port]))
        local, vtep = ip_address("10.0.0.1").packed, ip_address("10.244.0.129").packed
        device = "vxlan.tortie"
        spec = TunnelSpec(4, device, 4096, 4789, vtep_mac_of("node1"), 1450, local, "up0", ("10.244.0.1",))
        self.desired = Desired(
            rows={
                destination(OWN): BLACKHOLE,
                destination(V4): Row("up0", ip_address("10.0.0.2").packed),
                destination("10.244.3.0/26"): Row("up0", ip_address("10.0.0.2").packed, metric=SPARE),
                destination(FAR): Row(device, vtep, onlink=True),
                destination(V6): Row("up0", ip_address("fd00::2").packed),
                destination("fd00:244::80/122"): BLACKHOLE,
            },
            tunnels={device: spec},
            peers={device: frozenset({Peer(vtep, MAC, ip_address("10.0.0.2").packed)})},
        )
        namespace.call(lambda: self.fabric.apply(self.desired))
        self.heard()

    def heard(self) -> Heard:
        heard = Heard()
        self.monitor.drain(heard)
        return heard

    def mend(self) -> int:
        """What was heard of since; how many things that were."""
        heard = self.heard()
        return self.namespace.call(lambda: self.fabric.mend(heard, lambda *event: self.told.append(event)))

    def check(self) -> int:
        return self.namespace.call(lambda: self.fabric.check(lambda *event: self.told.append(event)))

    def ours(self) -> set[tuple[Any, ...]]:
        return {
            (row["dst"], row.get("gateway"), row.get("dev"), row.get("metric"), row.get("type"))
            for family in ("-4", "-6")
            for row in json.loads(self.namespace.ip("-j", family, "route", "show", "proto", "84") or "[]")
        }

    def entries(self) -> set[tuple[Any, ...]]:
        if "vxlan.tortie" not in links(self.namespace):
            return set()
        neighbours = json.loads(self.namespace.ip("-j", "neigh", "show", "dev", "vxlan.tortie"))
        fdb = json.loads(self.namespace.run("bridge", "-j", "fdb", "show", "dev", "vxlan.tortie"))
        return {(row["dst"], row.get("lladdr", row.get("mac"))) for row in (*neighbours, *fdb) if row.get("dst")}

    def way(self, address: str) -> str:
        return self.namespace.ip("route", "get", address)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with namespaces(1) as (namespace,):
        made = Node(namespace, tmp_path)
        yield made
        made.monitor.close()
        made.fabric.close()


def test_nothing_of_our_own_doing_is_taken_for_somebody_elses(node: Node) -> None:
    row = Row("up0", ip_address("10.0.0.3").packed)
    node.fabric.routes.want(destination(V4), row)
    node.fabric.routes.want(destination(V6), None)
    node.namespace.call(node.fabric.flush)
    assert not node.heard().names_something
    assert node.mend() == 0
    assert node.told == []


@pytest.mark.parametrize(
    "damage",
    [
        ("route", "delete", V4),
        ("route", "delete", "blackhole", OWN),
        ("route", "delete", "10.244.3.0/26"),
        ("route", "delete", FAR),
        ("-6", "route", "delete", V6),
        ("-6", "route", "delete", "blackhole", "fd00:244::80/122"),
        ("route", "flush", "proto", "84"),
        ("-6", "route", "flush", "proto", "84"),
        ("neigh", "flush", "dev", "vxlan.tortie", "nud", "permanent"),
        ("neigh", "replace", "10.244.0.129", "lladdr", "02:00:00:00:00:09", "dev", "vxlan.tortie", "nud", "permanent"),
        ("link", "delete", "vxlan.tortie"),
        ("link", "set", "vxlan.tortie", "down"),
        ("address", "flush", "dev", "vxlan.tortie"),
    ],
    ids=" ".join,
)
def test_what_was_deleted_is_back(node: Node, damage: tuple[str, ...]) -> None:
    routes, entries = node.ours(), node.entries()
    node.namespace.ip(*damage)
    assert (node.ours(), node.entries()) != (routes, entries)
    assert node.mend() >= 1
    assert (node.ours(), node.entries()) == (routes, entries)
    assert {what for what, *_ in node.told} == {"repaired"}
    assert node.mend() == 0
    assert node.check() == 0


@pytest.mark.parametrize("verb", ["delete", "replace"])
def test_a_forwarding_entry_is_back(node: Node, verb: str) -> None:
    entries = node.entries()
    remote = "10.0.0.2" if verb == "delete" else "10.0.0.9"
    node.namespace.run("bridge", "fdb", verb, MAC, "dev", "vxlan.tortie", "dst", remote)
    assert node.entries() != entries
    assert node.mend() == 1
    assert node.entries() == entries
    assert node.check() == 0


@pytest.mark.parametrize(
    ("theft", "address", "our_way"),
    [
        (("route", "replace", V4, "via", "10.0.0.9", "proto", "bird"), "10.244.0.65", "via 10.0.0.2"),
        (("route", "prepend", V4, "via", "10.0.0.9", "proto", "static"), "10.244.0.65", "via 10.0.0.2"),
        (("route", "replace", "blackhole", V4, "proto", "static"), "10.244.0.65", "via 10.0.0.2"),
        (("route", "replace", FAR, "via", "10.0.0.9", "proto", "static"), "10.244.0.130", "dev vxlan.tortie"),
        (("-6", "route", "replace", V6, "via", "fd00::9", "proto", "static"), "fd00:244::41", "via fd00::2"),
        (("-6", "route", "append", V6, "via", "fd00::9", "proto", "static"), "fd00:244::41", "via fd00::2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_stolen_route_is_back_before_the_thiefs_which_stays(
    node: Node, theft: tuple[str, ...], address: str, our_way: str
) -> None:
    ours = {dst for dst, *_ in node.ours()}
    node.namespace.ip(*theft)
    assert node.mend() == 1
    assert our_way in node.way(address)
    assert {dst for dst, *_ in node.ours()} == ours
    cidr = next(word for word in theft if "/" in word)
    protocol = theft[-1]
    assert f"proto {protocol}" in node.namespace.ip(*theft[:1], "show", cidr) if theft[0] != "-6" else True
    if theft[0] == "-6":
        assert "proto static" in node.namespace.ip("-6", "route", "show", cidr)
    [(what, object_, message)] = node.told
    assert (what, object_) == ("repaired", cidr)
    assert "protocol" in message
    assert "route show" in message
    assert node.check() == 0
    assert node.mend() == 0
    # It changes and goes like any other, and a restarted agent knows it.
    node.namespace.call(lambda: Fabric.adopt(node.fabric))
    node.namespace.call(node.fabric.flush)
    assert our_way in node.way(address)
    node.fabric.routes.want(destination(cidr), None)
    node.namespace.call(node.fabric.flush)
    assert cidr not in {dst for dst, *_ in node.ours()}
    assert f"proto {protocol}" in node.namespace.ip("-6" if ":" in cidr else "-4", "route", "show", cidr)


def test_a_theft_that_nobody_heard_of_is_found_by_reading_back(node: Node) -> None:
    node.namespace.ip("route", "replace", V4, "via", "10.0.0.9", "proto", "static")
    node.namespace.ip("-6", "route", "replace", V6, "via", "fd00::9", "proto", "static")
    assert node.check() == 2
    assert "via 10.0.0.2" in node.way("10.244.0.65")
    assert "via fd00::2" in node.way("fd00:244::41")
    assert node.check() == 0


def test_an_uplink_that_was_down_has_its_routes_again(node: Node) -> None:
    routes = node.ours()
    node.namespace.ip("link", "set", "up0", "down")
    node.mend()
    node.namespace.ip("link", "set", "up0", "up")
    node.namespace.ip("-6", "address", "add", "fd00::1/64", "dev", "up0", "nodad")
    node.mend()
    node.check()
    assert node.ours() == routes


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        (V4, ("route", "delete", V4, "proto", "84")),
        (V4, ("route", "replace", V4, "via", "10.0.0.9{}", "proto", "static")),
        (V6, ("-6", "route", "delete", V6, "proto", "84")),
        ("vxlan.tortie", ("neigh", "delete", "10.244.0.129", "dev", "vxlan.tortie")),
        ("vxlan.tortie", ("link", "delete", "vxlan.tortie")),
    ],
    ids=["deleted", "stolen", "ipv6", "neighbour", "device"],
)
def test_a_fight_is_left_off_told_and_taken_up_again(node: Node, key: str, damage: tuple[str, ...]) -> None:
    routes, entries = node.ours(), node.entries()

    def whole() -> bool:
        return (node.ours(), node.entries()) == (routes, entries)

    for round_ in range(FREE):
        node.namespace.ip(*(word.format(round_) for word in damage))
        assert node.mend() >= 1, round_
    assert whole()
    assert [object_ for what, object_, _ in node.told if what == "contested"] == [key]
    assert any(key in phrase for phrase in node.fabric.repairs.contested)

    node.namespace.ip(*(word.format(9) for word in damage))
    assert node.mend() == 0
    assert node.check() == 0
    assert not whole()
    assert any("keeps taking it away" in problem for problem in node.fabric.problems)
    rest_s = max(rest for rest in node.fabric.repairs._contention.contested().values())
    node.now += rest_s
    assert node.check() >= 1
    assert whole()
    assert not node.fabric.problems
    node.now += 1000.0
    node.check()
    assert [object_ for what, object_, _ in node.told if what == "settled"] == [key]


def test_thousands_are_back_together(node: Node) -> None:
    cidrs = [f"10.{100 + n // 256}.{n % 256}.0/26" for n in range(2000)]
    for cidr in cidrs:
        node.fabric.routes.want(destination(cidr), Row("up0", ip_address("10.0.0.2").packed))
    node.namespace.call(node.fabric.flush)
    node.heard()
    routes = node.ours()
    node.namespace.ip("route", "flush", "proto", "84")
    begun = time.perf_counter()
    mended = node.mend()
    print(f"{mended} routes back in {time.perf_counter() - begun:.3f} s after they were heard of")
    assert node.ours() == routes
    assert len(node.told) < 50


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_monitor_knows_devices_that_were_there_before_it(node: Node, when: str) -> None:
    """A restarted agent adopts its tunnel: nobody announces it."""
    late: Callable[[], Monitor] = lambda: Monitor([node.fabric.socket.port])  # noqa: E731
    if when == "after":
        node.monitor.close()
        node.monitor = node.namespace.call(late)
    node.namespace.ip("neigh", "delete", "10.244.0.129", "dev", "vxlan.tortie")
    assert node.mend() == 1
