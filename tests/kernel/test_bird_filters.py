"""A real BIRD judges routes as the walk over our filters' values says: what the printed text means.

namespace "near": our functions, and every route of a case from each of five kinds of sources, a table each
    STATIC   static protocols                 INHERIT   learnt from kernel tables, by bridges with our devices' names
    BGP      sessions with "far", whose filters give them paths, preferences and communities
`show route table T filter F` says what F does to each of them
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bus_schemas.bgp import Speaker
from services.node_dataplane.bird import filters
from services.node_dataplane.bird.language import Call, Function, Statement, lines
from tests.support.bird import BIRD, BIRDC, Bird
from tests.support.bird_evaluator import Announcement, decide
from tests.support.bird_golden import World
from tests.support.manifests_conformance import Case, cases
from tests.support.netns import Namespace, namespaces, veth, wait_for

DEADLINE_S = 20.0

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(BIRD is None or BIRDC is None, reason="no bird on this machine (Debian: bird2)"),
]

SAMPLE = (
    "bgpfilter/as_path_and_priority",
    "bgpfilter/kubevirt_live_migration",
    "bgpfilter/import_only/global_peer",
    "bgpfilter/match_interface",
    "bgpfilter/match_operators",
    "bgpfilter/multi_filter/explicit_peer",
    "mesh/communities",
    "cluster_routes/noencap-only",
    "explicit_peering/route_reflector",
)


class Kind(NamedTuple):
    """One kind of source; its table holds every route of the case."""

    table: str
    source: str
    ifname: str = ""
    metric: int | None = None
    preference: int | None = None
    path: tuple[int, ...] = ()
    communities: tuple[tuple[int, int], ...] = ()

    def announcement(self, net: str) -> Announcement:
        numbers = {"krt_metric": self.metric, "bgp_local_pref": self.preference}
        return Announcement(
            net=net,
            source=self.source,
            ifname=self.ifname,
            blackhole=self.source == "RTS_STATIC",
            numbers={name: value for name, value in numbers.items() if value is not None},
            path=self.path,
            communities=frozenset(self.communities),
        )


STATIC = Kind("of_fixed", "RTS_STATIC")
LEARNT = (
    Kind("of_pod", "RTS_INHERIT", "tor1234567890a", metric=1024),
    Kind("of_urgent", "RTS_INHERIT", "tor1234567890a", metric=512),
    Kind("of_vxlan", "RTS_INHERIT", "vxlan.tortie", metric=1024),
    Kind("of_ipip", "RTS_INHERIT", "tunl0", metric=100),
)
HEARD = (
    Kind("of_plain", "RTS_BGP", "eth0", preference=100, path=(64999,)),
    Kind("of_first", "RTS_BGP", "eth0", preference=2147483547, path=(65000, 65001), communities=((65000, 100),)),
    Kind("of_second", "RTS_BGP", "eth0", preference=2147483447, path=(65000, 64999)),
)
KINDS = (STATIC, *LEARNT, *HEARD)


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces(2) as (near, far):
        veth(near, "eth0", far, "eth0")
        for number in range(len(HEARD)):
            near.ip("address", "add", f"192.0.{number}.1/24", "dev", "eth0")
            far.ip("address", "add", f"192.0.{number}.2/24", "dev", "eth0")
        for name in dict.fromkeys(kind.ifname for kind in LEARNT):
            near.ip("link", "add", name, "type", "bridge")
            near.ip("link", "set", name, "up")
        yield near, far


def test_printed_filters_mean_what_they_say(
    pair: tuple[Namespace, Namespace], tmp_path: Path, sample: Sequence[Case]
) -> None:
    near, far = pair
    nets = sorted({r["net"] for case in sample for r in case["expected"]["v4"]["routes"]} - {"0.0.0.0/0"})
    for number, kind in enumerate(LEARNT, 101):
        near.run("ip", "-batch", "-", text="".join(f"{_kernel_route(kind, net)} table {number}\n" for net in nets))
    speakers = [World(case).speaker() for case in sample]
    judges = [(speaker, name, body) for speaker in speakers for name, body in _filters(speaker)]
    birds: list[Bird] = []
    try:
        birds.append(Bird(far, tmp_path / "far", _far(nets)))
        birds.append(Bird(near, tmp_path / "near", _near(nets, speakers)))
        _wait_for_routes(birds[1], len(nets))
        accepted = 0
        for number, (speaker, name, body) in enumerate(judges):
            functions = {one.name: one for one in filters.functions(speaker, 4)}
            for kind in KINDS:
                said = _said(birds[1].ask(f"show route table {kind.table} filter judge{number} all"))
                expected = _expected(body, functions, kind, nets)
                assert said == expected, (speaker.node, name, kind)
                accepted += len(said)
        assert accepted
    finally:
        for bird in birds:
            bird.close()


@pytest.fixture
def sample() -> list[Case]:
    found = [p.values[0] for p in cases("bird_golden.json") if p.values[0]]
    if not found:
        pytest.skip("no bird_golden.json")
    return [case for case in found if case["id"].removeprefix("calico-bird/") in SAMPLE]


def _filters(speaker: Speaker) -> Iterator[tuple[str, tuple[Statement, ...]]]:
    """Of the first session of each kind, and the kernel's."""
    sessions = [session for session in speaker.sessions if session.family == 4]
    for session in {(s.options.filters, filters.is_internal(speaker, s)): s for s in sessions}.values():
        yield f"import {session.neighbour}", filters.import_filter(speaker, session)
        yield f"export {session.neighbour}", filters.export_filter(speaker, session)
    yield "kernel", (Call(filters.program(4)),)


