"""The node's address through what happens to devices: it does not flap, and silence deletes nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_dataplane.autodetection import Asked, Reach, detect, method
from services.node_dataplane.own_address import GRACE_S, Finding, OwnAddress
from services.node_dataplane.uplink import Interface, Uplink

FIRST = Asked(4, "the test", method("first-found"))


def device(name: str, *addresses: str, default: bool = False, up: bool = True) -> Interface:
    return Interface(name, 1500, tuple(map(ip_interface, addresses)), frozenset({4} if default else ()), up=up)


A = device("eth0", "10.0.0.1/24", default=True)
A_LOST = device("eth0")
A_REPLACED = device("eth0", "10.0.0.9/24", default=True)
B = device("eth1", "10.1.0.1/24")
B_BETTER = device("eth1", "10.1.0.1/24", default=True)


class Story:
    def __init__(self, asked: Asked = FIRST) -> None:
        self.own, self.asked, self.now = OwnAddress(), asked, 1000.0

    def sees(self, *interfaces: Interface, after: float = 1.0) -> Finding:
        self.now += after
        return self.own.settle(self.asked, interfaces, Reach(), self.now)


def address(finding: Finding) -> str:
    return str(finding.uplink.network.ip) if finding.uplink is not None else ""


def test_an_address_that_is_there_stays_though_another_would_come_first() -> None:
    story = Story()
    since = story.sees(A, B).since
    finding = story.sees(device("eth0", "10.0.0.1/24"), B_BETTER)
    assert (address(finding), finding.since, finding.problem) == ("10.0.0.1", since, "")
    assert "eth1 would come first" in finding.reason


def test_an_address_that_disappears_for_a_moment_changes_nothing() -> None:
    story = Story()
    since = story.sees(A, B).since
    lost = story.sees(A_LOST, B, after=GRACE_S - 2)
    assert (address(lost), lost.due) == ("10.0.0.1", story.now + GRACE_S)
    assert lost.problem.startswith("the uplink eth0 is down or has lost its address 10.0.0.1")
    back = story.sees(A, B, after=GRACE_S - 1)
    assert (address(back), back.since, back.problem, back.due) == ("10.0.0.1", since, "", None)
    assert address(story.sees(A_LOST, B, after=10 * GRACE_S)) == "10.0.0.1", "the count begins anew"


def test_one_that_stays_away_is_followed_to_another_device() -> None:
    story = Story()
    story.sees(A, B)
    story.sees(A_LOST, B)
    finding = story.sees(A_LOST, B, after=GRACE_S)
    assert (address(finding), finding.since, finding.problem) == ("10.1.0.1", story.now, "")


def test_one_that_was_replaced_on_its_device_is_followed_at_once() -> None:
    story = Story()
    story.sees(A, B)
    finding = story.sees(A_REPLACED, B)
    assert (address(finding), finding.since) == ("10.0.0.9", story.now)


def test_a_second_address_of_the_device_is_no_replacement() -> None:
    story = Story()
    story.sees(device("eth0", "10.0.0.1/24", "10.0.0.2/24"))
    assert address(story.sees(device("eth0", "10.0.0.2/24"))) == "10.0.0.1"
    assert address(story.sees(device("eth0", "10.0.0.2/24"), after=GRACE_S)) == "10.0.0.2"


def test_the_same_address_on_a_bond_is_the_same_address() -> None:
    story = Story()
    since = story.sees(A).since
    finding = story.sees(device("eth0"), device("bond0", "10.0.0.1/24"))
    assert finding.uplink is not None
    assert (finding.uplink.device, finding.since) == ("bond0", since)


def test_when_nothing_is_left_the_last_good_one_stays_for_ever() -> None:
    story = Story()
    story.sees(A)
    for interfaces in ((), (A_LOST,), (device("eth0", "10.0.0.1/24", up=False),)):
        finding = story.sees(*interfaces, after=1e6)
        assert address(finding) == "10.0.0.1"
        assert "lost its address 10.0.0.1" in finding.problem


def test_an_administrators_word_counts_at_once_and_needs_to_be_there() -> None:
    story = Story()
    story.sees(A, B)
    story.asked = replace(FIRST, address="10.1.0.1/24", deliberate=True)
    assert address(story.sees(A, B)) == "10.1.0.1"
    story.asked = replace(FIRST, address="10.7.0.1/24", deliberate=True)
    finding = story.sees(A, B)
    assert (address(finding), finding.problem) == ("10.1.0.1", "no device carries the node's address 10.7.0.1")
    story.asked = replace(FIRST, none=True)
    assert story.sees(A, B).uplink is None


def test_another_method_counts_at_once() -> None:
    story = Story()
    story.sees(A, B)
    story.asked = replace(FIRST, method=method("interface=eth1"))
    assert address(story.sees(A, B)) == "10.1.0.1"


def test_what_an_earlier_life_had_stays_while_its_method_is_the_same() -> None:
    for words, kept in (("first-found", "10.1.0.1"), ("auto", "10.1.0.1"), ("interface=eth9", "10.1.0.1")):
        story = Story()
        story.own.remember(Uplink("eth1", 1500, ip_interface("10.1.0.1/24")), 5.0, words)
        finding = story.sees(A, B)
        assert (address(finding), finding.since) == (kept, 5.0)
    story = Story()
    story.own.remember(Uplink("eth9", 1500, ip_interface("10.9.0.1/24")), 5.0, "first-found")
    assert address(story.sees(A, B)) == "10.9.0.1", "it may come back within the grace"
    assert address(story.sees(A, B, after=GRACE_S)) == "10.0.0.1"


def test_a_clock_that_is_set_back_delays_nothing_for_long() -> None:
    story = Story()
    story.sees(A, B)
    story.sees(A_LOST, B)
    story.now -= 1e6
    story.sees(A_LOST, B)
    assert address(story.sees(A_LOST, B, after=GRACE_S)) == "10.1.0.1"


STATES = st.lists(
    st.sampled_from([A, A_LOST, A_REPLACED, B, B_BETTER, device("eth2", "10.2.0.1/24"), device("eth0", up=False)]),
    max_size=3,
    unique_by=lambda i: i.name,
)


@settings(deadline=None)
@given(st.lists(st.tuples(STATES, st.floats(0.1, 2 * GRACE_S)), max_size=12))
def test_whatever_happens(happenings: list[tuple[list[Interface], float]]) -> None:
    """Once there is an address there always is one; what is there is never left; a new one is one that is there; to
    another device it goes only after the grace; and when nothing happens any more, what is there is in force."""
    story, before = Story(), ""
    device_before, lost = "", 0.0
    for seen, pause in happenings:
        finding = story.sees(*seen, after=pause)
        there = {str(u.network.ip) for u in detect(seen, FIRST).possible}
        now, device_now = address(finding), finding.uplink.device if finding.uplink is not None else ""
        if before in there or not lost:
            lost = 0.0 if before in there else story.now
        assert now or not (there or before)
        assert now == before or before not in there
        assert now in there or now == before
        if before and device_now != device_before:
            assert story.now - lost > GRACE_S - 0.001
        if now != before:
            lost = 0.0
        before, device_before = now, device_now
    seen = happenings[-1][0] if happenings else []
    if there := {str(u.network.ip) for u in detect(seen, FIRST).possible}:
        story.sees(*seen, after=0.1)
        last = story.sees(*seen, after=GRACE_S)
        assert address(last) in there
        assert (last.problem, last.due) == ("", None)
