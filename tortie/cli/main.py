"""The entry of the `tortie` command: finds the module of the command that is asked for, and turns its failure into a
sentence and an exit code (0 done, 1 refused, 2 misused or nobody to ask, 130 interrupted)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import typer

from tortie.cli import way
from tortie.cli.errors import CommandError


@dataclass(frozen=True)
class Entry:
    module: str
    """Has `command`, a function; or, for a group of commands, `app`."""
    help: str
    group: bool = False


COMMANDS: dict[str, Entry] = {
    "apply": Entry("tortie.cli.apply", "Create or replace the objects of manifests: all of them, or none."),
    "get": Entry("tortie.cli.get", "Show objects as a table, YAML or JSON; watch them change."),
    "delete": Entry("tortie.cli.delete", "Delete objects, by name or by manifest."),
    "validate": Entry("tortie.cli.validate", "Check manifests offline, without a cluster."),
    "convert": Entry("tortie.cli.convert", "Turn flannel's configuration into manifests.", group=True),
    "status": Entry("tortie.cli.status", "Show which components and nodes are alive, and why not."),
    "policy": Entry("tortie.cli.policy", "Explain policies, test them, preview a change of them.", group=True),
    "ipam": Entry("tortie.cli.ipam", "See how addresses are used, check them, change how they are given.", group=True),
    "node": Entry(
        "tortie.cli.node", "See one node closely: BGP, address, MTU; leave a machine, or take one over.", group=True
    ),
    "pod": Entry("tortie.cli.pod", "Pods of this node without Kubernetes: run, list, remove.", group=True),
    "events": Entry("tortie.cli.events", "Follow what happens.", group=True),
    "schema": Entry("tortie.cli.schema", "What is said on the bus: catalogue, AsyncAPI, releases.", group=True),
    "cni": Entry("tortie.cli.cni", "Connect this node's container runtimes.", group=True),
    "lab": Entry("tortie.cli.lab", "A whole cluster in network namespaces on this machine.", group=True),
    "serve": Entry("tortie.cli.serve", "Run a service in the foreground."),
    "version": Entry("tortie.cli.version", "Show the version, and whom commands ask."),
}


def build(wanted: str | None) -> typer.Typer:
    """The command line with the module of `wanted` loaded; the other commands are there by name and help only."""
    app = typer.Typer(
        name="tortie",
        help="Pod networking and network policy for Kubernetes and plain Linux.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, entry in COMMANDS.items():
        if name != wanted:
            app.command(name, help=entry.help)(_not_loaded)
        elif entry.group:
            app.add_typer(importlib.import_module(entry.module).app, name=name, help=entry.help, no_args_is_help=True)
        else:
            module = importlib.import_module(entry.module)
            settings = getattr(module, "CONTEXT_SETTINGS", None)
            app.command(name, help=entry.help, context_settings=settings)(module.command)
    return app


def _root() -> None:
    """Keeps the group a group; there are no options before the command."""


def _not_loaded() -> None:
    raise AssertionError("only the command that was asked for runs, and that one is loaded")


def main(arguments: Sequence[str] | None = None, *, called: str = "tortie") -> int:
    """Runs the command line (sys.argv by default); the exit code. `called`: what a person types for it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        from bus_schemas import VERSION

        print(f"tortie {VERSION}")
        return 0
    try:
        build(given[0] if given else None)(given, prog_name=called)
    except CommandError as error:
        for line in (f"tortie: {error}", *(f"  {detail}" for detail in error.details)):
            print(line, file=sys.stderr)
        return error.exit_code
    except SystemExit as end:
        # Typer ends with one, whatever the outcome: 0, what a command said with typer.Exit, 2 for a wrong usage.
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    finally:
        way.close()
    return 0
