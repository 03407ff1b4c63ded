"""Several services that want the same frontend: the first by name has it, the others wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

F = TypeVar("F")
T = TypeVar("T")
Owner = tuple[str, str]
"""Namespace and name."""


class Claims(Generic[F, T]):
    def __init__(self) -> None:
        self._by_frontend: dict[F, dict[Owner, T]] = {}
        self._by_owner: dict[Owner, frozenset[F]] = {}
        self.contested: dict[F, tuple[Owner, ...]] = {}
        """Frontend -> who claims it, whoever has it first."""

    def set(self, owner: Owner, wanted: Mapping[F, T]) -> dict[F, T | None]:
        """`owner` wants exactly these from now on. The frontends that lead elsewhere than before; None: nowhere."""
        changed: dict[F, T | None] = {}
        before = self._by_owner.pop(owner, frozenset())
        if wanted:
            self._by_owner[owner] = frozenset(wanted)
        for frontend in before - wanted.keys():
            self._settle(frontend, owner, None, changed)
        for frontend, target in wanted.items():
            self._settle(frontend, owner, target, changed)
        return changed

    def _settle(self, frontend: F, owner: Owner, target: T | None, changed: dict[F, T | None]) -> None:
        claims = self._by_frontend.setdefault(frontend, {})
        was = claims[min(claims)] if claims else None
        if target is None:
            del claims[owner]
        else:
            claims[owner] = target
        now = claims[min(claims)] if claims else None
        if was != now:
            changed[frontend] = now
        if not claims:
            del self._by_frontend[frontend]
        if len(claims) > 1:
            self.contested[frontend] = tuple(sorted(claims))
        else:
            self.contested.pop(frontend, None)
