"""Which addresses are reserved (IPReservation): given by nobody's choice but of him who names one.

However many reservations there are and however they overlap, they are a sorted list of spans that do not touch. A /8
is one span, and what a block asks costs a look into that list and the spans inside the block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from bus_schemas.resources.pools import IPReservation


class Reserved:
    """What a set of reservations reserves. `faults` are the entries that are no network; the others count."""

    def __init__(self, reservations: Iterable[IPReservation] = ()) -> None:
        self.faults: list[str] = []
        found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for reservation in reservations:
            for text in reservation.spec.reserved_cidrs:
                try:
                    network = ip_network(text, strict=False)
                except ValueError as error:
                    self.faults.append(f"IPReservation {reservation.metadata.name}: {error}")
                else:
                    span = int(network.network_address), int(network.broadcast_address)
                    found[network.version].append(span)
        self._spans = {family: _merged(spans) for family, spans in found.items()}
        self._lasts = {family: [last for _, last in spans] for family, spans in self._spans.items()}

    def __bool__(self) -> bool:
        """Whether anything is."""
        return any(self._spans.values())

    def __contains__(self, address: tuple[int, int]) -> bool:
        """Whether an address, (family, number), is reserved."""
        return next(self.within(address[0], address[1], address[1]), None) is not None

    def within(self, family: int, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The reserved spans between two addresses, both included, cut to those, in order."""
        spans = self._spans[family]
        for at in range(bisect_left(self._lasts[family], first), len(spans)):
            if spans[at][0] > last:
                return
            yield max(first, spans[at][0]), min(last, spans[at][1])

    def end(self, family: int, first: int, last: int) -> int | None:
        """Where the reservation ends that covers all from `first` to `last`; None: not all of them are reserved."""
        spans = self._spans[family]
        at = bisect_right(spans, (first, 1 << 128)) - 1
        return spans[at][1] if at >= 0 and spans[at][1] >= last else None

    def count(self, cidr: str) -> int:
        """How many addresses of a network (a pool, a block) are reserved."""
        network = ip_network(cidr)
        spans = self.within(network.version, int(network.network_address), int(network.broadcast_address))
        return sum(last - first + 1 for first, last in spans)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged
