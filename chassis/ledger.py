"""What a feed knows: for each key the sequence it was last heard at, and one slot for what is yet to be told.

Pure. The snapshot and the live feed of one interest arrive in any order and any number of times; the ledger makes one
story of them, by sequence per key:

    heard(newer value)      -> pending          heard(older or equal)  -> nothing
    heard(newer tombstone)  -> pending, absent  swept(not in a complete snapshot) -> pending, absent

It holds sequences, not values: a value lives only in its pending slot, where a newer one replaces it.
A tombstone is remembered (a late, older value must not bring its key back) until it has expired on the bus too.

When a stream was wiped or re-created, its sequences mean nothing any more: `lose` forgets them, keeps the keys as
*kept*, and says nothing to the reader. A kept key is settled by its next positive word, a value or a tombstone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Ledger:
    """One interest's keys, by subject."""

    def __init__(self) -> None:
        self._present: dict[str, int] = {}
        self._absent: dict[str, int] = {}
        self._forget_at: dict[str, float] = {}
        self.kept: set[str] = set()
        """Present to the reader, not known to be on the bus: their stream was wiped."""
        self.highest = 0
        """The highest sequence heard."""

    def __len__(self) -> int:
        return len(self._present)

    def __contains__(self, subject: str) -> bool:
        return subject in self._present

    def __iter__(self) -> Iterator[str]:
        return iter(self._present)

    @property
    def oldest(self) -> int:
        """The lowest sequence of a key that is present and not kept; 0: there is none."""
        return min((sequence for sequence in self._present.values() if sequence), default=0)

    def sequence(self, subject: str) -> int:
        """The last sequence heard, of a value or a tombstone; 0 for none."""
        return self._present.get(subject) or self._absent.get(subject, 0)

    def heard(self, subject: str, sequence: int, *, tombstone: bool, now: float, ttl_s: float) -> bool:
        """One message of the stream. True: it is news and has to be told."""
        self.highest = max(self.highest, sequence)
        if sequence <= self.sequence(subject):
            return False
        self.kept.discard(subject)
        if tombstone:
            self._present.pop(subject, None)
            self._absent[subject] = sequence
            self._forget_at.pop(subject, None)
            self._forget_at[subject] = now + ttl_s
        else:
            if self._absent.pop(subject, 0):
                self._forget_at.pop(subject, None)
            self._present[subject] = sequence
        return True

    def missing(self, seen: set[str], upto: int) -> list[str]:
        """The keys that a complete snapshot of the stream as it was at `upto` did not show.

        A key heard later than `upto` is not among them, and neither is a kept one.
        """
        return [
            subject
            for subject, sequence in self._present.items()
            if sequence <= upto and subject not in seen and subject not in self.kept
        ]

    def sweep(self, seen: set[str], upto: int) -> list[str]:
        """Forgets what is missing; the keys."""
        gone = self.missing(seen, upto)
        for subject in gone:
            del self._present[subject]
        return gone

    def lose(self) -> None:
        """The stream was wiped: every key is kept, every sequence forgotten."""
        self.kept = set(self._present)
        self._present = dict.fromkeys(self._present, 0)
        self._absent.clear()
        self._forget_at.clear()
        self.highest = 0

    def expire(self, now: float) -> None:
        """Forgets tombstones that have expired on the bus."""
        expired = []
        for subject, at in self._forget_at.items():  # in order of time: every ttl is the same
            if at > now:
                break
            expired.append(subject)
        for subject in expired:
            del self._forget_at[subject]
            del self._absent[subject]


def disjoint(filters: Iterable[str], limit: int) -> list[list[str]]:
    """The distinct filters in groups of at most `limit`, none of which overlaps another of its group.

    A consumer refuses overlapping filters, and checks them in pairs: small groups are cheap ones.
    """
    groups: list[list[str]] = []
    for candidate in dict.fromkeys(filters):
        for group in groups:
            if len(group) < limit and not any(overlap(candidate, other) for other in group):
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    return groups


def overlap(one: str, other: str) -> bool:
    """Whether a subject can match both filters. Only `*` is known, as `Family.filter` makes them."""
    left, right = one.split("."), other.split(".")
    return len(left) == len(right) and all(a == b or "*" in (a, b) for a, b in zip(left, right, strict=True))