def _kernel_route(kind: Kind, net: str) -> str:
    return f"route add {net} dev {kind.ifname} proto static metric {kind.metric}"


def _expected(
    body: tuple[Statement, ...], functions: Mapping[str, Function], kind: Kind, nets: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found = {}
    for net in nets:
        verdict, after = decide(body, kind.announcement(net), functions)
        if verdict == "accept":
            found[net] = {
                "preference": after.numbers.get("bgp_local_pref"),
                "path": after.path,
                "communities": after.communities,
            }
    return found


def _said(text: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for piece in re.split(r"\n(?=\d)", f"\n{text}")[1:]:
        net = piece.split()[0]
        if "/" not in net:
            continue

        def attribute(name: str, piece: str = piece) -> str:
            match = re.search(rf"BGP\.{name}: (.*)", piece)
            return "" if match is None else match[1]

        pairs = attribute("community") + attribute("large_community")
        found[net] = {
            "preference": int(attribute("local_pref")) if attribute("local_pref") else None,
            "path": tuple(map(int, attribute("as_path").split())),
            "communities": frozenset(tuple(map(int, one.split(","))) for one in re.findall(r"\(([\d, ]+)\)", pairs)),
        }
    return found


# --- configurations


def _near(nets: Sequence[str], speakers: Sequence[Speaker]) -> str:
    parts = ["router id 192.0.2.1;", "log stderr all;", "protocol device {}"]
    parts += [f"ipv4 table {kind.table};" for kind in KINDS]
    parts.append(_statics(nets, STATIC.table))
    for number, kind in enumerate(LEARNT, 101):
        parts.append(
            f"protocol kernel {{ kernel table {number}; learn; scan time 1; "
            f"ipv4 {{ table {kind.table}; import all; export none; }}; }}"
        )
    for number, kind in enumerate(HEARD):
        parts.append(
            f"protocol bgp heard{number} {{ local 192.0.{number}.1 as 64512; "
            f"neighbor 192.0.{number}.2 as 64512; "
            f"direct; passive on; ipv4 {{ table {kind.table}; import all; export none; gateway direct; }}; }}"
        )
    number = 0
    for of, speaker in enumerate(speakers):
        for function in filters.functions(speaker, 4):
            parts.append(_renamed(str(function), speaker, of))
        for _, body in _filters(speaker):
            text = "\n".join(lines(body, 1))
            parts.append(f"filter judge{number} {{\n{_renamed(text, speaker, of)}\n}}")
            number += 1
    return "\n".join(parts) + "\n"


def _renamed(text: str, speaker: Speaker, number: int) -> str:
    """Functions of one case beside those of another."""
    for function in filters.functions(speaker, 4):
        text = re.sub(rf"\b{function.name}\(", f"case{number}_{function.name}(", text)
    return text


def _far(nets: Sequence[str]) -> str:
    parts = ["router id 192.0.2.2;", "log stderr all;", "protocol device {}", "ipv4 table of_fixed;"]
    parts.append(_statics(nets, "of_fixed"))
    for number, kind in enumerate(HEARD):
        changes = [f"bgp_local_pref = {kind.preference};"]
        changes += [f"bgp_path.prepend({one});" for one in reversed(kind.path)]
        changes += [f"bgp_community.add({one});" for one in kind.communities]
        parts.append(
            f"protocol bgp told{number} {{ local 192.0.{number}.2 as 64512; "
            f"neighbor 192.0.{number}.1 as 64512; "
            f"direct; connect delay time 1; ipv4 {{ table of_fixed; import none; next hop self; "
            f"export filter {{ {' '.join(changes)} accept; }}; }}; }}"
        )
    return "\n".join(parts) + "\n"


def _statics(nets: Sequence[str], table: str) -> str:
    routes = " ".join(f"route {net} blackhole;" for net in nets)
    return f"protocol static {{ ipv4 {{ table {table}; }}; {routes} }}"


def _wait_for_routes(bird: Bird, wanted: int) -> None:
    def there() -> bool:
        counts = [bird.ask(f"show route table {kind.table} count") for kind in KINDS]
        return all(re.search(rf"\b{wanted} of \d+ routes for {wanted} networks", count) for count in counts)

    wait_for(there, "every route in every table", DEADLINE_S)
