from __future__ import annotations

import pytest

from tortie.lab import fabric, topology
from tortie.lab.errors import ScenarioFault

NODES = {"node1": ("10.0.0.15/24",), "node2": ("10.0.0.16/24",), "far1": ("10.0.9.21/24",)}


def test_a_node_has_its_address_and_a_way_out() -> None:
    plan = topology.plan("x", NODES)
    far = plan.nodes["far1"]
    assert far.netns == "tl-x-far1"
    assert far.devices == (topology.Device("eth0", ("10.0.9.21/24",)),)
    assert far.gateways == ("10.0.9.1",)


def test_the_router_has_a_bridge_for_each_subnet_with_a_port_for_each_node() -> None:
    devices = topology.plan("x", NODES).router.devices
    assert [d.addresses for d in devices if d.bridge] == [("10.0.0.1/24",), ("10.0.9.1/24",)]
    assert [d.master for d in devices if d.master] == ["subnet0", "subnet0", "subnet1"]


def test_the_gateway_is_the_first_address_that_no_node_has() -> None:
    plan = topology.plan("x", {"tor": ("10.0.0.1/24",), "node1": ("10.0.0.2/24",)})
    assert plan.nodes["tor"].gateways == ("10.0.0.3",)


def test_every_end_of_a_cable_is_a_device_of_its_host() -> None:
    plan = topology.plan("x", NODES)
    devices = {(host.netns, device.name) for host in plan.hosts for device in host.devices}
    ends = [end for cable in plan.cables for end in (cable.left, cable.right)]
    assert set(ends) <= devices
    assert len(ends) == len(set(ends))


def test_two_labs_share_no_namespace() -> None:
    one, other = topology.plan("a", NODES), topology.plan("ab", NODES)
    assert not {host.netns for host in one.hosts} & {host.netns for host in other.hosts}
    assert not any(host.netns.startswith(topology.prefix("a")) for host in other.hosts)


def test_a_node_may_be_called_router() -> None:
    plan = topology.plan("a", {"router": ("10.0.0.1/24",), "control": ("10.0.0.2/24",)})
    assert len({host.netns for host in plan.hosts}) == len(plan.hosts)


@pytest.mark.parametrize("name", ["", "A", "a-b", "a" * 17, "a/b"])
def test_names_that_no_lab_can_have(name: str) -> None:
    with pytest.raises(ScenarioFault):
        topology.plan(name, NODES)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ({"a": ("10.0.0.1/33",)}, "nodes.a.address"),
        ({"a": ("10.0.0.1/24",), "b": ("10.0.0.1/24",)}, "already a's"),
        ({"a": ("10.0.0.1/24",), "b": ("10.0.1.1/16",)}, "overlaps"),
        ({"a": ("203.0.113.9/24",)}, "overlaps"),
        ({"a": ("10.0.0.1/31",)}, "no room"),
        ({"a": ("10.0.0.1/30",), "b": ("10.0.0.2/30",)}, "no address left"),
        ({"a": ("10.0.0.1/24", "10.0.1.1/24")}, "one of each family"),
        ({"a": ("10.0.0.1/24",), "b": ("10.0.0.2/24", "fd00::2/64")}, "overlaps"),
    ],
)
def test_addresses_that_make_no_network(nodes: dict[str, tuple[str, ...]], told: str) -> None:
    with pytest.raises(ScenarioFault, match=told):
        topology.plan("x", nodes)


def test_no_end_of_a_cable_is_made_in_the_namespace_of_the_machine() -> None:
    plan = topology.plan("x", NODES)
    script = fabric.skeleton(plan.hosts, plan.cables)
    links = [line for line in script.splitlines() if line.startswith("link")]
    assert len(links) == 5
    assert all(line.count(" netns tl-x-") == 2 for line in links)


def test_the_inside_of_a_node() -> None:
    assert fabric.interior(topology.plan("x", NODES).nodes["node1"]).splitlines() == [
        "link set lo up",
        "addr add 10.0.0.15/24 dev eth0",
        "link set eth0 up",
        "route add default via 10.0.0.1",
    ]


def test_a_node_with_both_families_has_a_way_out_in_both() -> None:
    plan = topology.plan("x", {"a": ("10.0.0.2/24", "fd00::2/64"), "b": ("10.0.0.3/24", "fd00::3/64")})
    assert fabric.interior(plan.nodes["a"]).splitlines() == [
        "link set lo up",
        "addr add 10.0.0.2/24 dev eth0",
        "addr add fd00::2/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 10.0.0.1",
        "route add default via fd00::1",
    ]
    assert [d.addresses for d in plan.router.devices if d.bridge] == [("10.0.0.1/24", "fd00::1/64")]
