"""Text -> plain values: YAML with several documents, or JSON, one outcome for each document.

The text is cut at its `---` lines first (a line that begins so always ends a document, whatever stands before it), so a
syntax error in one document leaves the others readable.

Plain scalars mean what they mean to Kubernetes' own reader, not to YAML 1.1 in full: `yes` and `on` are booleans and
`1e3` is a number, but `10:20` is text (a range of ports, no sexagesimal number) and so is a date. Whoever wants text
that looks otherwise has to quote it. Refused are keys given twice, keys that are no text, infinities, aliases that
contain themselves, and documents that unfold beyond MAX_VALUES or MAX_DEPTH.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

MAX_VALUES = 1_000_000
"""Values in one document, aliases counted as often as they are used."""
MAX_DEPTH = 64
"""Nesting of one document."""


@dataclass(frozen=True, slots=True)
class Document:
    value: Any
    """Built of dict (with str keys), list, str, int, float, bool and None."""
    line: int
    """Where it begins, counted from 1."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    reason: str
    line: int


def documents(text: str) -> Iterator[Document | Unreadable]:
    """Every document of the text, in order; empty ones are left out."""
    text = text.removeprefix("\ufeff")
    try:
        text.encode()
    except UnicodeEncodeError:
        yield Unreadable("the text holds a lone surrogate, which is no character", 1)
        return
    if text.lstrip().startswith("{"):
        parsed = _json_documents(text)
        if parsed is not None:
            yield from parsed
            return
    for chunk, first, line in _chunks(text):
        yield from _yaml_documents(chunk, first, line)


# --- JSON


class _Refused(ValueError):
    """A document that is well-formed but not allowed. `mark` is PyYAML's position, where it is known."""

    def __init__(self, reason: str, mark: Any = None) -> None:
        super().__init__(reason)
        self.mark = mark


def _json_documents(text: str) -> list[Document | Unreadable] | None:
    """The documents of a text of JSON objects, one after the other; None: it is not JSON (it may be YAML in braces)."""
    decoder = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)
    found: list[Document | Unreadable] = []
    at = _blank(text, 0)
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        try:
            value, end = decoder.raw_decode(text, at)
        except _Refused as error:
            return [*found, Unreadable(str(error), line)]
        except RecursionError:
            return [*found, Unreadable(f"nested deeper than {MAX_DEPTH}", line)]
        except ValueError:
            return None
        found.append(Document(value, line) if _depth_allowed(value) else _too_deep(line))
        at = _blank(text, end)
    return found


def _blank(text: str, at: int) -> int:
    """The first position from `at` on that is no white space."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise _Refused(f"the key {key!r} is given twice")
        mapping[key] = value
    return mapping


def _no_constant(name: str) -> Any:
    raise _Refused(f"{name} is not a number that a manifest can hold")


def _depth_allowed(value: Any) -> bool:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return False
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return True


def _too_deep(line: int) -> Unreadable:
    return Unreadable(f"nested deeper than {MAX_DEPTH}", line)


# --- YAML

_MARKER = re.compile(r"^---(?=[ \t\r]|$)", re.MULTILINE)
_NOTHING = re.compile(r"(?:[ \t]*(?:#.*)?\r?\n|%.*\n|---[ \t]*\r?\n)*(?:[ \t]*#.*|%.*|---[ \t]*|[ \t]*)")

_TYPES: dict[str, tuple[type, ...]] = {
    "tag:yaml.org,2002:int": (int,),
    "tag:yaml.org,2002:float": (int, float),
    "tag:yaml.org,2002:bool": (bool,),
    "tag:yaml.org,2002:null": (type(None),),
}

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Used for its events only: composing nodes recurses in C without a bound on the depth."""


def _chunks(text: str) -> Iterator[tuple[str, int, int]]:
    """The parts between the `---` lines, each with the lines where it and where its content begins."""
    starts = [0, *(match.start() for match in _MARKER.finditer(text)), len(text)]
    line = 1
    for start, end in pairwise(starts):
        chunk = text[start:end]
        if not _NOTHING.fullmatch(chunk):
            leading = re.match(r"(?:---)?(?:[ \t]*(?:#.*)?\r?\n)*", chunk)
            assert leading is not None
            yield chunk, line, line + leading[0].count("\n")
        line += chunk.count("\n")


