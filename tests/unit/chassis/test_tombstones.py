"""Which sequences were tombstones."""

from __future__ import annotations

from chassis.tombstones import Tombstones


def test_remembered_forgotten_and_bounded() -> None:
    tombstones = Tombstones(limit=2)
    tombstones.remember("a", 1)
    assert tombstones.known("a", 1)
    assert not tombstones.known("a", 2)
    tombstones.remember("b", 2)
    tombstones.remember("a", 3)
    tombstones.remember("c", 4)
    assert not tombstones.known("b", 2)
    assert tombstones.known("a", 3)
    tombstones.forget("a")
    assert not tombstones.known("a", 3)
