"""Neighbouring blocks that are reached alike become one route: the widest prefixes that one way fills completely.

A prefix is *full* of a way (all that a route says but its destination) when it is a block with that way, or when both
of its halves are full of it. Told is every full prefix that no wider full one holds:

              10.0.0.0/24                            b: a block of node1, c: one of node2
             /           \\
         full /25        not full        --> told:  10.0.0.0/25 node1, 10.0.0.128/26 node1, 10.0.0.192/26 node2
         /     \\         /      \\
       b /26   b /26   b /26   c /26

So what is told is a function of the blocks alone, covers each of their addresses and no other, and a block that comes
or goes can only change prefixes that hold it, and their halves: one look per bit of the prefix.

Blocks of different pools never meet, because a route carries its pool. An address that somebody borrowed is a route of
its own, longer than any block, and takes no part: it stays the more specific one.

Whoever applies what differs must add before it removes. Then no address is without a route in between: where a summary
falls apart its pieces are there before it goes, and where pieces meet the summary is there before they go. Of what is
added the longest destinations come first and of what is removed last, so no packet to an address that is lent ever
takes the way of the block that it is lent from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec

from bus_schemas.routes import Route
from services.route_distribution.claims import Span


class Summaries:
    """Routes of blocks in, which do not overlap; routes to tell out."""

    def __init__(self) -> None:
        self._blocks: dict[Span, Route] = {}
        """The way to each block: its route without a destination."""
        self._full: dict[Span, Route] = {}
        """The way of every full prefix, told or not."""
        self._told: dict[Span, Route] = {}
        self._lent: set[str] = set()
        """Borrowed addresses, by destination."""

    def __len__(self) -> int:
        """How many routes are told."""
        return len(self._told) + len(self._lent)

    def update(self, routes: Mapping[str, Route | None]) -> dict[str, Route | None]:
        """By destination, what differs after these changes, in the order in which it is to be written. None: no route
        any more."""
        changed: dict[str, Route | None] = {}
        before: dict[Span, Route | None] = {}
        """The spans whose filling changed, and what they were full of."""
        arrived: list[tuple[Span, Route]] = []
        for cidr, route in routes.items():
            span = Span.of(ip_network(cidr))
            if cidr in self._lent:
                self._lent.discard(cidr)
                changed[cidr] = None
            if route is not None and not route.borrowed:
                arrived.append((span, msgspec.structs.replace(route, cidr="")))
                continue
            if span in self._blocks:
                self._settle(span, None, before)
            if route is not None:
                self._lent.add(cidr)
                changed[cidr] = route
        for span, way in arrived:  # after all that left: a block may be where others were
            self._settle(span, way, before)
        for span in self._concerned(before):
            told = self._full.get(span)
            if told is not None and span.prefix and span.supernet(span.prefix - 1) in self._full:
                told = None
            if told == self._told.get(span):
                continue
            cidr = str(_network(span))
            if told is None:
                del self._told[span]
                changed.setdefault(cidr, None)  # a block of one address may be lent now
            else:
                self._told[span] = told
                changed[cidr] = msgspec.structs.replace(told, cidr=cidr)
        return dict(sorted(changed.items(), key=_turn))

    def _settle(self, span: Span, way: Route | None, before: dict[Span, Route | None]) -> None:
        """A block came, changed or went (None): what it, and the prefixes around it, are full of."""
        if way is None:
            del self._blocks[span]
        else:
            self._blocks[span] = way
        while True:
            was, now = self._full.get(span), self._filling(span)
            if was == now:
                return
            before.setdefault(span, was)
            if now is None:
                del self._full[span]
            else:
                self._full[span] = now
            if not span.prefix:
                return
            span = span.supernet(span.prefix - 1)

    def _filling(self, span: Span) -> Route | None:
        own = self._blocks.get(span)
        if own is not None or span.prefix == span.width:
            return own
        left, right = _halves(span)
        way = self._full.get(left)
        return way if way is not None and way == self._full.get(right) else None

    def _concerned(self, before: Mapping[Span, Route | None]) -> Iterable[Span]:
        """Where something else may be told: what is full of something else, and the halves of what is."""
        concerned = {span for span, was in before.items() if was != self._full.get(span)}
        for span in list(concerned):
            if span.prefix < span.width:
                concerned.update(_halves(span))
        return concerned


def _turn(change: tuple[str, Route | None]) -> tuple[bool, int]:
    cidr, route = change
    prefix = int(cidr.rpartition("/")[2])
    return (True, prefix) if route is None else (False, -prefix)


def _halves(span: Span) -> tuple[Span, Span]:
    prefix = span.prefix + 1
    return Span(span.version, span.first, prefix), Span(span.version, span.first | 1 << span.width - prefix, prefix)


def _network(span: Span) -> IPv4Network | IPv6Network:
    kind = IPv4Network if span.version == 4 else IPv6Network
    return kind((span.first, span.prefix))
