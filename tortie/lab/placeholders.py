"""`@ip(develop/web)` and its like: names in a scenario for what is known only while it runs.

    @uplink @vxlan @ipip                the device of that role, on the node where the text is used
    @ip(POD) @link(POD)                 the pod's address; its device on its node
    @block(NODE) @vtep(NODE)            the node's first address block; its tunnel address

What one stood for when it was last known still holds: what went away is exactly what a scenario wants to speak of
(`no_routes: {dst: "@block(gone)"}`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tortie.lab.errors import CannotDo, ScenarioFault


class Placeholder(NamedTuple):
    word: str
    of: str
    """The pod or node; empty for a device role."""

    def __str__(self) -> str:
        return f"@{self.word}({self.of})" if self.of else f"@{self.word}"


ROLES = ("uplink", "vxlan", "ipip")
SUBJECTS = ("ip", "link", "block", "vtep")
_PATTERN = re.compile(rf"@(?:({'|'.join(SUBJECTS)})\(([^()\s]+)\)|({'|'.join(ROLES)})\b)")


def find(text: str) -> set[Placeholder]:
    """Every placeholder in the text."""
    return {_placeholder(match) for match in _PATTERN.finditer(text)}


def _placeholder(match: re.Match[str]) -> Placeholder:
    word, of, role = match.groups()
    return Placeholder(role, "") if role else Placeholder(word, of)


class Memory:
    """What the placeholders of one scenario stand for, and stood for."""

    def __init__(self, placeholders: set[Placeholder]) -> None:
        self._placeholders = {p for p in placeholders if p.of}
        self._known: dict[Placeholder, str] = {}

    @property
    def placeholders(self) -> set[Placeholder]:
        """The ones that need to be looked up; device roles are constants."""
        return self._placeholders

    def learn(self, now: Mapping[Placeholder, str]) -> None:
        """What they stand for now. The others keep what they stood for."""
        self._known |= now

    def unknown(self, value: Any) -> bool:
        """Whether a placeholder in the value has never stood for anything."""
        return bool({p for p in find(str(value)) if p.of} - self._known.keys())

    def fill(self, value: Any, roles: Mapping[str, str]) -> Any:
        """`value` (a text, or lists and mappings of texts) with every placeholder replaced; `roles` are the devices
        of the node in question. Raises CannotDo when one has never stood for anything."""
        match value:
            case str():
                return _PATTERN.sub(lambda match: self._meaning(_placeholder(match), roles), value)
            case dict():
                return {key: self.fill(item, roles) for key, item in value.items()}
            case list() | tuple():
                return [self.fill(item, roles) for item in value]
        return value

    def _meaning(self, placeholder: Placeholder, roles: Mapping[str, str]) -> str:
        if not placeholder.of:
            if placeholder.word not in roles:
                raise ScenarioFault(f"{placeholder} has no meaning here: it is a device of one node")
            return roles[placeholder.word]
        if placeholder not in self._known:
            raise CannotDo(f"{placeholder} does not stand for anything yet")
        return self._known[placeholder]
