"""Ports in rules: numbers, ranges and names, as Calico and Kubernetes write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from bus_schemas.policy import PortRange
from services.policy_compiler.errors import Uncompilable

MAX_PORT = 65535

_RANGE = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")
_NUMBERS = re.compile(r"[0-9:]+")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Ports(NamedTuple):
    """One positive (or negative) list."""

    ranges: tuple[PortRange, ...]
    """Ascending, apart from one another."""
    names: tuple[str, ...]
    """Ascending, distinct."""


def ports(values: Iterable[int | str]) -> Ports:
    """Numbers, `"first:last"` and names. Raises Uncompilable."""
    ranges: list[PortRange] = []
    names: set[str] = set()
    for value in values:
        if isinstance(value, int):
            ranges.append(span(value, value))
        elif match := _RANGE.fullmatch(value):
            ranges.append(span(int(match[1]), int(match[2] or match[1])))
        elif _NAME.fullmatch(value) and not _NUMBERS.fullmatch(value):
            names.add(value)
        else:
            raise Uncompilable(f"{value!r} is neither a port, nor a range, nor a name")
    return Ports(merged(ranges), tuple(sorted(names)))


def span(first: int, last: int) -> PortRange:
    """Raises Uncompilable."""
    if not 0 <= first <= last <= MAX_PORT:
        raise Uncompilable(f"{first}:{last} is not a range of ports")
    return PortRange(first=first, last=last)


def merged(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports in the fewest ranges."""
    result: list[PortRange] = []
    for r in sorted(ranges, key=lambda r: (r.first, r.last)):
        if result and r.first <= result[-1].last + 1:
            if r.last > result[-1].last:
                result[-1] = PortRange(first=result[-1].first, last=r.last)
        else:
            result.append(r)
    return tuple(result)
