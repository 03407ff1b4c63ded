"""Who speaks with whom, and what a change rewrites."""

from __future__ import annotations

import pytest

from bus_schemas.bgp import Advertisement, Mesh, Origin, PoolExport, Secret, SessionOptions, Workloads, waits
from bus_schemas.resources.bgp import (
    BGPPassword,
    Community,
    FilterRule,
    PrefixAdvertisement,
    SecretKeyRef,
    ServiceBlock,
)
from tests.support.expanders import gone
from tests.support.routes import pool
from tests.support.speakers import Told, bgp_filter, configuration, peer, speaking

A, B, C = (
    speaking("a", "10.0.0.1/24", "fd00::1/64"),
    speaking("b", "10.0.0.2/24", "fd00::2/64"),
    speaking("c", "10.0.0.3/24"),
)
RULE = FilterRule(action="Reject")


def test_without_configuration_and_peers_nobody_speaks() -> None:
    told = Told(A, B)
    assert (told.speakers, told.members) == ({}, {})


def test_the_mesh_is_told_once() -> None:
    told = Told(A, B, C, configuration())
    assert told.neighbours("a") == ["10.0.0.2", "10.0.0.3", "fd00::2"]
    assert told.tell(speaking("c", "10.0.0.33/24")) == {"c", "mesh/c"}
    assert told.neighbours("a") == ["10.0.0.2", "10.0.0.33", "fd00::2"]
    assert told.tell(gone(C)) == {"c", "mesh/c"}


def test_a_session_of_the_mesh_has_one_end_that_calls() -> None:
    told = Told(A, B, configuration())
    (ours, *_), (theirs, *_) = told.whole("a").sessions, told.whole("b").sessions
    assert (ours.passive, theirs.passive) == (True, False)
    assert waits("10.0.0.2", "10.0.0.10")


def test_reflectors_are_no_part_of_the_mesh() -> None:
    told = Told(A, B, speaking("r", "10.0.0.9/24", cluster="1.1.1.1"), configuration())
    assert told.members.keys() == {"a", "b"}
    assert "r" not in told.speakers


def test_a_reflector_has_sessions_back_to_whom_it_serves() -> None:
    told = Told(
        A,
        B,
        speaking("r", "10.0.0.9/24", labels={"rr": ""}, cluster="1.1.1.1"),
        configuration(node_to_node_mesh_enabled=False),
        peer("rrs", node_selector="!has(rr)", peer_selector="has(rr)", filters=("f",)),
        bgp_filter("f", import_v4=(RULE,)),
    )
    (up,) = told.whole("a").sessions
    assert (up.neighbour, up.rr_client, up.origin) == ("10.0.0.9", False, Origin.NODE)
    down = told.whole("r").sessions
    assert [(s.neighbour, s.rr_client, s.origin) for s in down] == [
        ("10.0.0.1", True, Origin.NODE),
        ("10.0.0.2", True, Origin.NODE),
    ]
    assert [one.name for one in told.whole("r").filters] == ["f"]
    assert told.tell(speaking("b", "10.0.0.22/24")) == {"r", "b"}, "a does not speak with b"
    manual = peer("rrs", node_selector="!has(rr)", peer_selector="has(rr)", reverse_peering="Manual")
    told.tell(manual)
    assert "r" not in told.speakers


def test_a_peer_is_for_all_for_one_or_for_some() -> None:
    told = Told(
        A,
        B,
        speaking("c", "10.0.0.3/24", labels={"rack": "1"}),
        configuration(node_to_node_mesh_enabled=False),
        peer("all", peer_ip="192.0.2.1", as_number=65001),
        peer("one", node="a", peer_ip="192.0.2.2:180", as_number=65002),
        peer("some", node_selector="rack == '1'", peer_ip="192.0.2.3", as_number=65003),
        peer("six", peer_ip="fd00:1::1", as_number=65004),
    )
    found = {
        name: [(s.neighbour, s.port, s.remote_as, s.origin.value) for s in told.whole(name).sessions] for name in "abc"
    }
    assert found == {
        "a": [
            ("192.0.2.1", 0, 65001, "global"),
            ("192.0.2.2", 180, 65002, "node"),
            ("fd00:1::1", 0, 65004, "global"),
        ],
        "b": [("192.0.2.1", 0, 65001, "global"), ("fd00:1::1", 0, 65004, "global")],
        "c": [("192.0.2.1", 0, 65001, "global"), ("192.0.2.3", 0, 65003, "node")],
    }


