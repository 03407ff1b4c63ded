"""The tunnel driver against the real kernel, and packets through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from bus_schemas.routes import vtep_mac_of
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.overlay import Overlay
from services.node_dataplane.routes import Peer, Row, destination
from services.node_dataplane.routing import RouteTable
from services.node_dataplane.tunnel import TunnelSpec
from tests.support.netns import Namespace, namespaces, ping, veth, wait_for

pytestmark = pytest.mark.root

ADDRESS = {4: "10.0.0.{}", 6: "fd00::{}"}
VTEP = {4: "10.244.{}.1", 6: "fd00:244:{}::1"}
BLOCK = {4: "10.244.{}.0/24", 6: "fd00:244:{}::/64"}
DEVICE = {4: "vxlan.tortie", 6: "vxlan6.tortie"}
NODAD: dict[int, tuple[str, ...]] = {4: (), 6: ("nodad",)}


class Node:
    def __init__(self, namespace: Namespace, number: int, family: int) -> None:
        self.namespace, self.number, self.family = namespace, number, family
        self.socket = namespace.call(lambda: NetlinkSocket(NETLINK_ROUTE))
        self.overlay = Overlay(self.socket, DEVICE[family], family)
        self.routes = RouteTable(self.socket, self.index)
        self.spec = TunnelSpec(
            family=family,
            device=DEVICE[family],
            vni=4096,
            port=4789,
            mac=vtep_mac_of(f"node{number}"),
            mtu=1430,
            local=ip_address(ADDRESS[family].format(number)).packed,
            underlay="up0",
            addresses=(VTEP[family].format(number),),
        )

    def index(self, name: str) -> int | None:
        rows = [row for row in self.json("link") if row["ifname"] == name]
        return int(rows[0]["ifindex"]) if rows else None

    def peer(self) -> Peer:
        return Peer(ip_address(self.spec.addresses[0]).packed, self.spec.mac, self.spec.local)

    def reconcile(self, spec: TunnelSpec | None, *others: Node, read_back: bool = False) -> list[str]:
        self.overlay.want(spec, [other.peer() for other in others])
        changes = self.overlay.reconcile(read_back=read_back)
        assert self.overlay.problems == []
        if "device" in changes:
            self.routes.device_changed(self.overlay.device)
        for other in others:
            row = Row(self.overlay.device, other.peer().vtep, onlink=True)
            self.routes.want(destination(BLOCK[self.family].format(other.number)), row)
        self.routes.flush()
        return changes

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        text = self.namespace.ip("-j", "-d", *arguments)
        return [row for row in json.loads(text or "[]") if row]

    def device(self) -> dict[str, Any]:
        return next(row for row in self.json("link") if row["ifname"] == self.overlay.device)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def nodes(request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    family = request.param
    with namespaces(2) as (left, right):
        mask = 24 if family == 4 else 64
        ends = (f"{ADDRESS[family].format(1)}/{mask}", f"{ADDRESS[family].format(2)}/{mask}")
        veth(left, "up0", right, "up0", addresses=ends)
        made = Node(left, 1, family), Node(right, 2, family)
        yield made
        for node in made:
            node.socket.close()


def reach(here: Node, there: Node) -> None:
    """A device that has just been made passes packets only once the kernel has announced its carrier."""
    address = there.spec.addresses[0]
    wait_for(lambda: ping(here.namespace, address, wait_s=0.2), f"{address} is reached")


def test_packets_cross_the_tunnel(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right)
    right.reconcile(right.spec, left)

    reach(left, right)
    reach(right, left)


def test_the_kernel_holds_what_was_asked(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    assert left.reconcile(left.spec, right)[0] == "device"

    device = left.device()
    data = device["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data["learning"], data["link"]) == (4096, 4789, False, "up0")
    assert (device["address"], device["mtu"]) == (left.spec.mac, 1430)
    (neighbour,) = [n for n in left.json("neigh", "show", "dev", left.overlay.device) if n["state"] == ["PERMANENT"]]
    assert (neighbour["dst"], neighbour["lladdr"]) == (right.spec.addresses[0], right.spec.mac)
    fdb = json.loads(left.namespace.run("bridge", "-j", "fdb", "show", "dev", left.overlay.device))
    assert [(row["mac"], row["dst"]) for row in fdb] == [(right.spec.mac, str(ip_address(right.spec.local)))]


def test_nothing_to_do_changes_nothing_and_a_restart_adopts(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right)
    index = left.device()["ifindex"]
    assert left.reconcile(left.spec, right, read_back=True) == []

    left.overlay = Overlay(left.socket, DEVICE[left.family], left.family)
    assert left.reconcile(left.spec, right) == []
    assert left.device()["ifindex"] == index


@pytest.mark.parametrize("change", [{"vni": 1}, {"port": 8472}])
def test_port_and_vni_change_live(nodes: tuple[Node, Node], change: dict[str, int]) -> None:
    left, right = nodes
    for node, other in ((left, right), (right, left)):
        node.reconcile(node.spec, other)
    for node, other in ((left, right), (right, left)):
        assert "device" in node.reconcile(replace(node.spec, **change), other)  # type: ignore[arg-type]

    reach(left, right)


def test_mtu_and_address_change_in_place(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right)
    index = left.device()["ifindex"]
    moved = VTEP[left.family].format(7)
    changes = left.reconcile(replace(left.spec, mtu=1280, addresses=(moved,)), right)

    assert changes == ["link settings", "address"]
    assert (left.device()["ifindex"], left.device()["mtu"]) == (index, 1280)
    addresses = left.json("address", "show", "dev", left.overlay.device)[0]["addr_info"]
    assert [a["local"] for a in addresses if a["scope"] == "global"] == [moved]


def test_peers_move_and_leave(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right)
    right.spec = replace(right.spec, local=ip_address(ADDRESS[left.family].format(9)).packed)
    assert left.reconcile(left.spec, right) == [f"forwarding entry to {ADDRESS[left.family].format(9)}"]

    left.reconcile(left.spec)
    assert not json.loads(left.namespace.run("bridge", "-j", "fdb", "show", "dev", left.overlay.device))
    left.reconcile(None)
    assert left.overlay.device not in left.namespace.ip("link")


@pytest.mark.parametrize(
    "damage",
    [
        lambda n, o: n.namespace.ip("link", "delete", n.overlay.device),
        lambda n, o: n.namespace.ip("link", "set", n.overlay.device, "down"),
        lambda n, o: n.namespace.ip("neigh", "delete", o.spec.addresses[0], "dev", n.overlay.device),
        lambda n, o: n.namespace.run(
            "bridge", "fdb", "delete", o.spec.mac, "dev", n.overlay.device, "dst", str(ip_address(o.spec.local))
        ),
        lambda n, o: n.namespace.ip("address", "flush", "dev", n.overlay.device, "scope", "global"),
    ],
    ids=["deleted", "down", "neighbour", "forwarding", "address"],
)
def test_damage_is_mended(nodes: tuple[Node, Node], damage: Any) -> None:
    left, right = nodes
    left.reconcile(left.spec, right)
    right.reconcile(right.spec, left)
    reach(left, right)
    damage(left, right)

    assert left.reconcile(left.spec, right, read_back=True)
    left.routes.check()
    assert left.reconcile(left.spec, right, read_back=True) == []
    reach(left, right)


def test_a_missing_uplink_is_a_sentence(nodes: tuple[Node, Node]) -> None:
    left, _ = nodes
    left.overlay.want(replace(left.spec, underlay="nowhere"), [])
    assert left.overlay.reconcile() == []
    assert left.overlay.problems == [f"{left.overlay.device}: the uplink nowhere is not there"]


def test_another_address_of_the_node_leaves_the_device_and_its_entries(nodes: tuple[Node, Node]) -> None:
    left, right = nodes
    left.reconcile(left.spec, right)
    right.reconcile(right.spec, left)
    reach(left, right)
    before = left.device()["ifindex"]
    other = ADDRESS[left.family].format(9)
    left.namespace.ip("address", "add", f"{other}/{24 if left.family == 4 else 64}", "dev", "up0", *NODAD[left.family])
    left.spec = replace(left.spec, local=ip_address(other).packed)
    assert left.reconcile(left.spec, right) == ["link settings"]
    assert right.reconcile(right.spec, left) != []
    assert left.device()["ifindex"] == before
    data = left.device()["linkinfo"]["info_data"]
    assert data["local" if left.family == 4 else "local6"] == other
    assert left.reconcile(left.spec, right, read_back=True) == []
    reach(left, right)
