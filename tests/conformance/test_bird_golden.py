"""Calico's golden BIRD configurations, by meaning: who speaks with whom and how, what is announced, what the filters
do to synthetic routes.

Each case goes all the way: manifests -> core -> record -> text. Sessions and statics are read back from the text, which
a real BIRD must take; filters are judged by walking what the text is printed from (tests/bird has a real BIRD judge
that the printed filters mean the same).

Where we differ on purpose, a row of `DELIBERATE` says why, and what we do there is asserted all the same.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.bgp import Session, Speaker
from services.node_dataplane.bird import filters
from services.node_dataplane.bird.language import Call, Function, Statement
from services.node_dataplane.bird.naming import protocol_of
from services.node_dataplane.bird.render import render
from tests.support import bird_golden
from tests.support.bird_evaluator import Announcement, decide
from tests.support.bird_golden import World, announcement
from tests.support.manifests_conformance import Case, cases, conformance_directory, table

BIRD = shutil.which("bird") or shutil.which("bird", path="/usr/sbin")

DELIBERATE = {
    "foreign device": "bpfin.cali is a device of Calico's eBPF dataplane, which does not exist here",
    "blackhole": "the agent programmes the blackholes of the node's blocks itself, so BIRD does not",
    "tunnel": "a stock BIRD cannot programme routes into tunnels (krt_tunnel is a patch of Calico's): the agent does, "
    "whatever programClusterRoutes says, and what leads into tunl0 is never announced inside the AS",
    "single block": "Calico learns the route of a block of one address from the kernel; we learn none of the agent's "
    "routes, so it is a static route as any other block",
    "no password": "a session whose password is missing is disabled, Calico's tries without one",
}
"""Differences that are meant."""

BY_BIRD_IN_CALICO = ("Enabled", "EnabledIPIPOnly")
"""Of programClusterRoutes: BIRD programmes the routes into tunl0 there."""

IGNORED_CHANGES = {
    "krt_metric of peers": "a kernel's metric does not travel in BGP",
    "krt_tunnel": DELIBERATE["tunnel"],
    "preference": "set in a kernel's export filter it changes nothing: the best route is already chosen",
}


def golden(name: str) -> list[Any]:
    return cases("bird_golden.json", lambda case: name in case)


@pytest.fixture
def world(case: Case) -> World:
    return World(case)


FAMILIES = (("v4", 4), ("v6", 6))
ALL = cases("bird_golden.json")


@pytest.mark.parametrize("case", ALL)
def test_sessions(case: Case, world: World) -> None:
    speaker = world.speaker()
    text = render(speaker, world.secrets)
    ours = bird_golden.sessions(text)
    for name, family in FAMILIES:
        expected = case["expected"][name]
        theirs = {(peer["neighbor"], peer.get("port")): _meant(peer) for peer in expected["peers"]}
        of_family = {key: value for key, value in ours.items() if (":" in key[0]) == (family == 6)}
        listening = {session.pop("listen_port") for session in of_family.values()}
        assert {key: _meant(session) for key, session in of_family.items()} == theirs
        assert listening <= {expected["listen_port"] or 179}
    assert speaker.router_id == case["expected"]["v4"]["router_id"] == case["expected"]["v6"]["router_id"]


def _meant(session: Mapping[str, Any]) -> dict[str, Any]:
    """Without names of filters and protocols."""
    gone = {"name", "filters_import", "filters_export", "import_filter", "export_filter"}
    return {key: value for key, value in session.items() if key not in gone}


@pytest.mark.parametrize("case", ALL)
def test_statics_and_interfaces(case: Case, world: World) -> None:
    text = render(world.speaker(), world.secrets)
    for name, family in FAMILIES:
        expected = {(route["net"], route["via"]) for route in case["expected"][name]["static_routes"]}
        ours = {route for route in bird_golden.statics(text) if (":" in route[0]) == (family == 6)}
        single_blocks = {(net, via) for net, via in ours - expected if net.endswith(("/32", "/128"))}
        assert ours - single_blocks == expected  # DELIBERATE["single block"]
        assert case["expected"][name]["direct_interfaces"] == ["-cali*", "-kube-ipvs*", "*"]
    assert all(pattern in text for pattern in ('-"tor*"', '-"kube-ipvs*"', '"*";'))


@pytest.mark.parametrize("case", ALL)
def test_filters(case: Case, world: World) -> None:
    speaker = world.speaker()
    judged = 0
    for name, family in FAMILIES:
        expected = case["expected"][name]
        functions = {function.name: function for function in filters.functions(speaker, family)}
        sessions = {(s.neighbour, s.port or None): s for s in speaker.sessions}
        for peer in expected["peers"]:
            session = sessions[peer["neighbor"], peer.get("port")]
            for way in ("import", "export"):
                judged += _judge_peer(
                    speaker, session, functions, expected, way, expected["route_filters"][peer[f"{way}_filter"]]
                )
        judged += _judge_kernel(speaker, functions, expected, family)
    assert judged


def _judge_peer(
    speaker: Speaker,
    session: Session,
    functions: Mapping[str, Function],
    expected: Mapping[str, Any],
    way: str,
    golden: Mapping[str, Any],
) -> int:
    statements = (filters.import_filter if way == "import" else filters.export_filter)(speaker, session)
    judged = 0
    for i, synthetic in enumerate(expected["routes"]):
        if _is_foreign(synthetic):
            continue  # DELIBERATE["foreign device"]
        route = announcement(synthetic)
        verdict, after = decide(statements, route, functions)
        place = (protocol_of(session), way, synthetic)
        if (
            way == "export"
            and route.ifname == "tunl0"
            and speaker.cluster_routes in BY_BIRD_IN_CALICO
            and verdict == "reject"
        ):
            judged += 1
            continue  # DELIBERATE["tunnel"]
        assert (verdict == "accept") is (golden["verdicts"][i] == "A"), place
        if verdict == "accept":
            changes = golden["changes_on_accept"].get(str(i), {})
            assert _changes(route, after) == _bgp(changes), place
        judged += 1
    return judged


def _judge_kernel(speaker: Speaker, functions: Mapping[str, Function], expected: Mapping[str, Any], family: int) -> int:
    golden = expected["route_filters"][expected["kernel_filter"]]
    statements: tuple[Statement, ...] = (Call(filters.program(family)),)
    for i, synthetic in enumerate(expected["routes"]):
        route = announcement(synthetic)
        verdict, after = decide(statements, route, functions)
        changes = golden["changes_on_accept"].get(str(i), {})
        if route.blackhole:  # DELIBERATE["blackhole"]
            assert verdict == "reject", synthetic
            continue
        if "krt_tunnel" in changes or _is_tunnelled(speaker, route):  # DELIBERATE["tunnel"]
            assert verdict == "reject", synthetic
            continue
        assert (verdict == "accept") is (golden["verdicts"][i] == "A"), synthetic
        if verdict == "accept":
            metric = after.numbers.get("krt_metric")
            assert metric == changes.get("krt_metric", route.numbers.get("krt_metric")), synthetic
    return len(expected["routes"])


def _is_foreign(synthetic: Mapping[str, Any]) -> bool:
    return bool(synthetic.get("ifname") == "bpfin.cali")


def _is_tunnelled(speaker: Speaker, route: Announcement) -> bool:
    functions: dict[str, Function] = {}
    return any(
        decide((filters.If(filters.Inside(pool.cidr), (filters.Reject(),)),), route, functions)[0] == "reject"
        for pool in speaker.pools
        if pool.encapsulation != "none" and pool.cidr.count(":") == min(pool.cidr.count(":"), route.net.count(":"))
    )


def _changes(before: Announcement, after: Announcement) -> dict[str, Any]:
    found: dict[str, Any] = {}
    preference = after.numbers.get("bgp_local_pref")
    if preference != before.numbers.get("bgp_local_pref"):
        found["bgp_local_pref"] = preference
    if after.path != before.path:
        found["bgp_path"] = after.path
    if added := after.communities - before.communities:
        found["communities"] = added
    return found


def _bgp(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Without what IGNORED_CHANGES names."""
    found = {key: changes[key] for key in ("bgp_local_pref",) if key in changes}
    if "bgp_path" in changes:
        found["bgp_path"] = tuple(changes["bgp_path"])
    communities = [*changes.get("bgp_community", ()), *changes.get("bgp_large_community", ())]
    if communities:
        found["communities"] = frozenset(map(tuple, communities))
    assert changes.keys() <= {
        "bgp_local_pref",
        "bgp_path",
        "bgp_community",
        "bgp_large_community",
        "krt_metric",
        "krt_tunnel",
        "preference",
    }
    return found


