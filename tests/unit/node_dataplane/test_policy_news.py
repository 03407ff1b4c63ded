"""Which changes of policy are news on a node, and when they are told."""

from __future__ import annotations

from bus_schemas.ids import RulesId
from bus_schemas.subjects import Fact
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.policy_news import PolicyNews
from tests.support.nft_worlds import TCP, allow, attach, detach, direction, no_rules, plug, rules, tier

WEB = rules("web", ingress=[allow()])
CHANGED = rules("web", ingress=[allow(protocol=TCP)])
GOVERNED = attach("a", ingress=direction(tier("web")))


class Node:
    def __init__(self, *facts: Fact) -> None:
        self.table = PolicyTable()
        self.news = PolicyNews(self.table, lambda id_: f"P/{id_}")
        plug(self.table, "a", "10.244.0.1")
        plug(self.table, "b", "10.244.0.2")
        self.tell(*facts)
        assert self.flush() == []

    def tell(self, *facts: Fact) -> None:
        for fact in facts:
            for whole in self.table.unfold(fact):
                self.news.note(whole)
                self.table.learn(whole)

    def flush(self) -> list[tuple[str, str]]:
        """What is told once it is in the kernel: change and pods."""
        self.table.wanted()
        self.news.begin()
        return [(told.detail["change"], told.detail.get("pods", "")) for told in self.news.committed()]

    def after(self, *facts: Fact) -> list[tuple[str, str]]:
        self.tell(*facts)
        return self.flush()


def test_other_rules_are_told_with_whom_they_govern() -> None:
    node = Node(GOVERNED, WEB)
    assert node.after(CHANGED) == [("changed", "default/a")]
    assert node.after(CHANGED) == []


def test_a_policy_that_begins_and_ceases_to_govern_a_pod_is_told() -> None:
    node = Node(attach("a", ingress=direction()), WEB)
    assert node.after(GOVERNED) == [("governs", "default/a")]
    assert node.after(attach("a", ingress=direction())) == [("leaves", "default/a")]


def test_what_a_pod_brings_and_takes_along_is_no_news() -> None:
    node = Node()
    assert node.after(GOVERNED, WEB) == []
    assert node.after(attach("b", ingress=direction(tier("web")))) == []
    assert node.after(detach("a"), detach("b"), no_rules("web")) == []


def test_many_pods_are_one_event() -> None:
    node = Node(attach("a", ingress=direction()), attach("b", ingress=direction()), WEB)
    both = (GOVERNED, attach("b", ingress=direction(tier("web"))))
    assert node.after(*both) == [("governs", "default/a,default/b")]


def test_nothing_is_told_before_it_is_in_the_kernel() -> None:
    node = Node(GOVERNED, WEB)
    node.tell(CHANGED)
    node.news.begin()  # on its way, and refused: it begins again with what came since
    node.tell(attach("a", ingress=direction()))
    node.news.begin()
    told = node.news.committed()
    assert [one.detail["change"] for one in told] == ["changed", "leaves"]
    assert told[1].message == "P/web is not in force any more for default/a."
    assert node.news.committed() == []


def test_the_title_is_that_of_the_policy() -> None:
    node = Node(GOVERNED, WEB)
    node.tell(CHANGED)
    node.news.begin()
    (told,) = node.news.committed()
    assert (told.object, told.message) == (
        f"P/{RulesId('web')}",
        "P/web is in force as changed; it governs default/a.",
    )
