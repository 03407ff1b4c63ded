"""A record as text: the words that BIRD's manual has for each wish, and nothing else moved by a change of one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus_schemas.bgp import (
    Filter,
    Mesh,
    MeshMember,
    Origin,
    PoolExport,
    Secret,
    Session,
    SessionOptions,
    Speaker,
    Workloads,
    with_mesh,
    with_workloads,
)
from bus_schemas.ids import NodeName
from bus_schemas.resources.bgp import (
    AddCommunity,
    BGPFilterSpec,
    FilterOperation,
    FilterRule,
    MatchedCommunities,
    PrefixLength,
    PrependASPath,
    SetPriority,
)
from services.node_dataplane.bird.filters import functions
from services.node_dataplane.bird.render import render

BIRD = shutil.which("bird", path="/usr/sbin:/usr/bin:/sbin:/bin")
PASSWORD = Secret(name="bgp", key="tor")
SPEAKER = Speaker(
    node=NodeName("a"), as_number=64512, router_id="10.0.0.1", address4="10.0.0.1/24", address6="fd00::1/64"
)
FULL = SessionOptions(
    local_as=64999,
    ttl_security=2,
    next_hop="keep",
    password=PASSWORD,
    keepalive_s=5,
    restart_s=60,
    allowed_own_as=1,
    filters=("f", "absent"),
)


def session(neighbour: str = "192.0.2.1", **wishes: object) -> Session:
    return Session(neighbour=neighbour, remote_as=65001, origin=Origin.NODE, **wishes)  # type: ignore[arg-type]


def text_of(speaker: Speaker, passwords: dict[Secret, str] | None = None) -> str:
    return render(speaker, passwords or {})


def protocol(text: str, name: str) -> list[str]:
    match = re.search(rf"^protocol bgp {name} \{{\n(.*?)^\}}", text, re.DOTALL | re.MULTILINE)
    assert match is not None, text
    return [line.strip() for line in match[1].splitlines()]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (SessionOptions(), "local 10.0.0.1 port 179 as 64512;"),
        (SessionOptions(source=False, local_as=1), "local port 179 as 1;"),
        (SessionOptions(), "multihop;"),
        (SessionOptions(ttl_security=3), "multihop 3;"),
        (SessionOptions(ttl_security=3), "ttl security on;"),
        (SessionOptions(next_hop="self"), "next hop self;"),
        (SessionOptions(password=PASSWORD), 'password "s3cret";'),
        (SessionOptions(password=Secret(name="bgp", key="other")), "disabled yes;"),
        (SessionOptions(keepalive_s=7), "keepalive time 7;"),
        (SessionOptions(keepalive_s=7), "hold time 21;"),
        (SessionOptions(restart_s=9), "graceful restart time 9;"),
        (SessionOptions(allowed_own_as=2), "allow local as 2;"),
    ],
)
def test_a_wish_and_its_word(options: SessionOptions, line: str) -> None:
    text = text_of(replace(SPEAKER, sessions=(session(options=options),)), {PASSWORD: "s3cret"})
    assert line in protocol(text, "Node_192_0_2_1")


def test_where_a_node_listens() -> None:
    speaker = replace(
        SPEAKER, listen_port=180, bind_node_address=True, sessions=(session(options=SessionOptions(source=False)),)
    )
    assert protocol(text_of(speaker), "Node_192_0_2_1")[:4] == [
        "local 10.0.0.1 port 180 as 64512;",
        "neighbor 192.0.2.1 port 179 as 65001;",
        "multihop;",
        "strict bind yes;",
    ]


def test_a_family_without_an_address_has_no_sessions() -> None:
    speaker = replace(SPEAKER, address6="", sessions=(session("fd00::9"),))
    assert "protocol bgp" not in text_of(speaker)


def test_one_more_session_leaves_the_others() -> None:
    one = replace(SPEAKER, sessions=(session(),))
    two = replace(SPEAKER, sessions=(session(), session("192.0.2.2", options=FULL)))
    before, after = text_of(one), text_of(two)
    assert after.startswith(before)


def test_the_mesh_and_pods_are_sessions_like_others() -> None:
    speaker = replace(SPEAKER, mesh=Mesh(), workloads=(Workloads(peer="pods", selector="all()", remote_as=65009),))
    member = MeshMember(node=NodeName("b"), as_number=64512, address4="10.0.0.2", address6="fd00::2", port=180)
    whole = with_workloads(with_mesh(speaker, [member]), [("pods", "10.244.0.5"), ("unknown", "10.244.0.6")])
    text = text_of(whole)
    assert "passive on;" in protocol(text, "Mesh_10_0_0_2_port_180")
    pod = protocol(text, "Local_Workload_10_244_0_5")
    assert "local port 179 as 64512;" in pod
    assert "passive on;" in pod
    assert "10_244_0_6" not in text


@pytest.mark.parametrize("level", ["None", "Fatal", "Error", "Warning", "Info", "Debug", "Trace"])
def test_every_log_level_is_taken(level: str, tmp_path: Path) -> None:
    text = render(replace(SPEAKER, log_level=level), {}, log=str(tmp_path / "log"))
    assert ("log " in text) is (level != "None")
    check(text, tmp_path)


EVERYTHING = FilterRule(
    action="Accept",
    cidr="10.0.0.0/8",
    match_operator="In",
    prefix_length=PrefixLength(min=9, max=30),
    source="RemotePeers",
    interface="*.calico",
    peer_type="eBGP",
    communities=MatchedCommunities(values=("1:2:3",)),
    as_path_prefix=(65000, 65001),
    priority=100,
    operations=(
        FilterOperation(add_community=AddCommunity(value="1:2")),
        FilterOperation(prepend_as_path=PrependASPath(prefix=(1, 2))),
        FilterOperation(set_priority=SetPriority(value=5)),
    ),
)


def test_a_rule_with_everything(tmp_path: Path) -> None:
    one = Filter(name="f", rules=BGPFilterSpec(import_v4=(EVERYTHING,), export_v4=(EVERYTHING,)))
    client = Session(neighbour="192.0.2.2", remote_as=64512, origin=Origin.NODE, rr_client=True)
    sessions = (session(options=FULL, via="10.0.0.254"), client)
    speaker = replace(SPEAKER, filters=(one,), sessions=sessions, cluster_id="1.1.1.1")
    text = text_of(speaker, {PASSWORD: "s3cret"})
    for piece in (
        "net ~ [ 10.0.0.0/8{9,30} ]",
        "source = RTS_BGP",
        '(ifname ~ "*.calico") || (ifname ~ "*.tortie")',
        "(1, 2, 3) ~ bgp_large_community",
        "bgp_path ~ [= 65000 65001 * =]",
        "bgp_local_pref = 2147483547",
        "bgp_community.add((1, 2));",
        "bgp_path.prepend(2);\n    bgp_path.prepend(1);",
        "bgp_local_pref = 2147483642;",
        "route 192.0.2.1/32 via 10.0.0.254;",
        "rr cluster id 1.1.1.1;",
    ):
        assert piece in text
    assert "absent" not in text
    check(text, tmp_path)


@pytest.mark.parametrize(
    ("rule", "condition"),
    [
        (FilterRule(action="Reject"), "true"),
        (FilterRule(action="Reject", cidr="10.0.0.0/8", match_operator="Equal"), "(net = 10.0.0.0/8)"),
        (FilterRule(action="Reject", cidr="10.0.0.0/8", match_operator="NotEqual"), "(!(net = 10.0.0.0/8))"),
        (FilterRule(action="Reject", cidr="10.0.0.0/8", match_operator="NotIn"), "(!(net ~ 10.0.0.0/8))"),
        (
            FilterRule(action="Reject", cidr="10.0.0.0/8", match_operator="In", prefix_length=PrefixLength(max=7)),
            "(false)",
        ),
        (FilterRule(action="Reject", interface="cali12*"), '((ifname ~ "cali12*") || (ifname ~ "tor12*"))'),
        (FilterRule(action="Reject", interface="*"), '((ifname ~ "?*"))'),
        (FilterRule(action="Reject", peer_type="iBGP"), "(same_as)"),
    ],
)
def test_conditions(rule: FilterRule, condition: str, tmp_path: Path) -> None:
    speaker = replace(SPEAKER, filters=(Filter(name="f", rules=BGPFilterSpec(import_v4=(rule,))),))
    assert f"if {condition} then {{" in str(functions(speaker, 4)[0])
    check(text_of(speaker), tmp_path)


def test_pools_that_are_not_announced() -> None:
    pools = (PoolExport(cidr="10.244.0.0/16", exported=False), PoolExport(cidr="10.245.0.0/16", encapsulation="vxlan"))
    text = "\n".join(map(str, functions(replace(SPEAKER, pools=pools, blocks=("10.244.0.0/26",)), 4)))
    announce = text[text.index("function announce4") : text.index("function program4")]
    assert announce.index("net ~ 10.244.0.0/16 then {\n    reject") < announce.index("10.244.0.0/26")
    assert "net ~ 10.245.0.0/16 then {\n    accept" in announce
    program = text[text.index("function program4") :]
    assert "net ~ 10.245.0.0/16 then {\n    reject" in program
    assert "10.244.0.0/16" not in program


def check(text: str, directory: Path) -> None:
    """A real BIRD takes it, where there is one."""
    if BIRD is None:
        return
    path = directory / "bird.conf"
    path.write_text(text)
    done = subprocess.run([BIRD, "-p", "-c", str(path)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
