"""When a node is lost, and when it is only we who hear nothing."""

from __future__ import annotations

from services.api.vigil import GRACE_S, Turn, Vigil, sentence

BOTH = {"node1", "node2"}


class Watch:
    """A vigil in its own time."""

    def __init__(self) -> None:
        self.vigil = Vigil()
        self.now = 1000.0

    def look(self, speaking: set[str], desired: set[str] = BOTH, *, bus: bool = True, after: float = 1.0) -> list[str]:
        self.now += after
        return [f"{t.what} {t.node}" for t in self.vigil.look(speaking, desired, bus=bus, now=self.now)]

    def settled(self) -> Watch:
        assert self.look(BOTH) == []
        assert self.look(BOTH, after=GRACE_S) == []
        return self


def test_a_node_that_falls_silent_is_lost_and_found_once() -> None:
    watch = Watch().settled()
    assert watch.look({"node1"}) == ["lost node2"]
    assert watch.look({"node1"}) == []
    assert watch.look(BOTH) == ["found node2"]
    assert watch.look(BOTH) == []


def test_nobody_is_lost_while_we_hear_nobody() -> None:
    watch = Watch().settled()
    assert watch.look(set(), bus=False, after=3600) == []
    assert watch.look(set()) == []
    assert watch.look({"node1"}, after=GRACE_S / 2) == []
    assert watch.look({"node1"}, after=GRACE_S) == ["lost node2"]


def test_a_node_that_is_silent_when_we_begin_is_only_found() -> None:
    watch = Watch()
    assert watch.look({"node1"}) == []
    assert watch.look({"node1"}, after=GRACE_S) == []
    assert watch.look(BOTH) == ["found node2"]


def test_a_new_node_is_not_found() -> None:
    watch = Watch().settled()
    assert watch.look({*BOTH, "node3"}, {*BOTH, "node3"}) == []


def test_a_node_that_left_is_not_lost() -> None:
    watch = Watch().settled()
    assert watch.look({"node1"}, {"node1"}) == []
    assert watch.look(BOTH) == []


def test_a_lost_node_that_is_deleted_is_forgotten() -> None:
    watch = Watch().settled()
    assert watch.look({"node1"}) == ["lost node2"]
    assert watch.look({"node1"}, {"node1"}) == []
    assert watch.look(BOTH) == []


def test_many_lost_at_once_are_all_named() -> None:
    watch = Watch().settled()
    assert watch.look(set()) == ["lost node1", "lost node2"]


def test_sentences() -> None:
    lost = "Nothing has been heard of node n for 21 s; 1 of 2 nodes are heard."
    assert sentence(Turn("lost", "n", 21.2), 1, 2) == lost
    assert sentence(Turn("found", "n", None), 2, 2) == "Node n is heard again; 2 of 2 nodes are heard."
