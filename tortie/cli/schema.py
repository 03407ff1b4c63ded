"""`tortie schema`: what is said on the bus, written down, and what a release may change of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bus_schemas import VERSION
from tortie.catalogue import asyncapi, compare, events_page
from tortie.catalogue.snapshot import snapshot
from tortie.cli.errors import CommandError
from tortie.crds import definition

app = typer.Typer()

Directory = Annotated[
    Path, typer.Option("--directory", help="Where the schemas of releases are: one `<version>.json` each.")
]
RELEASED = Path("docs/schemas")


@app.command()
def events() -> None:
    """Print the catalogue of events and state (docs/events.md)."""
    print(events_page.page(), end="")


@app.command(name="asyncapi")
def as_asyncapi() -> None:
    """Print the AsyncAPI 3 document (docs/asyncapi.yaml)."""
    print(asyncapi.text(), end="")


@app.command()
def crds(
    group: Annotated[str, typer.Option("--group", help=f"Only those of {' or '.join(definition.GROUPS)}.")] = "",
    write: Annotated[
        Path | None,
        typer.Option("--write", help="Write them to this directory (k8s/crds), one file each, with kustomizations."),
    ] = None,
) -> None:
    """Print the CustomResourceDefinitions of Calico's kinds (k8s/crds), for `kubectl apply --server-side -f -`."""
    if group and group not in definition.GROUPS:
        raise CommandError(f"--group must be {' or '.join(definition.GROUPS)}, not {group!r}")
    groups = (group,) if group else definition.GROUPS
    if write is None:
        print(definition.text(groups), end="")
        return
    made = definition.files(groups)
    for name, text in made.items():
        path = write / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for directory in (write / one for one in groups):
        for path in directory.glob("*.yaml"):
            if str(path.relative_to(write)) not in made:
                path.unlink()
    print(f"{write} holds the CustomResourceDefinitions of {', '.join(groups)}")


@app.command(name="json")
def as_json() -> None:
    """Print all schemas as JSON, in the form that releases are compared by."""
    print(_text(snapshot()), end="")


@app.command()
def check(directory: Directory = RELEASED) -> None:
    """Compare with the last release: whatever its readers would not understand any more is named, and the exit is 1."""
    last = last_release(directory)
    if last is None:
        raise CommandError(f"{directory} holds no release: `tortie schema release` makes one")
    if found := compare.faults(json.loads(last.read_text()), snapshot()):
        raise CommandError(f"what {last.stem} says is not understood any more without a new version", found)
    print(f"whatever {last.stem} says is understood")


@app.command()
def release(
    directory: Directory = RELEASED,
    again: Annotated[bool, typer.Option("--again", help="Write a release that is there already anew.")] = False,
) -> None:
    """Keep the schemas of this version, to be compared with from now on."""
    path = directory / f"{VERSION}.json"
    if path.exists() and path.read_text() != _text(snapshot()) and not again:
        raise CommandError(
            f"{path} is there and differs: raise VERSION in bus_schemas/__init__.py, or say --again if it was never out"
        )
    last = last_release(directory, but=path)
    if last is not None and (found := compare.faults(json.loads(last.read_text()), snapshot())):
        raise CommandError(f"what {last.stem} says is not understood any more without a new version", found)
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(snapshot()))
    print(f"{path} holds the schemas of {VERSION}")


def last_release(directory: Path, but: Path | None = None) -> Path | None:
    """The newest of a directory's releases."""
    found = [path for path in directory.glob("*.json") if path != but]
    return max(found, key=lambda path: [int(part) for part in path.stem.split(".")], default=None)


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
