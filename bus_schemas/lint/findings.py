"""What a check has to say."""

from __future__ import annotations

from typing import Literal

import msgspec

from bus_schemas.resources import Resource

Severity = Literal["warning", "note"]
"""`warning`: it does not do what it says; `note`: it does nothing now, which may change."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    severity: Severity
    object: str
    """`NetworkPolicy/shop/web`."""
    path: str
    """`spec.ingress[0].from[1].ipBlock.cidr`; empty: the object as a whole."""
    says: str
    do: str
    """What to do about it."""

    @property
    def text(self) -> str:
        """In one line, without the object."""
        return f"{f'{self.path}: ' if self.path else ''}{self.says}: {self.do} [{self.code}]"


def warning(code: str, resource: Resource, path: str, says: str, do: str) -> Finding:
    return Finding(code=code, severity="warning", object=resource.display, path=path, says=says, do=do)


def note(code: str, resource: Resource, path: str, says: str, do: str) -> Finding:
    return Finding(code=code, severity="note", object=resource.display, path=path, says=says, do=do)