@pytest.mark.parametrize("case", ALL)
def test_changes_end_where_a_fresh_start_does(case: Case, world: World) -> None:
    assert world.speaker() == world.rebuilt()


@pytest.mark.skipif(BIRD is None, reason="no bird on this machine (Debian: bird2)")
@pytest.mark.parametrize("case", ALL)
def test_bird_takes_it(case: Case, world: World, tmp_path: Path) -> None:
    path = tmp_path / "bird.conf"
    path.write_text(render(world.speaker(), world.secrets))
    assert BIRD is not None
    done = subprocess.run([BIRD, "-p", "-c", str(path)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def _counts() -> list[Any]:
    if not (conformance_directory() / "bird_golden.json").is_file():
        return ALL
    return [pytest.param(case, id=case["id"]) for case in table("bird_golden.json")["peer_count_cases"]]


@pytest.mark.parametrize("case", _counts())
def test_numbers_of_sessions(case: Case) -> None:
    world = World({**case, "changes": []})
    assert len(world.speaker().sessions) == case["expected_v4_peerings"]
    for text in case["changes"]:
        world.change(text)
    after = case.get("expected_v4_peerings_after_changes", case["expected_v4_peerings"])
    assert len(world.speaker().sessions) == after
    assert world.speaker() == world.rebuilt()
