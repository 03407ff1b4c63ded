"""AS numbers and durations in manifests."""

from __future__ import annotations

import re

from bus_schemas.manifests.fields import At, said

_DOTTED_AS = re.compile(r"([0-9]{1,5})\.([0-9]{1,5})")


def as_number(at: At) -> int:
    """A number, as text too, also in RFC 5396 `high.low` notation."""
    if isinstance(at.value, str):
        text = at.string()
        dotted = _DOTTED_AS.fullmatch(text)
        if dotted and int(dotted[1]) <= 0xFFFF and int(dotted[2]) <= 0xFFFF:
            return At(int(dotted[1]) << 16 | int(dotted[2]), at.path, at.report).integer(1, 0xFFFFFFFF)
        if text.isascii() and text.isdecimal():
            return At(int(text[:12]), at.path, at.report).integer(1, 0xFFFFFFFF)
        at.fault(f"must be an AS number (like 64512 or 1.10), not {said(text)}")
        return 1
    return at.integer(1, 0xFFFFFFFF)


DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+|0")


def duration(at: At) -> str:
    """A Go duration: `90s`, `1m30s`, `100ms`."""
    text = at.string()
    if at.value == text and not DURATION.fullmatch(text):
        at.fault(f"must be a duration (like 90s or 1m30s), not {said(text)}")
    return text
