"""The session tables, as users of calicoctl know them."""

from __future__ import annotations

import time
from typing import Any

from tortie.cli.node_status import described

NOW = 1_800_000_000.0
SESSION: dict[str, Any] = {
    "peer": "10.0.0.16",
    "port": 179,
    "asNumber": 64512,
    "family": 4,
    "type": "mesh",
    "state": "up",
    "since": NOW - 60,
    "established": True,
    "info": "Established",
    "imported": 1,
    "exported": 1,
}


def report(*sessions: dict[str, Any], **said: Any) -> dict[str, Any]:
    told = {"node": "node1", "agent": True, "running": True, "version": "2.0.12", "since": NOW - 90, "fault": ""}
    return {**told, "sessions": list(sessions), **said}


def test_both_families() -> None:
    since = time.strftime("%H:%M:%S", time.localtime(NOW - 60))
    assert (
        described(report(SESSION), NOW)
        == f"""\
Tortie process is running.

IPv4 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS |     PEER TYPE     | STATE |  SINCE   |     INFO    |
+--------------+-------------------+-------+----------+-------------+
| 10.0.0.16    | node-to-node mesh | up    | {since} | Established |
+--------------+-------------------+-------+----------+-------------+

IPv6 BGP status
No IPv6 peers found."""
    )


def test_a_port_of_its_own_and_an_old_session() -> None:
    old = {**SESSION, "port": 1179, "since": NOW - 3 * 86400, "type": "node"}
    text = described(report(old), NOW)
    assert "10.0.0.16 port 1179" in text
    assert time.strftime("%Y-%m-%d", time.localtime(NOW - 3 * 86400)) in text


def test_a_node_without_bgp() -> None:
    text = described({"node": "node1", "agent": True, "running": None, "sessions": []}, NOW, named=True)
    assert text.splitlines()[0] == "Node node1"
    assert "speaks no BGP" in text


def test_a_bird_that_is_not_there_and_one_that_refuses() -> None:
    gone = described(report(running=False, fault="install the package bird2"), NOW)
    assert "BIRD is not running: install the package bird2" in gone
    assert "BIRD runs, but: line 3" in described(report(fault="line 3"), NOW)
