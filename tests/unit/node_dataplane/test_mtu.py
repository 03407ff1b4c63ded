"""The arithmetic of MTUs, and that it is told."""

from __future__ import annotations

from ipaddress import ip_interface

from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_dataplane.mtu import FALLBACK, Term, of_pods, plain_terms, tunnel_term, underlay
from services.node_dataplane.uplink import Interface, Uplink

ETH0 = Interface("eth0", 1500, (ip_interface("10.0.0.1/24"),))
ETH1 = Interface("eth1", 9000, (ip_interface("fd00::1/64"),))
DOWN = Interface("eth2", 576, (), up=False)
TUNNEL = Interface("ethereal", 1400, (), own=True)
UPLINKS = {
    4: Uplink("eth0", 1500, ip_interface("10.0.0.1/24")),
    6: Uplink("eth1", 9000, ip_interface("fd00::1/64")),
}


def test_each_family_has_that_of_its_uplink() -> None:
    under = underlay([ETH0, ETH1], UPLINKS, None)
    assert (under.of(4), under.of(6), under.least) == (1500, 9000, 1500)
    assert under.how == "eth0 1500, eth1 9000"


def test_without_an_uplink_it_is_small_enough_for_any() -> None:
    under = underlay([], {}, None)
    assert (under.of(4), of_pods(under, []).mtu, under.how) == (FALLBACK, FALLBACK, "no uplink is known, so 1460")


def test_a_pattern_takes_the_least_of_what_is_up() -> None:
    under = underlay([ETH0, ETH1, DOWN, TUNNEL], {6: UPLINKS[6]}, "^eth.*")
    assert (under.of(6), under.how) == (1500, "the least of eth0 1500, eth1 9000, by mtuIfacePattern")


def test_a_pattern_that_matches_nothing_or_is_none_is_named() -> None:
    for pattern, words in (("^bond", "no device that is up matches"), ("eth[", "is not a regular expression")):
        under = underlay([ETH0, ETH1], UPLINKS, pattern)
        assert under.of(4) == 1500
        assert [words in problem for problem in under.problems] == [True]


def test_pods_get_the_least_of_all_ways() -> None:
    under = underlay([ETH0, ETH1], UPLINKS, None)
    vxlan = tunnel_term("VXLAN over IPv4", 1450, 1500, 50, "vxlanMTU")
    pods = of_pods(under, [*plain_terms(under, UPLINKS), vxlan])
    assert (pods.mtu, pods.problems) == (1450, ())
    assert [(term.mtu, term.how) for term in pods.terms] == [
        (1500, "the uplink's"),
        (9000, "the uplink's"),
        (1450, "1500 - 50"),
    ]


def test_an_override_that_does_not_fit_is_taken_and_named() -> None:
    under = underlay([ETH0], {4: UPLINKS[4]}, None)
    vxlan = tunnel_term("VXLAN over IPv4", 1480, 1500, 50, "vxlanMTU")
    assert of_pods(under, [vxlan]).problems == (
        "VXLAN over IPv4: MTU 1480 (vxlanMTU of FelixConfiguration) is more than the 1450 that fit; larger packets are "
        "lost",
    )


@settings(deadline=None)
@given(st.lists(st.integers(68, 9216), min_size=1))
def test_no_way_is_narrower_than_what_pods_send(mtus: list[int]) -> None:
    terms = [Term("", mtu, "", mtu) for mtu in mtus]
    pods = of_pods(underlay([], {}, None), terms)
    assert all(pods.mtu <= term.mtu for term in terms)
    assert pods.mtu in mtus