def _yaml_documents(chunk: str, first: int, line: int) -> Iterator[Document | Unreadable]:
    """`first` is the line of the text where the chunk begins, `line` where its content does."""
    try:
        loader = _LOADER(chunk)
    except yaml.YAMLError as error:
        yield Unreadable(f"not YAML: {error}", line)
        return
    try:
        loader.get_event()
        while not loader.check_event(yaml.StreamEndEvent):
            loader.get_event()
            value = _Builder(loader).value(0)
            loader.get_event()
            if value is not None:
                yield Document(value, line)
    except yaml.MarkedYAMLError as error:
        said = " ".join(filter(None, (error.context, error.problem)))
        # the parser reads ahead of the builder, and newer ones have a limit of their own
        reason = f"nested deeper than {MAX_DEPTH}" if "nesting depth" in said else f"not YAML: {said}"
        yield Unreadable(f"{reason}{_at(error.problem_mark, first)}", line)
    except yaml.YAMLError as error:
        yield Unreadable(f"not YAML: {error}", line)
    except _Refused as error:
        yield Unreadable(f"{error}{_at(error.mark, first)}", line)
    finally:
        loader.dispose()


def _at(mark: Any, first: int) -> str:
    return "" if mark is None else f" (line {first + mark.line})"


class _Builder:
    """Events -> the value of one document. Aliases share what they stand for and are counted as often as used."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._anchored: dict[str, tuple[Any, int]] = {}
        self._open: set[str] = set()
        self._values = 0

    def value(self, depth: int) -> Any:
        event = self._loader.get_event()
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH}")
        before = self._values
        self._count(1)
        if event.anchor is not None:
            self._anchored.pop(event.anchor, None)
            self._open.add(event.anchor)
        value: Any
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not self._ended(yaml.SequenceEndEvent):
                value.append(self.value(depth + 1))
        else:
            value = _scalar(event)
        if event.anchor is not None:
            self._open.discard(event.anchor)
            self._anchored[event.anchor] = (value, self._values - before)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Any:
        if event.anchor in self._open:
            raise _Refused(f"the alias *{event.anchor} contains itself")
        if event.anchor not in self._anchored:
            raise _Refused(f"the alias *{event.anchor} stands for nothing", event.start_mark)
        value, values = self._anchored[event.anchor]
        self._count(values)
        return value

    def _ended(self, event: type[yaml.Event]) -> bool:
        if not self._loader.check_event(event):
            return False
        self._loader.get_event()
        return True

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _Refused(f"more than {MAX_VALUES} values")

    def _mapping(self, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not self._ended(yaml.MappingEndEvent):
            event = self._loader.peek_event()
            if _is_plain(event) and event.value == "<<":
                self._loader.get_event()
                for key, value in self._parts(self.value(depth + 1)):
                    merged.setdefault(key, value)
                continue
            key = _key(self.value(depth + 1), event)
            if key in mapping:
                raise _Refused(f"the key {key!r} is given twice", event.start_mark)
            mapping[key] = self.value(depth + 1)
        return merged | mapping

    def _parts(self, value: Any) -> Iterator[tuple[str, Any]]:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise _Refused("'<<' must be followed by a mapping or a list of mappings")
            self._count(len(part))
            yield from part.items()


def _key(key: Any, event: yaml.Event) -> str:
    if isinstance(key, str):
        return key
    if type(key) is int:
        return str(key)
    if isinstance(event, yaml.ScalarEvent):
        raise _Refused(f"the key {event.value!r} is read as {_kind(key)}, not as text: quote it", event.start_mark)
    raise _Refused("a key must be text", event.start_mark)


def _is_plain(event: yaml.Event) -> bool:
    """An unquoted scalar without a tag of its own."""
    return isinstance(event, yaml.ScalarEvent) and event.tag is None and event.implicit[0]


def _scalar(event: yaml.ScalarEvent) -> Any:
    if _is_plain(event):
        return plain(event.value)
    if event.tag in (None, "!", "tag:yaml.org,2002:str"):
        return event.value
    if event.tag in _TYPES:
        value = plain(event.value)
        if type(value) in _TYPES[event.tag]:
            return value
    raise _Refused(f"the tag {event.tag!r} on {event.value!r} cannot be read", event.start_mark)


def _kind(value: Any) -> str:
    return {bool: "a boolean", float: "a number", type(None): "null"}.get(type(value), "text")


_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEAN = {
    word: truth
    for truth, words in ((True, ("y", "yes", "true", "on")), (False, ("n", "no", "false", "off")))
    for lower in words
    for word in (lower, lower.capitalize(), lower.upper())
}
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
MAX_DIGITS = 64


def plain(text: str) -> Any:
    """What an unquoted scalar means: None, a bool, an int, a float or the text itself."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if len(text) <= MAX_DIGITS:
        if _INTEGER.fullmatch(text) and text[-1] != "_":
            return _integer(text.replace("_", ""))
        if _NUMBER.fullmatch(text):
            return float(text)
    if _NOT_FINITE.fullmatch(text):
        raise _Refused(f"{text} is not a number that a manifest can hold")
    return text


def _integer(text: str) -> int:
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    if digits[:1] == "0" and digits[1:].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def means_itself(text: str) -> bool:
    """Unquoted, the text would be read as this very text, by any reader."""
    try:
        return isinstance(plain(text), str)
    except _Refused:
        return False
