from __future__ import annotations

from ipaddress import ip_network

import pytest

from services.route_distribution.claims import Claims, Span, settle


def span(cidr: str) -> Span:
    return Span.of(ip_network(cidr))


def claims(*cidrs: str) -> Claims:
    made = Claims()
    for cidr in cidrs:
        made.add(span(cidr))
    return made


NESTED = ("10.0.0.0/24", "10.0.0.0/26", "10.0.0.64/26", "10.0.0.64/28", "10.0.1.0/26", "fd00::/122", "fd00::/128")


@pytest.mark.parametrize(
    ("cidr", "extent"),
    [
        ("10.0.0.64/28", "10.0.0.0/24"),
        ("10.0.0.0/24", "10.0.0.0/24"),
        ("10.0.0.99/32", "10.0.0.0/24"),
        ("10.0.1.0/26", "10.0.1.0/26"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("fd00::/128", "fd00::/122"),
        ("::a00:0/128", "::a00:0/128"),
    ],
)
def test_the_extent_is_the_outermost_claim_around(cidr: str, extent: str) -> None:
    assert claims(*NESTED).extent(span(cidr)) == span(extent)


@pytest.mark.parametrize(
    ("cidr", "inside"),
    [
        ("10.0.0.64/26", ["10.0.0.64/26", "10.0.0.64/28"]),
        ("10.0.0.0/24", ["10.0.0.0/24", "10.0.0.0/26", "10.0.0.64/26", "10.0.0.64/28"]),
        ("10.0.0.0/25", ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.64/28"]),
        ("10.9.0.0/16", []),
        ("fd00::/64", ["fd00::/122", "fd00::/128"]),
    ],
)
def test_within_is_everything_that_a_span_holds(cidr: str, inside: list[str]) -> None:
    assert list(claims(*NESTED).within(span(cidr))) == [span(member) for member in inside]


def test_a_discarded_claim_leaves_nothing_behind() -> None:
    held = claims("10.0.0.0/24", "10.0.0.0/26")
    held.add(span("10.0.0.0/24"))
    held.discard(span("10.0.0.0/24"))
    held.discard(span("10.0.0.0/24"))
    assert held.extent(span("10.0.0.0/28")) == span("10.0.0.0/26")
    assert list(held.within(span("0.0.0.0/0"))) == [span("10.0.0.0/26")]


def test_the_older_claim_stays() -> None:
    outer, inner, other = span("10.0.0.0/24"), span("10.0.0.0/26"), span("10.0.0.64/26")
    assert settle([(2.0, outer), (1.0, inner), (3.0, other)]) == {outer: inner}
    assert settle([(1.0, outer), (2.0, inner), (3.0, other)]) == {inner: outer, other: outer}


def test_of_the_same_age_the_lower_and_wider_stays() -> None:
    outer, inner = span("10.0.0.0/24"), span("10.0.0.64/26")
    assert settle([(1.0, inner), (1.0, outer)]) == {inner: outer}
