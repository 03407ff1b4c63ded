"""What BIRD 2.0.12 says of its protocols, read; and what of it is told."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from bus_schemas.bgp import Origin
from bus_schemas.sessions import SessionState
from services.node_dataplane.bird import words
from services.node_dataplane.bird.control import Line, parse
from services.node_dataplane.bird.sessions import moment, sessions

ZONE = timezone(timedelta(hours=1))
NOW = datetime(2026, 3, 2, 12, 30, tzinfo=ZONE)
SAID = """\
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     12:06:01.732  
1006-
1002-kernel4    Kernel     master4    up     12:06:01.732  
1006-  Channel ipv4
     Routes:         9 imported, 8 exported, 0 preferred
 
1002-Mesh_10_0_0_16 BGP        ---        up     12:06:02.542  Established   
1006-  BGP state:          Established
     Neighbor address: 10.0.0.16
     Neighbor port:    1179
     Neighbor AS:      64512
     Neighbor ID:      10.0.0.16
   Channel ipv4
     State:          UP
     Routes:         3 imported, 2 filtered, 1 exported, 1 preferred
   Channel ipv6
     Routes:         1 imported, 4 exported, 1 preferred
 
1002-Node_fd00__1 BGP        ---        start  2026-02-27    Active        Socket: Connection refused
1006-  BGP state:          Active
     Neighbor address: fd00::1%eth0
     Neighbor AS:      64513
     Connect delay:    1.2/5
     Last error:       Socket: Connection refused
 
1002-Global_10_0_0_1 BGP        ---        down   23:59:59.100  
1006-  BGP state:          Down
     Neighbor address: 10.0.0.1
     Neighbor AS:      64999
 
1002-somebody   BGP        ---        up     12:06:02.542  Established   
1006-  BGP state:          Established
     Neighbor address: 10.0.0.77
 
0000 
"""  # noqa: W291, W293


def lines(text: str) -> list[Line]:
    found, code = [], 0
    for raw in text.splitlines():
        line, _ = parse(raw, code)
        code = line.code
        found.append(line)
    return found


def test_sessions_of_ours_by_address() -> None:
    down, mesh, node = sessions(lines(SAID), NOW)
    assert (down.neighbour, down.origin, down.state, down.info, down.established) == (
        "10.0.0.1",
        Origin.GLOBAL,
        "down",
        "",
        False,
    )
    assert mesh == SessionState(
        protocol="Mesh_10_0_0_16",
        neighbour="10.0.0.16",
        port=1179,
        remote_as=64512,
        origin=Origin.MESH,
        state="up",
        since=datetime(2026, 3, 2, 12, 6, 2, tzinfo=ZONE).timestamp(),
        established=True,
        info="Established",
        imported=4,
        exported=5,
    )
    assert (node.neighbour, node.state, node.info) == ("fd00::1", "start", "Active Socket: Connection refused")
    assert node.since == datetime(2026, 2, 27, tzinfo=ZONE).timestamp()


@pytest.mark.parametrize(
    ("text", "at", "rest"),
    [
        ("12:06:02.542  Established", datetime(2026, 3, 2, 12, 6, 2, tzinfo=ZONE), "Established"),
        ("23:59:59.100", datetime(2026, 3, 1, 23, 59, 59, tzinfo=ZONE), ""),
        ("2026-02-27    Idle", datetime(2026, 2, 27, tzinfo=ZONE), "Idle"),
        ("2026-02-27 08:00:01.000 Idle", datetime(2026, 2, 27, 8, 0, 1, tzinfo=ZONE), "Idle"),
    ],
)
def test_times(text: str, at: datetime, rest: str) -> None:
    assert moment(text, NOW) == (at.timestamp(), rest)


def state(peer: str, *, up: bool, since: float = 100.0, info: str = "") -> SessionState:
    return SessionState(
        protocol=f"Mesh_{peer}",
        neighbour=peer,
        remote_as=64512,
        origin=Origin.MESH,
        state="up" if up else "start",
        since=since,
        established=up,
        info=info or ("Established" if up else "Active"),
    )


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([], [state("1", up=True)], [("established", "1")]),
        ([state("1", up=False)], [state("1", up=True)], [("established", "1")]),
        ([state("1", up=True)], [state("1", up=True)], []),
        ([state("1", up=True)], [state("1", up=False, since=120)], [("lost", "1")]),
        ([state("1", up=True)], [state("1", up=True, since=120)], [("lost", "1"), ("established", "1")]),
        ([state("1", up=True)], [], []),
        ([state("1", up=False)], [state("1", up=False, since=120)], []),
    ],
)
def test_what_becomes_an_event(
    before: list[SessionState], after: list[SessionState], told: list[tuple[str, str]]
) -> None:
    assert [(change.what, change.object) for change in words.changes(before, after)] == told


def test_trouble_names_a_few_and_counts_the_rest() -> None:
    assert words.trouble([state("1", up=True)]) == ""
    assert (
        words.trouble([state("1", up=False), state("2", up=True)]) == "not established: 1 (node-to-node mesh): Active"
    )
    many = words.trouble([state(str(number), up=False) for number in range(8)])
    assert many.endswith("; and 3 more")
