"""Typed identifiers, and how any Kubernetes name becomes one subject token and back.

A NATS subject is dot-separated tokens without white space, `*` or `>` (https://docs.nats.io/nats-concepts/subjects).
Kubernetes names hold dots, CIDRs hold slashes and colons, so every token is escaped: `[A-Za-z0-9_-]` stand for
themselves, every other UTF-8 byte is `=XX` in upper-case hex. The mapping is a bijection on non-empty strings;
the empty string (the namespace of a cluster-wide object) is the single token `_`, and a literal `_` is `=5F`.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

NodeName = NewType("NodeName", str)
BlockCidr = NewType("BlockCidr", str)
"""An address block in CIDR notation, masked (`10.244.0.64/26`)."""
HandleId = NewType("HandleId", str)
"""Who holds addresses: `<network>.<container id>` for a pod, `vxlan-tunnel-addr-<node>` for a tunnel device."""
GroupId = NewType("GroupId", str)
"""Identity of a set of endpoints: the uid of the canonical selector, see `selectors.Selector.uid`."""
RulesId = NewType("RulesId", str)
"""Identity of one policy's compiled rules, see `policy.rules_id`."""
DirectionId = NewType("DirectionId", str)
"""Identity of a direction that several endpoints name, see `shared_directions.direction_id`."""


class PodKey(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class MalformedToken(ValueError):
    """A subject token that `escape` cannot have produced."""


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_ASCII = {f"{b:02X}": chr(b) for b in range(128) if b not in _PLAIN}
_ESCAPED = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")


def escape(text: str) -> str:
    """One subject token for any string; `unescape` is its exact inverse."""
    if not text:
        return "_"
    if text == "_":
        return "=5F"
    if _SAFE.fullmatch(text):
        return text
    return "".join(chr(b) if b in _PLAIN else f"={b:02X}" for b in text.encode())


def unescape(token: str) -> str:
    """The string that `escape` made the token from. Raises MalformedToken."""
    if token == "_":
        return ""
    if _SAFE.fullmatch(token):
        return token
    if not _ESCAPED.fullmatch(token):
        raise MalformedToken(f"not an escaped subject token: {token!r}")
    head, *escaped = token.split("=")
    try:
        return head + "".join([_ASCII[part[:2]] + part[2:] for part in escaped])
    except KeyError:
        pass  # a letter beyond ASCII, or one that needs no escape: looked at closely
    out = bytearray()
    i = 0
    while i < len(token):
        if token[i] == "=":
            out.append(int(token[i + 1 : i + 3], 16))
            i += 3
        else:
            out.append(ord(token[i]))
            i += 1
    try:
        text = out.decode()
    except UnicodeDecodeError as error:
        raise MalformedToken(f"not UTF-8 after unescaping: {token!r}") from error
    if escape(text) != token:
        raise MalformedToken(f"not the canonical escape of {text!r}: {token!r}")
    return text
