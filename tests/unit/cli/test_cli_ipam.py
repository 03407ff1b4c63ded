"""What `tortie ipam` prints, word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus_schemas.ipam_check import Kind, check
from bus_schemas.subjects import ENDPOINT
from services.api import ipam_views as views
from services.api.core import Core
from tests.support.ipam_records import NOW, World, block, endpoint, handle, reservation, sound, with_address
from tortie.cli import ipam_check, ipam_release, ipam_show
from tortie.cli.errors import Misused


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tortie.cli.ipam_show.moment", lambda unix: f"<{unix:.0f}>")


def core_of(world: World) -> Core:
    core = Core()
    for fact in world.facts.values():
        core.apply(fact)
    return core


def plain(value: Any) -> Any:
    """As it comes out of the api."""
    return json.loads(msgspec.json.encode(value))


def test_totals() -> None:
    world = sound().put(reservation("10.244.0.0/26"), block("10.9.0.0/26", node=None, pool="gone"))
    report = plain(views.usage(core_of(world), NOW))
    assert ipam_show.usage(report, show_blocks=False).splitlines() == [
        "GROUPING   CIDR            IPS TOTAL   IPS IN USE   IPS RESERVED   IPS FREE",
        "IP Pool    10.244.0.0/16   65536       2 (0%)       64 (0%)        65470 (100%)",
    ]
    assert ipam_show.usage(report, show_blocks=True).splitlines() == [
        "GROUPING             CIDR             IPS TOTAL   IPS IN USE   IPS RESERVED   IPS FREE       NODE",
        "IP Pool              10.244.0.0/16    65536       2 (0%)       64 (0%)        65470 (100%)",
        "Block                10.244.0.64/26   64          2 (3%)       0 (0%)         62 (97%)       node1",
        "Block without pool   10.9.0.0/26      64          0 (0%)       0 (0%)         64 (100%)      -",
    ]
    assert ipam_show.notes(report) == ["1 block is in no pool: see --show-blocks"]


def test_what_the_numbers_do_not_say() -> None:
    pool = {"cooling": 2, "warm": 8}
    epoch = {"state": "recovering", "missing": ["node1", "node2"]}
    assert ipam_show.notes({"epoch": epoch, "pools": [pool, pool], "orphans": []}) == [
        "the address records are being rebuilt from what the nodes hold; still awaited: node1, node2",
        "4 of the free addresses were released a moment ago and rest",
        "16 of the free addresses are kept ready on nodes for their next pods",
    ]
    assert ipam_show.notes({"epoch": None, "pools": [], "orphans": []}) == []


def test_very_many_addresses() -> None:
    counted = {"cidr": "fd00::/48", "total": 1 << 80, "inUse": 3, "reserved": 0, "free": (1 << 80) - 3}
    assert ipam_show._row("IP Pool", counted)[2:] == ["1.2089e+24", "3 (0%)", "0 (0%)", "1.2089e+24 (100%)"]


def shown(world: World, ip: str) -> list[str]:
    return ipam_show.owner(plain(views.address(core_of(world), ip, NOW))).splitlines()


def test_whose_an_address_is() -> None:
    assert shown(sound().put(handle("cni.a", "10.244.0.64", assigned=5.0)), "10.244.0.64") == [
        "IP 10.244.0.64 is in use",
        "Handle ID: cni.a",
        "Active Owner Attributes:",
        "  namespace: default",
        "  node: node1",
        "  pod: a",
        "  use: workload",
        "  timestamp: <5>",
        "Block: 10.244.0.64/26 of node node1, pool default",
        "Used by: pod default/a on node1",
    ]
    borrowed = shown(sound().drop(ENDPOINT, "node2", "default", "b"), "10.244.0.71")
    assert borrowed[-2:] == ["Block: 10.244.0.64/26 of node node1, borrowed, pool default", "Used by: nobody says so"]


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        (
            "10.244.0.65",
            "IP 10.244.0.65 is not in use: not assigned (block 10.244.0.64/26 of node node1, pool default)",
        ),
        ("10.244.7.7", "IP 10.244.7.7 is not in use: not assigned (pool default)"),
        ("10.9.9.9", "IP 10.9.9.9 is not in use: not assigned (in no pool; but used by pod default/c on node1)"),
        ("10.244.8.1", "IP 10.244.8.1 is not in use: not assigned (pool default; reserved by kept)"),
    ],
)
def test_whose_an_address_is_not(ip: str, expected: str) -> None:
    world = sound().put(endpoint("c", "10.9.9.9"), reservation("10.244.8.0/24"))
    assert shown(world, ip) == [expected]


def test_an_address_that_is_kept_ready() -> None:
    world = sound().put(with_address(block(), 3, "warm.1"), handle("warm.1", "10.244.0.67", pod="", use="warm"))
    assert shown(world, "10.244.0.67") == [
        "IP 10.244.0.67 is kept ready by node node1 for its next pod (handle warm.1, block 10.244.0.64/26 of node "
        "node1, pool default)"
    ]


# --- check


def told(world: World, **options: bool) -> list[str]:
    report = plain(check(world.records, NOW))
    return ipam_check.told(report, **{"all_ips": False, "problem_ips": False, **options}).splitlines()


def test_a_sound_cluster() -> None:
    assert told(sound()) == [
        "Checking IPAM for inconsistencies...",
        "",
        "Found 1 IPAM blocks with 2 allocations, 1 affinities, 2 handles.",
        "Found 1 IP pools and 0 reservations.",
        "Found 2 nodes, of which 0 said what they hold.",
        "Found 2 workload endpoints; 2 IPs are held by somebody.",
        "Found 0 candidates for release.",
        "Nodes with the most allocations (the median has 1):",
        "  node1 has 1",
        "  node2 has 1",
        "",
        *(f"Found 0 {question}." for question, _ in ipam_check.QUESTIONS),
        "",
        "Check complete; found 0 problems.",
    ]


def test_addresses_are_named_when_asked_for() -> None:
    world = sound().drop(ENDPOINT, "node1", "default", "a")
    text = (
        "  10.244.0.64 (handle cni.a of pod default/a): node node1 does not say that it is used; "
        "not seen by the collector yet"
    )
    short, long = told(world), told(world, problem_ips=True)
    assert "Found 1 IPs that are allocated and not in use." in short
    assert text not in short
    assert short[-2:] == ["--show-problem-ips names the addresses.", "Check complete; found 1 problem."]
    assert long[long.index("Found 1 IPs that are allocated and not in use.") + 1] == text


def test_every_address() -> None:
    lines = told(sound(), all_ips=True)
    at = lines.index("IP            STATE    NODE    USED BY                  HANDLE   BLOCK")
    assert lines[at + 1] == "10.244.0.64   in use   node1   pod default/a on node1   cni.a    10.244.0.64/26"


def test_notes_and_what_is_not_judged_yet() -> None:
    world = sound().put(reservation("10.244.0.64"), handle("cni.a", "10.244.0.64", assigned=NOW))
    world.drop(ENDPOINT, "node1", "default", "a")
    assert told(world)[-6:] == [
        "Found 1 IPs that were given or let go a moment ago, and are not judged yet.",
        "",
        "Worth knowing:",
        "  10.244.0.64 (handle cni.a of pod default/a) is reserved and in use",
        "",
        "Check complete; found 0 problems.",
    ]


def test_every_kind_of_problem_has_its_question() -> None:
    asked = [kind for _, kinds in ipam_check.QUESTIONS for kind in kinds]
    only_notes = {Kind.BLOCK_POOL, Kind.BLOCK_IDLE, Kind.RESERVED, Kind.DEPARTED, Kind.OWN_CHOICE}
    assert sorted(asked) == sorted(kind.value for kind in Kind if kind not in only_notes)


# --- release


def test_a_report_names_what_is_leaked(tmp_path: Path) -> None:
    report = check(sound().drop(ENDPOINT, "node1", "default", "a").records, NOW)
    path = tmp_path / "report.json"
    path.write_bytes(msgspec.json.encode(report))
    asked = ipam_release.read(path)
    assert asked == [{"ip": "10.244.0.64", "handle": "cni.a", "sequence": 7}]
    assert (report.kind, report.version) == (ipam_release.KIND, ipam_release.VERSION)
    assert ipam_release.in_all([asked, [*asked, {"ip": "10.0.0.1", "handle": "x", "sequence": 1}]]) == asked
    assert ipam_release.in_all([asked, []]) == []


def test_a_report_that_is_not_there() -> None:
    with pytest.raises(Misused, match="cannot be read: No such file"):
        ipam_release.read(Path("/absent/report.json"))
