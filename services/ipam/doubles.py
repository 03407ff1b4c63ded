"""Addresses that two nodes list at once: two pods would answer for one address. Pure.

    Words: who lists which address --shared--> Doubles --after SETTLED_S--> told once, and once more when it is over

It cannot come from what is given here (compare-and-swap), only from outside: a machine that was copied with its state,
an address that was configured by hand, records that were brought back from an old copy. Who has it by the records is
the older, and stays: the block's route leads to its node. The other is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bus_schemas.ids import HandleId
from bus_schemas.ipam import Handle
from services.ipam.words import Record, Words

SETTLED_S = 5.0
"""An address that changes hands is listed by both for a moment: so long it may."""


class Told(NamedTuple):
    what: str
    """`duplicate`, or `resolved`: it is over."""
    address: str
    message: str


class Doubles:
    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._told: dict[str, str] = {}

    @property
    def told(self) -> list[str]:
        """What is so now, a sentence each."""
        return [self._told[address] for address in sorted(self._told)]

    @property
    def watched(self) -> bool:
        return bool(self._since)

    def look(self, words: Words, handles: Mapping[HandleId, Handle], now: float) -> tuple[list[Told], float | None]:
        """What is to be told, and in how many seconds to look again; None: when something was heard."""
        news = [
            Told("resolved", address, f"{address} is listed by one node again.")
            for address in sorted(self._told.keys() - words.shared)
        ]
        for address in self._since.keys() - words.shared:
            del self._since[address]
            self._told.pop(address, None)
        waits = []
        for address in sorted(words.shared - self._told.keys()):
            left = self._since.setdefault(address, now) + SETTLED_S - now
            if left > 0:
                waits.append(left)
                continue
            self._told[address] = _sentence(address, words, handles)
            news.append(Told("duplicate", address, self._told[address]))
        return news, min(waits, default=None)


def _sentence(address: str, words: Words, handles: Mapping[HandleId, Handle]) -> str:
    listed = {
        node: record
        for node in sorted(words.users(address))
        for record in words.records(node)
        if address in record.addresses
    }
    keepers = [node for node, record in listed.items() if _is_its(record, address, handles)]
    said = ", ".join(f"{node} ({_what(record)})" for node, record in listed.items() if node not in keepers)
    if not keepers:
        return f"{address} is listed by {said}, and by the records it is nobody's."
    return f"{address} is {_what(listed[keepers[0]])}'s on {keepers[0]} by the records, and {said} lists it, too."


def _is_its(record: Record, address: str, handles: Mapping[HandleId, Handle]) -> bool:
    held = handles.get(record.handle)
    return held is not None and held.node == record.node and address in held.addresses


def _what(record: Record) -> str:
    return f"{record.namespace}/{record.pod}" if record.pod else record.handle
