"""How large a packet may be: the uplink's MTU, less what the tunnels in use put around a packet. Pure, and every number
comes with its arithmetic.

    device of the node's address, or mtuIfacePattern --> Underlay --(- overhead, or vxlanMTU ...)--> tunnel devices
                                                             |                                            |
                                                             +--------------- the least of all -----------+--> pods
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.node_dataplane.uplink import Interface, Uplink

FALLBACK = 1460
"""While no uplink is known, as in Calico: what is too large is lost without a word, what is too small only costs."""


@dataclass(frozen=True)
class Underlay:
    mtus: Mapping[int, int]
    """By family, of the families that have an uplink."""
    how: str
    """Where they come from."""
    problems: tuple[str, ...] = ()

    def of(self, family: int) -> int:
        return self.mtus.get(family, min(self.mtus.values(), default=FALLBACK))

    @property
    def least(self) -> int:
        return min(self.mtus.values(), default=FALLBACK)


class Term(NamedTuple):
    """One way that a packet of a pod may take."""

    what: str
    mtu: int
    how: str
    fits: int
    """The most that the uplink carries this way."""


@dataclass(frozen=True)
class PodMtu:
    mtu: int
    terms: tuple[Term, ...]
    problems: tuple[str, ...]


def underlay(interfaces: Sequence[Interface], uplinks: Mapping[int, Uplink], pattern: str | None) -> Underlay:
    """`pattern`: FelixConfiguration's mtuIfacePattern, a regular expression for names of devices."""
    problems: list[str] = []
    if pattern:
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            problems.append(f"mtuIfacePattern {pattern!r} is not a regular expression ({error}): the uplink counts")
        else:
            matching = [i for i in interfaces if i.up and not i.own and i.name != "lo" and wanted.search(i.name)]
            if matching:
                least = min(i.mtu for i in matching)
                listed = ", ".join(f"{i.name} {i.mtu}" for i in matching)
                return Underlay(dict.fromkeys(uplinks or (4, 6), least), f"the least of {listed}, by mtuIfacePattern")
            problems.append(f"no device that is up matches mtuIfacePattern {pattern!r}: the uplink counts")
    if not uplinks:
        return Underlay({}, f"no uplink is known, so {FALLBACK}", tuple(problems))
    named = dict.fromkeys(f"{uplink.device} {uplink.mtu}" for _, uplink in sorted(uplinks.items()))
    return Underlay({f: u.mtu for f, u in uplinks.items()}, ", ".join(named), tuple(problems))


def tunnel_term(what: str, mtu: int, underlay_mtu: int, overhead: int, field: str) -> Term:
    """`field`: the FelixConfiguration parameter that may say it."""
    fits = underlay_mtu - overhead
    how = f"{underlay_mtu} - {overhead}" if mtu == fits else f"{field} of FelixConfiguration"
    return Term(what, mtu, how, fits)


def plain_terms(under: Underlay, uplinks: Mapping[int, Uplink]) -> list[Term]:
    return [
        Term(f"IPv{family} by {uplink.device}, without a tunnel", under.of(family), "the uplink's", under.of(family))
        for family, uplink in sorted(uplinks.items())
    ]


def of_pods(under: Underlay, terms: Iterable[Term]) -> PodMtu:
    listed = tuple(terms)
    mtu = min((term.mtu for term in listed), default=under.least)
    too_large = tuple(
        f"{term.what}: MTU {term.mtu} ({term.how}) is more than the {term.fits} that fit; larger packets are lost"
        for term in listed
        if term.mtu > term.fits
    )
    return PodMtu(mtu, listed, (*under.problems, *too_large))
