"""How objects are named on the command line: `KIND NAME...`, `KIND/NAME`, `KIND/NS/NAME`, `KIND[,KIND]`.

Which kind a word means is for the api to say; here words are only told apart from names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tortie.cli.errors import Misused


class Target(NamedTuple):
    kind: str
    name: str
    """Empty: all of the kind."""
    namespace: str
    """Where a namespaced kind is looked for; the api passes over it for the others."""


def targets(words: Sequence[str], namespace: str) -> list[Target]:
    """What the words of a command line stand for. Raises Misused."""
    if not words:
        raise Misused("which kind? For example: pods, nodes, ippools, networkpolicies")
    if "/" in words[0]:
        return [_qualified(word, namespace) for word in words]
    kinds, names = words[0].split(","), words[1:]
    if not all(kinds) or any("/" in name for name in names):
        raise Misused(f"{' '.join(words)!r} is neither KIND NAME... nor KIND/NAME...")
    return [Target(kind, name, namespace) for kind in kinds for name in (names or [""])]


def _qualified(word: str, namespace: str) -> Target:
    parts = word.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise Misused(f"{word!r} is neither KIND/NAME nor KIND/NAMESPACE/NAME")
    return Target(parts[0], parts[-1], parts[1] if len(parts) == 3 else namespace)
