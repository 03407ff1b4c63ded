"""Routers outside the cluster: what a scenario may say of them, and what they are started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tortie.lab import gobgp_hand, routers, scenario
from tortie.lab.errors import ScenarioFault
from tortie.lab.scenario import BgpRouter, External

ROUTER = BgpRouter(asn=64999, neighbours={"node1": 64512}, announces=("192.0.2.0/24",))
PLACE = routers.Place(("10.0.0.1", "fd00::1"), {"10.0.0.15": 64512, "fd00::15": 64512}, Path("/run/x"))


def read(external: str) -> scenario.Scenario:
    return scenario.read(
        f"""
name: x
nodes:
  node1: {{address: 10.0.0.15/24}}
  tor: {{address: 10.0.0.1/24, external: {external}}}
"""
    )


@pytest.mark.parametrize("kind", ["bird", "frr", "gobgp"])
def test_each_make(kind: str) -> None:
    read_ = read(f"{{{kind}: {{asn: 64999, neighbours: {{node1: 64512}}, announces: [192.0.2.0/24]}}}}")
    external = read_.nodes["tor"].external
    assert external is not None
    assert external.router == ROUTER
    assert read_.speaks_bgp
    assert routers.addresses_of(external) == ["192.0.2.1/32"]
    software = routers.software(external, PLACE)
    assert software is not None
    text = "".join(software.files.values())
    assert all(part in text for part in ("64999", "10.0.0.15", "fd00::15"))


def test_static_routes_alone() -> None:
    external = read("{routes: {10.244.0.0/16: node1}}").nodes["tor"].external
    assert external is not None
    assert routers.software(external, PLACE) is None


@pytest.mark.parametrize(
    ("external", "fault"),
    [
        ("{}", "one of bird, frr, gobgp and routes is needed"),
        ("{bird: {asn: 1}, frr: {asn: 1}}", "not bird and frr"),
        ("{bird: {asn: 1, neighbours: {nobody: 2}}}", "there is no node 'nobody'"),
        ("{routes: {10.244.0.0/16: nobody}}", "there is no node 'nobody'"),
        ("{bird: {asn: 1, announces: [192.0.2.1/24]}}", "has host bits set"),
        ("{bird: {asn: 1, announces: [192.0.2.1/32]}}", "no room"),
    ],
)
def test_what_makes_no_sense(external: str, fault: str) -> None:
    with pytest.raises(ScenarioFault, match=fault):
        read(external)


def test_the_packages_that_a_scenario_needs_are_named() -> None:
    assert External(frr=ROUTER).routers.keys() == {"frr"}


def test_best_ways_of_gobgp() -> None:
    hop = {"type": 3, "nexthop": "10.0.0.15"}
    table = {
        "10.244.0.0/26": [
            {"best": False, "neighbor-ip": "10.0.0.16", "attrs": [{"type": 3, "nexthop": "10.0.0.16"}]},
            {"best": True, "neighbor-ip": "10.0.0.15", "attrs": [{"type": 1, "value": 0}, hop]},
        ],
        "192.0.2.0/24": [{"best": True, "attrs": [{"type": 3, "nexthop": "10.0.0.1"}]}],
    }
    assert gobgp_hand.best_ways(table) == {"10.244.0.0/26": "10.0.0.15"}


def test_from_one_set_of_ways_to_another() -> None:
    held, wanted = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"}
    assert gobgp_hand.batch(held, wanted) == [
        "route replace b via 9 proto bgp",
        "route replace d via 4 proto bgp",
        "route del c via 3 proto bgp",
    ]
