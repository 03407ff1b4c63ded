"""Address ranges that somebody claims, and which of them count where they overlap.

CIDRs are either disjoint or nested, so the claims of one family form trees:

    10.0.0.0/24 ---- 10.0.0.64/26 ---- 10.0.0.64/28        extent of any of the three: 10.0.0.0/24
    10.0.1.0/26                                            extent: itself

A change can only matter inside the extent of the changed claim: the outermost claim that holds it. Claims are kept
sorted by their first address, so the members of an extent are one slice.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

Network = IPv4Network | IPv6Network


class Span(NamedTuple):
    """A network as numbers, ordered by family, first address, then the wider network first."""

    version: int
    first: int
    prefix: int

    @classmethod
    def of(cls, network: Network) -> Span:
        return cls(network.version, int(network.network_address), network.prefixlen)

    @property
    def last(self) -> int:
        return self.first | ((1 << (self.width - self.prefix)) - 1)

    @property
    def width(self) -> int:
        """Bits of an address of the family."""
        return 32 if self.version == 4 else 128

    def supernet(self, prefix: int) -> Span:
        shift = self.width - prefix
        return Span(self.version, self.first >> shift << shift, prefix)

    def holds(self, other: Span) -> bool:
        return self.version == other.version and self.prefix <= other.prefix and self == other.supernet(self.prefix)


class Claims:
    """A set of spans that knows its nesting."""

    def __init__(self) -> None:
        self._sorted: list[Span] = []
        self._members: set[Span] = set()
        self._prefixes: dict[int, Counter[int]] = {4: Counter(), 6: Counter()}
        """How many claims of each prefix length a family has."""

    def add(self, span: Span) -> None:
        if span not in self._members:
            self._members.add(span)
            insort(self._sorted, span)
            self._prefixes[span.version][span.prefix] += 1

    def discard(self, span: Span) -> None:
        if span in self._members:
            self._members.remove(span)
            del self._sorted[bisect_left(self._sorted, span)]
            lengths = self._prefixes[span.version]
            lengths[span.prefix] -= 1
            if not lengths[span.prefix]:
                del lengths[span.prefix]

    def extent(self, span: Span) -> Span:
        """The outermost claim that holds `span`; `span` itself where there is none."""
        for prefix in sorted(self._prefixes[span.version]):
            if prefix > span.prefix:
                break
            candidate = span.supernet(prefix)
            if candidate in self._members:
                return candidate
        return span

    def within(self, span: Span) -> Iterator[Span]:
        """Every claim that `span` holds, itself included, in order."""
        for position in range(bisect_left(self._sorted, span), len(self._sorted)):
            member = self._sorted[position]
            if member.version != span.version or member.first > span.last:
                return
            if span.holds(member):
                yield member


def settle(claims: Iterable[tuple[float, Span]]) -> dict[Span, Span]:
    """The claims that do not count -> the one that each of them loses to.

    A claim is (time, span). The older one stays; of two of the same age the lower, then wider, span."""
    lost: dict[Span, Span] = {}
    kept: list[Span] = []
    for _, span in sorted(claims):
        winner = next((other for other in kept if other.holds(span) or span.holds(other)), None)
        if winner is None:
            kept.append(span)
        else:
            lost[span] = winner
    return lost
