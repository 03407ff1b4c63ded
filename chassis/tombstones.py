"""Which sequences were tombstones, remembered for a while.

A writer may compare-and-swap on the sequence of a tombstone. When the tombstone has expired meanwhile the server holds
nothing for the key and refuses; nothing has changed for the writer, though: the key was absent and still is. Whether a
refused sequence was a tombstone's is what this remembers, so that the write is tried again on "nothing" instead of
being reported as a conflict. The other way round, a write on "nothing" goes at once on the tombstone that is known to
be there. Bounded: what was forgotten is a conflict, or one more round trip, which is always safe.
"""

from __future__ import annotations

LIMIT = 65536


class Tombstones:
    """The last tombstones seen or written, by subject."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._sequences: dict[str, int] = {}

    def remember(self, subject: str, sequence: int) -> None:
        self._sequences.pop(subject, None)
        self._sequences[subject] = sequence
        if len(self._sequences) > self._limit:
            del self._sequences[next(iter(self._sequences))]

    def forget(self, subject: str) -> None:
        self._sequences.pop(subject, None)

    def last(self, subject: str) -> int:
        """The sequence of the subject's tombstone, which may have expired; 0: none is known."""
        return self._sequences.get(subject, 0)

    def known(self, subject: str, sequence: int) -> bool:
        return self._sequences.get(subject) == sequence
