"""Passwords from mounted Secrets: what is there, what is not, and what nobody can use."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus_schemas.bgp import Mesh, Origin, Secret, Session, SessionOptions, Speaker
from bus_schemas.ids import NodeName
from services.node_dataplane.bird.passwords import read, secrets_of

ONE, TWO = Secret(name="bgp", key="rr"), Secret(name="bgp", key="mesh")


def test_those_that_a_record_names() -> None:
    session = Session(neighbour="10.0.0.1", remote_as=64999, origin=Origin.NODE, options=SessionOptions(password=ONE))
    speaker = Speaker(
        node=NodeName("node1"),
        as_number=64512,
        router_id="10.0.0.15",
        sessions=(session,),
        mesh=Mesh(options=SessionOptions(password=TWO)),
    )
    assert secrets_of(speaker) == {ONE, TWO}


def test_found_and_missing(tmp_path: Path) -> None:
    (tmp_path / "bgp").mkdir()
    (tmp_path / "bgp/rr").write_text("tabby\n")
    found = read(tmp_path, [ONE, TWO])
    assert found.known == {ONE: "tabby"}
    assert "bgp/mesh cannot be read: No such file" in found.missing[TWO]


def test_no_directory_at_all() -> None:
    found = read(None, [ONE])
    assert not found.known
    assert "TORTIE_BGP_SECRETS_DIR" in found.missing[ONE]


@pytest.mark.parametrize("text", ["", "\n", 'a"b', "two\nlines", "x" * 80, "tab\there"])
def test_what_is_no_password(tmp_path: Path, text: str) -> None:
    (tmp_path / "bgp").mkdir()
    (tmp_path / "bgp/rr").write_text(text)
    assert not read(tmp_path, [ONE]).known


@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_a_secret_does_not_lead_elsewhere(tmp_path: Path, name: str) -> None:
    assert (
        "is not the name of a Secret"
        in read(tmp_path, [Secret(name=name, key="rr")]).missing[Secret(name=name, key="rr")]
    )
