"""The files behind `-f`: found, read, and joined into one text whose lines can be traced back to their file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tortie.cli.errors import Misused

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Source:
    name: str
    text: str


def read(names: Sequence[str], *, recursive: bool) -> list[Source]:
    """Every source that the names stand for, in order; directories give their manifests by name. Raises Misused."""
    return [source for name in names for source in _read(name, recursive)]


def _read(name: str, recursive: bool) -> Iterator[Source]:
    if name == "-":
        yield Source("stdin", sys.stdin.read())
        return
    path = Path(name)
    if path.is_dir():
        found = sorted(path.rglob("*") if recursive else path.iterdir())
        files = [file for file in found if file.suffix in SUFFIXES and file.is_file()]
        if not files:
            deeper = "" if recursive else " (-R looks deeper)"
            raise Misused(f"{name}: no {', '.join(SUFFIXES)} file in this directory{deeper}")
    else:
        files = [path]
    for file in files:
        try:
            yield Source(str(file), file.read_text(encoding="utf-8"))
        except OSError as error:
            raise Misused(f"{file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise Misused(f"{file}: not text in UTF-8") from error


class Joined:
    """Several sources as one text of documents."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._starts: list[tuple[int, str]] = []
        """(the line of the joined text before a source's first one, the source's name)."""
        if len(sources) == 1:
            self.text = sources[0].text
            self._starts.append((0, sources[0].name))
            return
        parts: list[str] = []
        lines = 0
        for source in sources:
            part = f"---\n{source.text}\n"
            self._starts.append((lines + 1, source.name))
            parts.append(part)
            lines += part.count("\n")
        self.text = "".join(parts)

    def place(self, line: int) -> str:
        """`file:line` of a line (from 1) of the text; empty for 0, an unknown line."""
        if line < 1:
            return ""
        before, name = next(((b, n) for b, n in reversed(self._starts) if b < line), self._starts[0])
        return f"{name}:{line - before}"
