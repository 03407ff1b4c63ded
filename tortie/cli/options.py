"""Options that several commands share, spelt once."""

from __future__ import annotations

from typing import Annotated

import typer

from tortie.cli.errors import Misused

Api = Annotated[
    str,
    typer.Option(
        "--api",
        envvar="TORTIE_API",
        metavar="ADDRESS",
        help="Where the api listens: http://host:port or unix:/path.",
        show_default="http://127.0.0.1:7460",
    ),
]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", envvar="TORTIE_NAMESPACE", metavar="NS", help="The namespace of namespaced kinds."
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--filename", "-f", metavar="FILE", help="Manifests: a file, a directory, or - for stdin. Repeatable."
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-R", help="Descend into the directories under -f.")]


def pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """`KEY=VALUE`, several. Raises Misused."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise Misused(f"{option} is written KEY=VALUE, not {text!r}")
        found[key] = value
    return found
