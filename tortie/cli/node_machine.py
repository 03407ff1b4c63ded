"""What `tortie node cleanup` and `tortie node takeover` do alike: ask, carry out or only show, and say what became of
it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tortie.cli.errors import Misused, Refused
from tortie.cli.output import Output, note, print_as
from tortie.cni import install, plugin
from tortie.machine.carrying import carry_out
from tortie.machine.plan import Plan
from tortie.machine.reading import Places

STATE_DIR = "/var/lib/tortie"

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show every step and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[bool, typer.Option("--force", help="Even while the program runs that will put things back.")]
StateDir = Annotated[
    str, typer.Option("--state-dir", envvar="TORTIE_STATE_DIR", metavar="DIRECTORY", help="The agent's.")
]
Socket = Annotated[
    str, typer.Option("--socket", envvar="TORTIE_CNI_SOCKET", metavar="PATH", help="The agent's socket for the plugin.")
]
BinDir = Annotated[str, typer.Option("--bin-dir", metavar="DIRECTORY", help="Where CNI plugins are.")]
ConfDir = Annotated[str, typer.Option("--conf-dir", metavar="DIRECTORY", help="Where CNI configurations are.")]
SOCKET, BIN_DIR, CONF_DIR = plugin.SOCKET, str(install.PLUGINS), str(install.NETWORKS)


def perform(
    plan: Plan, places: Places, *, backup: Path, dry_run: bool, yes: bool, output: Output, nothing: str
) -> None:
    """Raises Refused when something could not be done, Misused when nobody can be asked."""
    if dry_run or not plan.steps:
        if not print_as(plan.as_json(), output):
            _show(plan, nothing)
        return
    if not yes:
        _ask(plan)
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    for step in plan.steps:
        complaint = carry_out(step, places, backup)
        if output is Output.TABLE:
            print(f"{'FAILED ' if complaint else 'removed'}  {step.kind} {step.object}{complaint and f': {complaint}'}")
        done.append({"kind": step.kind, "object": step.object, "command": step.shown, "failure": complaint})
        if complaint:
            failed.append(f"{step.kind} {step.object}: {complaint}")
    if not print_as({**plan.as_json(), "steps": done}, output):
        _rest(plan)
        if any(step.way == "move" for step in plan.steps):
            print(f"files are in {backup}: `cp -a {backup}/. /` puts them back")
    if failed:
        raise Refused(f"{len(failed)} of {len(done)} steps failed; run it again when that is mended", failed)


def _ask(plan: Plan) -> None:
    if not sys.stdin.isatty():
        raise Misused("nobody is here to ask: say --yes, or --dry-run to see what would be done")
    _show(plan, "")
    if not typer.confirm(f"{len(plan.steps)} steps. Go on?"):
        raise Refused("nothing was changed")


def _show(plan: Plan, nothing: str) -> None:
    if not plan.steps:
        print(nothing)
    for step in plan.steps:
        print(f"{step.kind} {step.object}")
        for line in step.shown.splitlines():
            print(f"    {line}")
    _rest(plan)


def _rest(plan: Plan) -> None:
    for kept in plan.kept:
        print(f"stays    {kept.kind} {kept.object}: {kept.reason}")
    for pod in plan.restart:
        print(f"restart  {pod}")
    for text in plan.notes:
        note(text)
