"""The pod link on the real kernel: what is made, that it is adopted, replaced and taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bus_schemas.ids import PodKey
from services.node_dataplane.errors import LinkError
from services.node_dataplane.gateway import NODE_MAC
from services.node_dataplane.links import PodLink, PodLinks, link_name
from services.node_dataplane.netlink import rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.nft.link_groups import LinkGroups, first_choice
from tests.support.netns import Namespace, namespaces, ping, wait_for

pytestmark = pytest.mark.root

POD = PodKey("default", "web")


def ip_json(namespace: Namespace, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(namespace.ip("-j", *arguments) or "[]")
    return [row for row in rows if row]


class Node:
    """One node with one pod's namespace; driver calls happen in the node, as they do in an agent."""

    def __init__(self, node: Namespace, pod: Namespace) -> None:
        self.node, self.pod = node, pod
        self.links = node.call(PodLinks)
        self.spec = PodLink(
            name=link_name(POD),
            interface="eth0",
            netns=pod.path,
            addresses=("10.244.0.5", "fd00:10:244::5"),
            mtu=1450,
            group=first_choice(link_name(POD)),
        )

    def ensure(self, spec: PodLink | None = None) -> Any:
        return self.node.call(lambda: self.links.ensure(spec or self.spec))

    def check(self) -> str | None:
        return self.node.call(lambda: self.links.check(self.spec))


@pytest.fixture
def node() -> Iterator[Node]:
    with namespaces(2) as (host, pod):
        made = Node(host, pod)
        yield made
        made.links.close()


def route_to(node: Node, *addresses: str) -> None:
    for address in addresses:
        node.node.ip("route", "add", address, "dev", node.spec.name)


def test_name_is_a_pure_function_of_the_pod() -> None:
    assert link_name(POD) == link_name(PodKey("default", "web"))
    assert len(link_name(PodKey("n" * 63, "p" * 253))) == 14


def test_everything_is_as_the_design_says(node: Node) -> None:
    plugged = node.ensure()

    assert plugged.created
    near = ip_json(node.node, "link", "show", node.spec.name)[0]
    assert (near["address"], near["mtu"], "UP" in near["flags"]) == (NODE_MAC, 1450, True)
    far = ip_json(node.pod, "address", "show", "eth0")[0]
    assert far["address"] == plugged.mac
    assert far["mtu"] == 1450
    assert {(a["local"], a["prefixlen"]) for a in far["addr_info"] if a["scope"] == "global"} == {
        ("10.244.0.5", 32),
        ("fd00:10:244::5", 128),
    }
    assert not any(a.get("tentative") for a in far["addr_info"] if a["scope"] == "global")
    routes = ip_json(node.pod, "route")
    assert {(r["dst"], r.get("gateway"), r.get("scope")) for r in routes} == {
        ("default", "169.254.1.1", None),
        ("169.254.1.1", None, "link"),
    }
    assert any(
        r["dst"] == "default" and r["gateway"] == "fe80::ecee:eeff:feee:eeee" for r in ip_json(node.pod, "-6", "route")
    )
    neighbours = ip_json(node.pod, "neigh")
    assert {(n["dst"], n["lladdr"], tuple(n["state"])) for n in neighbours} >= {
        ("169.254.1.1", NODE_MAC, ("PERMANENT",)),
        ("fe80::ecee:eeff:feee:eeee", NODE_MAC, ("PERMANENT",)),
    }
    assert node.node.run("cat", f"/proc/sys/net/ipv4/conf/{node.spec.name}/proxy_arp").strip() == "1"


def test_packets_pass_both_families(node: Node) -> None:
    node.ensure()
    node.node.ip("address", "add", "10.0.0.1/32", "dev", "lo")
    node.node.ip("-6", "address", "add", "fd00::1/128", "dev", "lo")
    route_to(node, "10.244.0.5", "fd00:10:244::5")

    # A link that has just been made passes packets once the kernel has announced its carrier.
    wait_for(lambda: ping(node.pod, "10.0.0.1"), "the pod reaches its node", 30.0)
    assert ping(node.node, "10.244.0.5", source="10.0.0.1")
    assert ping(node.pod, "fd00::1")
    assert ping(node.node, "fd00:10:244::5", source="fd00::1")


def test_a_correct_link_is_adopted_untouched(node: Node) -> None:
    first = node.ensure()
    second = node.ensure()

    assert not second.created
    assert (second.device, second.mac) == (first.device, first.mac)


