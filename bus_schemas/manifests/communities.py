"""BGP communities in manifests: `AS:value` (RFC 1997) or `AS:data:data` (RFC 8092)."""

from __future__ import annotations

import re

from bus_schemas.manifests.fields import At, said

_STANDARD = re.compile(r"([0-9]{1,12}):([0-9]{1,12})")
_LARGE = re.compile(r"([0-9]{1,12}):([0-9]{1,12}):([0-9]{1,12})")


def community(at: At) -> str:
    text = at.string()
    if not is_community(text):
        at.fault(f"must be a community (like 64512:100 or 64512:1:100), not {said(at.value)}")
    return text


def is_community(text: str) -> bool:
    if parts := _STANDARD.fullmatch(text):
        return all(int(part) <= 0xFFFF for part in parts.groups())
    if parts := _LARGE.fullmatch(text):
        return all(int(part) <= 0xFFFFFFFF for part in parts.groups())
    return False
