"""Taking an object apart while remembering where one is: every complaint carries its path, and all are collected.

`At` is one value and its place, `Fields` a mapping whose known fields are taken one by one; what is left at `close` is
unknown. A wrong value is reported and stands in by a harmless default, so that reading goes on and finds the other
faults; whoever reads looks at the `Report` at the end and throws the object away when it holds a fault.

A null stands for a field that is not there, as in Kubernetes. Inside a list it is refused: an empty rule allows
everything, and nobody should write one by leaving a line unfinished.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from typing import Any, Literal, TypeVar

C = TypeVar("C", bound=str)
T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """What reading one object has found so far."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason)"""
    warnings: list[str] = field(default_factory=list)


class Unknown(Enum):
    """What an unknown field means."""

    IGNORED = "nothing: other programs' fields are expected there"
    WARNED = "a warning"
    NEARLY_REFUSED = "a warning, but a fault when the name is close to a known one: then the user meant that"
    REFUSED = "a fault"


@dataclass(frozen=True, slots=True)
class At:
    """One value and where it stands."""

    value: Any
    path: str
    report: Report

    def fault(self, reason: str) -> None:
        self.report.faults.append((self.path, reason))

    def warn(self, reason: str) -> None:
        self.report.warnings.append(f"{self.path}: {reason}")

    def child(self, name: str) -> At:
        return At(
            self.value.get(name) if isinstance(self.value, dict) else None,
            f"{self.path}.{name}" if self.path else name,
            self.report,
        )

    def string(self) -> str:
        if not isinstance(self.value, str):
            self.fault(f"must be text, not {said(self.value)}{_quote_hint(self.value)}")
            return ""
        try:
            self.value.encode()
        except UnicodeEncodeError:
            self.fault("holds a lone surrogate, which is no character")
            return ""
        return self.value

    def integer(self, low: int, high: int) -> int:
        if type(self.value) is not int:
            self.fault(f"must be a whole number, not {said(self.value)}")
            return low
        if not low <= self.value <= high:
            self.fault(f"must be from {low} to {high}, not {said(self.value)}")
            return low
        return self.value

    def number(self) -> float:
        if type(self.value) not in (int, float):
            self.fault(f"must be a number, not {said(self.value)}")
            return 0.0
        try:
            number = float(self.value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fault("is too large a number")
            return 0.0
        return number

    def boolean(self) -> bool:
        if type(self.value) is not bool:
            self.fault(f"must be true or false, not {said(self.value)}")
            return False
        return self.value

    def choice(self, choices: Sequence[C], *, any_case: bool = False) -> C:
        """One of the words; with `any_case` however it is spelt, and in the spelling of `choices`."""
        for choice in choices:
            if self.value == choice or (
                any_case and isinstance(self.value, str) and self.value.lower() == choice.lower()
            ):
                return choice
        self.fault(f"must be one of {', '.join(choices)}, not {said(self.value)}")
        return choices[0]

    def items(self, *, most: int | None = None) -> list[At]:
        """The items of a list."""
        if not isinstance(self.value, list):
            self.fault(f"must be a list, not {said(self.value)}")
            return []
        if most is not None and len(self.value) > most:
            self.fault(f"must have at most {most} items, not {len(self.value)}")
            return []
        items = [At(item, f"{self.path}[{i}]", self.report) for i, item in enumerate(self.value)]
        for item in items:
            if item.value is None:
                item.fault("must not be null")
        return [item for item in items if item.value is not None]

    def strings(self, *, most: int | None = None) -> tuple[str, ...]:
        return tuple(item.string() for item in self.items(most=most))

    def string_map(self) -> list[tuple[At, str, str]]:
        """(place, key, value) of a mapping from text to text."""
        if not isinstance(self.value, dict):
            self.fault(f"must be a mapping, not {said(self.value)}")
            return []
        places = [(At(value, f"{self.path}[{key}]", self.report), key) for key, value in self.value.items()]
        return [(at, key, at.string() if at.value is not None else "") for at, key in places]

    def fields(self) -> Fields:
        """The value as a mapping; empty, and reported, when it is none."""
        if not isinstance(self.value, dict):
            self.fault(f"must be a mapping, not {said(self.value)}")
            return Fields(At({}, self.path, self.report))
        return Fields(self)


class Fields:
    """A mapping that is being read."""

    def __init__(self, at: At) -> None:
        self.at = at
        self._known: set[str] = set()

    @property
    def path(self) -> str:
        return self.at.path

    @property
    def taken(self) -> frozenset[str]:
        """The names that are known so far."""
        return frozenset(self._known)

    def take(self, name: str) -> At | None:
        """The field; None when it is not there or null. It is known from now on."""
        self._known.add(name)
        at = self.at.child(name)
        return None if at.value is None else at

    def place(self, name: str) -> At:
        """Where the field is or would be, to complain about."""
        return self.at.child(name)

    def has(self, name: str) -> bool:
        return self.take(name) is not None

    def read(self, name: str, how: Callable[[At], T], default: T) -> T:
        at = self.take(name)
        return default if at is None else how(at)

    def maybe(self, name: str, how: Callable[[At], T]) -> T | None:
        at = self.take(name)
        return None if at is None else how(at)

    def required(self, name: str, how: Callable[[At], T], default: T) -> T:
        at = self.take(name)
        if at is None:
            self.place(name).fault("is required")
            return default
        return how(at)

    def string(self, name: str, default: str = "") -> str:
        return self.read(name, At.string, default)

    def boolean(self, name: str, default: bool = False) -> bool:
        return self.read(name, At.boolean, default)

    def integer(self, name: str, low: int, high: int) -> int | None:
        return self.maybe(name, lambda at: at.integer(low, high))

    def choice(self, name: str, choices: Sequence[C], default: C, *, any_case: bool = False) -> C:
        return self.read(name, lambda at: at.choice(choices, any_case=any_case), default)

    def items(self, name: str, *, most: int | None = None) -> list[At]:
        return self.read(name, lambda at: at.items(most=most), [])

    def strings(self, name: str, *, most: int | None = None) -> tuple[str, ...]:
        return self.read(name, lambda at: at.strings(most=most), ())

    def fields(self, name: str) -> Fields:
        """A nested mapping; empty when it is not there."""
        at = self.take(name)
        return Fields(At({}, self.place(name).path, self.at.report)) if at is None else at.fields()

    def known(self, *names: str) -> None:
        """Fields that are right but not looked at."""
        self._known.update(names)

    def unused(self, *names: str) -> None:
        """Fields that are right but have no effect here: a warning for each that is given."""
        for name in names:
            at = self.take(name)
            if at is not None:
                at.warn("has no effect here")

    def close(self, unknown: Unknown) -> None:
        """Judges what was not taken."""
        if unknown is Unknown.IGNORED:
            return
        candidates = sorted(self._known)
        for name, value in self.at.value.items():
            if name in self._known:
                continue
            place = At(value, f"{self.path}.{name}" if self.path else name, self.at.report)
            meant = _meant(name, candidates)
            if unknown is Unknown.REFUSED or (unknown is Unknown.NEARLY_REFUSED and meant):
                place.fault("unknown field" + (f", did you mean {meant!r}?" if meant else ""))
            else:
                place.warn("not used here, ignored" + (f" (did you mean {meant!r}?)" if meant else ""))


def _meant(name: str, candidates: Sequence[str]) -> str | None:
    lower = {candidate.lower(): candidate for candidate in candidates}
    plain = name.lower().replace("-", "").replace("_", "")
    close = [plain] if plain in lower else get_close_matches(plain, list(lower), n=1, cutoff=0.75)
    return lower[close[0]] if close else None


def said(value: Any) -> str:
    """A value as a message names it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= 80 else value[:77] + "...")
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case int() if abs(value) >= 10**20:
            return "a number of more than 20 digits"
        case _:
            return str(value)


def _quote_hint(value: Any) -> str:
    kind: Literal["boolean", "number"]
    if isinstance(value, bool):
        kind = "boolean"
    elif isinstance(value, int | float):
        kind = "number"
    else:
        return ""
    return f" (a {kind} in YAML: put it in quotes)"
