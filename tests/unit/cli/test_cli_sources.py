from __future__ import annotations

from pathlib import Path

import pytest

from tortie.cli.errors import Misused
from tortie.cli.sources import Joined, Source, read


def test_a_single_source_keeps_its_lines() -> None:
    joined = Joined([Source("a.yaml", "x: 1\n---\ny: 2\n")])
    assert joined.text == "x: 1\n---\ny: 2\n"
    assert joined.place(2) == "a.yaml:2"
    assert joined.place(0) == ""


def test_lines_of_several_sources_are_traced_back() -> None:
    joined = Joined([Source("a.yaml", "one\ntwo\n"), Source("b.yaml", "three\nfour")])
    lines = joined.text.split("\n")
    assert joined.place(lines.index("one") + 1) == "a.yaml:1"
    assert joined.place(lines.index("two") + 1) == "a.yaml:2"
    assert joined.place(lines.index("three") + 1) == "b.yaml:1"
    assert joined.place(lines.index("four") + 1) == "b.yaml:2"


def test_a_directory_gives_its_manifests_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "deep/d.yaml"):
        (tmp_path / name).write_text(name)
    assert [Path(s.name).name for s in read([str(tmp_path)], recursive=False)] == ["a.yml", "b.yaml", "c.json"]
    assert [s.text for s in read([str(tmp_path)], recursive=True)][-1] == "deep/d.yaml"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "empty").mkdir()
    for name in ("absent.yaml", "latin.yaml", "empty"):
        with pytest.raises(Misused, match=name):
            read([str(tmp_path / name)], recursive=False)
