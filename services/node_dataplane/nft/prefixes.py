"""Ranges of addresses as prefixes of few lengths, which a hash map can hold: one lookup a length.

A lookup of an address with its last bits masked out costs a tenth of one in an interval map with concatenations. A
short prefix can be split into longer ones until there are few lengths, as far as there is room for so many elements.

    0.0.0.0/0 without 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16      508 of length 9, 239 of length 16
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from services.node_dataplane.nft.ranges import Range

LENGTHS = 8
"""So many lookups still cost less than one in an interval map."""


def prefixes(addresses: Range, bits: int) -> Iterator[tuple[int, int]]:
    """(first address, length): the fewest that cover the range, none of them of no length at all."""
    first, last = addresses
    while first <= last:
        host = (first & -first).bit_length() - 1 if first else bits - 1
        host = min(host, (last - first + 1).bit_length() - 1, bits - 1)
        yield first, bits - host
        first += 1 << host


def split(first: int, length: int, to: int, bits: int) -> Iterator[int]:
    """The first addresses of the prefixes of length `to` in a shorter one."""
    return iter(range(first, first + (1 << bits - length), 1 << bits - to))


def few(rows: Mapping[int, int], room: int, most: int = LENGTHS) -> dict[int, int] | None:
    """Length -> the length that its prefixes are split to: as few lengths as there is room for, and then as few rows.

    `rows` is how many elements each length has. None: it would take more than `most` lengths, or more than the room."""
    lengths = sorted(rows)
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    """So many of the lengths, split to so many as rounds have passed -> rows, and to which."""
    for _ in range(most):
        best = {
            end: min(
                (before + _rows(rows, lengths[start:end]), [*targets, lengths[end - 1]])
                for start, (before, targets) in best.items()
                if start < end
            )
            for end in range(min(best) + 1, len(lengths) + 1)
        }
        found, targets = best.get(len(lengths), (room + 1, []))
        if found <= room:
            return {length: next(to for to in targets if to >= length) for length in lengths}
        if not best:
            break
    return None


def _rows(rows: Mapping[int, int], lengths: list[int]) -> int:
    """When all of them are split to the last."""
    return sum(rows[length] << lengths[-1] - length for length in lengths)