def test_what_is_asked_for_goes_before_the_mesh() -> None:
    told = Told(A, B, configuration(), peer("b", node="a", peer_ip="10.0.0.2", ttl_security=1))
    session = next(s for s in told.whole("a").sessions if s.neighbour == "10.0.0.2")
    assert (session.origin, session.options.ttl_security) == (Origin.NODE, 1)


def test_every_option_of_a_peer() -> None:
    told = Told(
        A,
        configuration(as_number=64600),
        peer(
            "tor",
            peer_ip="192.0.2.1",
            as_number=65001,
            local_as_number=64999,
            next_hop_mode="Self",
            password=BGPPassword(secret_key_ref=SecretKeyRef(name="bgp", key="tor")),
            source_address="None",
            max_restart_time="1m30s",
            keepalive_time="1500ms",
            num_allowed_local_as_numbers=2,
            ttl_security=3,
            reachable_by="10.0.0.254",
            filters=("missing", "here"),
        ),
        bgp_filter("here", export_v4=(RULE,)),
    )
    record = told.speakers["a"]
    (session,) = record.sessions
    assert (session.via, record.local_as(session.options), record.as_number) == ("10.0.0.254", 64999, 64600)
    assert session.options == SessionOptions(
        local_as=64999,
        source=False,
        ttl_security=3,
        next_hop="self",
        password=Secret(name="bgp", key="tor"),
        keepalive_s=2,
        restart_s=90,
        allowed_own_as=2,
        filters=("missing", "here"),
    )
    assert [one.name for one in record.filters] == ["here"]


def test_pods_are_left_to_the_agent() -> None:
    told = Told(
        A,
        configuration(node_to_node_mesh_enabled=False, local_workload_peering_ipv4="169.254.1.2"),
        peer("pods", node="a", local_workload_selector="app == 'bird'", as_number=65001),
    )
    record = told.speakers["a"]
    assert record.workloads == (Workloads(peer="pods", selector="app == 'bird'", remote_as=65001),)
    assert record.workload_address4 == "169.254.1.2"


def test_a_node_may_have_settings_of_its_own() -> None:
    told = Told(
        A,
        B,
        configuration(listen_port=180, log_severity_screen="Error", program_cluster_routes="Disabled"),
        configuration("node.b", listen_port=181, bind_mode="NodeIP"),
    )
    a, b = told.speakers["a"], told.speakers["b"]
    assert (a.listen_port, a.bind_node_address, a.log_level) == (180, False, "Error")
    assert (b.listen_port, b.bind_node_address, b.log_level) == (181, True, "Error")
    assert [session.port for session in told.whole("a").sessions] == [181, 181]
    assert a.cluster_routes == "Disabled"
    assert told.tell(gone(configuration("node.b"))) == {"b", "mesh/b"}


def test_what_is_announced() -> None:
    told = Told(
        A,
        speaking("b", "10.0.0.2/24", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""}),
        pool("vx", "10.245.0.0/16", vxlan="Always"),
        pool("plain", "10.244.0.0/16"),
        configuration(
            communities=(Community(name="ours", value="64512:1"),),
            prefix_advertisements=(PrefixAdvertisement(cidr="10.244.0.0/16", communities=("ours", "64512:1:2")),),
            service_cluster_ips=(ServiceBlock(cidr="10.96.0.0/12"),),
            service_external_ips=(ServiceBlock(cidr="192.0.2.5"),),
        ),
    )
    assert told.lead("10.244.1.0/26", "a") == {"a"}
    assert told.lead("10.244.1.9/32", "b", borrowed=True) == {"b"}
    a, b = told.speakers["a"], told.speakers["b"]
    assert (a.blocks, a.singles, b.blocks, b.singles) == (("10.244.1.0/26",), (), (), ("10.244.1.9/32",))
    assert (a.services, b.services) == (("10.96.0.0/12",), ())
    assert a.advertisements == (Advertisement(cidr="10.244.0.0/16", communities=("64512:1", "64512:1:2")),)
    assert a.pools == (
        PoolExport(cidr="10.244.0.0/16"),
        PoolExport(cidr="10.245.0.0/16", encapsulation="vxlan", mode="Always"),
    )
    assert told.lead("10.244.1.0/26", None) == {"a"}


def test_a_change_rewrites_what_it_can_matter_to() -> None:
    told = Told(
        A,
        B,
        speaking("c", "10.0.0.3/24", labels={"rack": "1"}),
        configuration(),
        peer("some", node_selector="rack == '1'", peer_ip="192.0.2.3", as_number=65003, filters=("f",)),
    )
    assert told.tell(A, configuration()) == set()
    assert told.tell(bgp_filter("f", import_v4=(RULE,))) == {"c"}
    assert told.tell(bgp_filter("other", import_v4=(RULE,))) == set()
    assert told.tell(speaking("c", "10.0.0.3/24", labels={"rack": "1", "x": ""})) == set()
    assert told.tell(speaking("c", "10.0.0.3/24")) == {"c"}
    assert told.tell(pool("p", "10.244.0.0/16")) == {"a", "b", "c"}


@pytest.mark.parametrize(("name", "on"), [("default", True), ("node.a", False), ("other", False)])
def test_what_turns_it_on(name: str, on: bool) -> None:
    told = Told(A, configuration(name))
    assert bool(told.speakers) is on


def test_a_peer_alone_turns_it_on_with_the_mesh() -> None:
    told = Told(A, B, peer("tor", node="a", peer_ip="192.0.2.1", as_number=65001))
    assert told.speakers["b"].mesh == Mesh()
    told.tell(gone(peer("tor")))
    assert (told.speakers, told.members) == ({}, {})


@pytest.mark.parametrize(("address", "reached"), [("fe80::1", False), ("nonsense", False), ("fd00::ffff", True)])
def test_a_peer_that_cannot_be_reached_breaks_nothing(address: str, reached: bool) -> None:
    told = Told(A, configuration(node_to_node_mesh_enabled=False), peer("odd", peer_ip=address, as_number=65001))
    assert bool(told.speakers) is reached


@pytest.mark.parametrize(("other", "client"), [("1.1.1.1", False), ("2.2.2.2", True)])
def test_reflectors_of_one_cluster_are_not_each_others_clients(other: str, client: bool) -> None:
    told = Told(
        speaking("r1", "10.0.0.8/24", labels={"rr": ""}, cluster="1.1.1.1"),
        speaking("r2", "10.0.0.9/24", labels={"rr": ""}, cluster=other),
        configuration(),
        peer("rrs", node_selector="has(rr)", peer_selector="has(rr)"),
    )
    assert [(s.neighbour, s.rr_client) for s in told.whole("r1").sessions] == [("10.0.0.9", client)]


def test_a_filter_that_does_not_exist_is_told() -> None:
    told = Told(A, configuration(), peer("tor", peer_ip="192.0.2.1", as_number=65001, filters=("f", "g")))
    assert told.troubles == {"tor/f", "tor/g"}
    told.tell(bgp_filter("f", import_v4=(RULE,)))
    assert told.troubles == {"tor/g"}
    told.tell(gone(peer("tor")))
    assert told.troubles == set()
