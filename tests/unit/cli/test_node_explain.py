"""`tortie node explain` in words: every candidate with its reason, the arithmetic, the state of checksums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus_schemas.ids import NodeName
from bus_schemas.node_facts import (
    FACTS_FILE,
    AddressFact,
    CandidateFact,
    MtuFact,
    MtuTerm,
    NodeFacts,
    OffloadFact,
)
from services.node_dataplane import explain_here
from tortie.cli.main import main
from tortie.cli.node_explain import described

FACTS = NodeFacts(
    node=NodeName("node1"),
    time=1_800_000_000.0,
    addresses=(
        AddressFact(
            family=4,
            address="10.0.0.15/24",
            device="eth0",
            since=1_800_000_000.0,
            method="first-found",
            source="TORTIE_IP_AUTODETECTION_METHOD",
            problem="the address 10.0.0.15 is also that of node2",
            candidates=(
                CandidateFact(device="eth0", address="10.0.0.15/24", verdict="chosen", reason="fits first-found"),
                CandidateFact(device="docker0", address="172.17.0.1/16", verdict="skipped", reason="is passed over"),
            ),
        ),
        AddressFact(family=6, method="auto", source="TORTIE_IP6_AUTODETECTION_METHOD"),
    ),
    mtu=MtuFact(
        pods=1450,
        uplink="eth0 1500",
        terms=(
            MtuTerm(what="IPv4 by eth0, without a tunnel", mtu=1500, how="the uplink's"),
            MtuTerm(what="VXLAN over IPv4", mtu=1450, how="1500 - 50"),
        ),
        cni=1400,
    ),
    offload=(
        OffloadFact(
            device="vxlan.tortie", on=False, wanted=False, reason="kernel 5.4", evidence="presumed", check="not tried"
        ),
    ),
    configured={"vxlanMTU": "0"},
)


def write(directory: Path) -> Path:
    (directory / FACTS_FILE).write_bytes(msgspec.json.encode(FACTS))
    return directory


def text(directory: Path) -> str:
    report: dict[str, Any] | None = explain_here.written(write(directory) / FACTS_FILE)
    assert report is not None
    return "\n".join(described({**report, "agent": False}, 0.0))


def test_everything_is_said(tmp_path: Path) -> None:
    lines = text(tmp_path).splitlines()
    for line in (
        "Its agent does not answer: this is what it found last.",
        "  by first-found (TORTIE_IP_AUTODETECTION_METHOD)",
        "  PROBLEM: the address 10.0.0.15 is also that of node2",
        "  *   eth0      10.0.0.15/24    fits first-found",
        "  -   docker0   172.17.0.1/16   is passed over",
        "IPv6 address: none",
        "MTU of pods that start now: 1400",
        "  the CNI configuration says 1400; else it would be 1450",
        "   1450  VXLAN over IPv4: 1500 - 50",
        "   1450  the least of these",
        "  vxlan.tortie: off (read back), presumed: kernel 5.4",
        "    not tried",
        "  vxlanMTU=0",
    ):
        assert line in lines


def test_the_file_of_the_agent_needs_no_api(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "explain", "--state-dir", str(write(tmp_path)), "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["node"], said["mtu"]["pods"], said["agent"]) == ("node1", 1450, False)


def test_no_file_where_one_was_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "explain", "--state-dir", str(tmp_path)]) == 2
    assert f"no agent has written {tmp_path / FACTS_FILE}" in capsys.readouterr().err


def test_a_method_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TORTIE_IP_AUTODETECTION_METHOD", "interface=eth[")
    assert main(["node", "explain", "--now"]) == 2
    assert "TORTIE_IP_AUTODETECTION_METHOD: 'eth[' is not a regular expression" in capsys.readouterr().err


def test_detection_now_needs_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TORTIE_IP", "none")
    assert main(["node", "explain", "--now"]) == 0
    out = capsys.readouterr().out
    assert "IPv4 address: none\n  by none (TORTIE_IP)" in out
    assert "by detection now" in out