def test_a_pod_without_ipv6_is_no_ipv6_router_of_its_node_either(node: Node) -> None:
    node.ensure(replace(node.spec, addresses=("10.244.0.5",)))
    assert node.node.run("cat", f"/proc/sys/net/ipv6/conf/{node.spec.name}/accept_ra") == "0\n"


def test_a_link_is_born_in_its_group_and_comes_back_to_it(node: Node) -> None:
    node.ensure()
    groups = LinkGroups()
    wanted = str(groups.of(node.spec.name))

    def regroup() -> list[str]:
        return node.node.call(lambda: node.links.regroup(groups.right))

    def group() -> str:
        shown = ip_json(node.node, "link", "show", node.spec.name)[0]["group"]
        assert isinstance(shown, str)
        return shown

    assert group() == wanted
    node.node.ip("link", "set", node.spec.name, "group", "0")
    assert regroup() == [node.spec.name]
    assert group() == wanted
    assert regroup() == []
    node.node.ip("link", "set", node.spec.name, "group", "0")
    assert not node.ensure().created
    assert group() == wanted


def test_an_adopted_link_loses_the_address_of_its_former_life(node: Node) -> None:
    node.ensure()
    node.ensure(replace(node.spec, addresses=("10.244.0.6",)))

    far = ip_json(node.pod, "address", "show", "eth0")[0]
    assert [a["local"] for a in far["addr_info"] if a["scope"] == "global"] == ["10.244.0.6"]


def test_a_link_to_another_pod_is_replaced(node: Node) -> None:
    node.ensure()
    with namespaces(1) as (other,):
        assert node.ensure(replace(node.spec, netns=other.path)).created
        assert ip_json(other, "link", "show", "eth0")
    assert "eth0" not in node.pod.ip("link")


def test_a_foreign_eth0_in_the_pod_is_refused_and_left_alone(node: Node) -> None:
    node.pod.ip("link", "add", "eth0", "type", "bridge")

    with pytest.raises(LinkError, match="already has a device eth0"):
        node.ensure()
    assert ip_json(node.pod, "-d", "link", "show", "eth0")[0]["linkinfo"]["info_kind"] == "bridge"


def test_missing_namespace_is_a_sentence(node: Node) -> None:
    with pytest.raises(LinkError, match="cannot open the pod's network namespace /nowhere"):
        node.ensure(replace(node.spec, netns="/nowhere"))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda n: n.node.ip("link", "delete", n.spec.name), "gone from the node"),
        (lambda n: n.node.ip("link", "set", n.spec.name, "down"), "is down"),
        (lambda n: n.pod.ip("address", "delete", "10.244.0.5/32", "dev", "eth0"), "lost its address 10.244.0.5"),
        (lambda n: n.pod.ip("route", "delete", "default"), "lost its default route by 169.254.1.1"),
        (lambda n: n.pod.ip("link", "set", "eth0", "down"), "eth0 in the pod is down"),
    ],
)
def test_check_names_what_is_wrong(node: Node, damage: Any, complaint: str) -> None:
    node.ensure()
    assert node.check() is None
    damage(node)
    assert complaint in (node.check() or "")


def test_many_are_removed_together_and_only_they(node: Node) -> None:
    node.ensure()
    with namespaces(3) as pods:
        names = []
        for number, pod in enumerate(pods):
            name = link_name(PodKey("many", str(number)))
            node.ensure(PodLink(name, "eth0", pod.path, (f"10.244.1.{number}",), 1500, first_choice(name)))
            names.append(name)
        assert set(node.node.call(node.links.present)) == {node.spec.name, *names}

        node.links.remove([*names, "tornothere"])
        assert set(node.node.call(node.links.present)) == {node.spec.name}
        node.links.remove(names)


def test_refusals_are_errno_per_message(node: Node) -> None:
    with node.node.inside(), NetlinkSocket(NETLINK_ROUTE) as socket:
        outcome = socket.transact(
            [
                rtnl.route(bytes((10, 1, 0, 0)), 16, blackhole=True),
                rtnl.route(bytes((10, 1, 0, 0)), 16, blackhole=True),
                rtnl.route_delete(bytes((10, 2, 0, 0)), 16),
                rtnl.route_delete(bytes((10, 1, 0, 0)), 16, blackhole=True),
            ]
        )
    assert outcome == [0, 17, 3, 0]
