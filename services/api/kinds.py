"""The words by which people call a kind: `IPPool`, `ippool`, `ippools`, `pool`, `ipp` ...

Two kinds share the word NetworkPolicy (Kubernetes' and Calico's). The shared words mean both: a list shows both, a
single name is whichever exists; `knp` and the words qualified with the API group mean one.
"""

from __future__ import annotations

from collections import defaultdict

from bus_schemas.resources import KINDS, Resource

Kind = type[Resource]


def _words() -> dict[str, tuple[Kind, ...]]:
    plurals = {kind.KIND: kind.PLURAL for kind in KINDS.values() if kind.KIND.lower() == kind.TOKEN}
    words: defaultdict[str, list[Kind]] = defaultdict(list)
    for kind in KINDS.values():
        for word in {kind.TOKEN, kind.PLURAL, kind.KIND.lower(), plurals.get(kind.KIND, kind.PLURAL), *kind.ALIASES}:
            words[word].append(kind)
    return {word: tuple(kinds) for word, kinds in words.items()}


WORDS: dict[str, tuple[Kind, ...]] = _words()


def kinds_named(word: str) -> tuple[Kind, ...]:
    """The kinds that a word means, in KINDS order; empty for an unknown word."""
    return WORDS.get(word.lower(), ())


def unknown_kind(word: str) -> str:
    """One sentence for a word that means no kind."""
    return f"there is no kind {word!r}; there are {', '.join(kind.PLURAL for kind in KINDS.values())}"
