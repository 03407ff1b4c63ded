"""`tortie node takeover`: take this machine over from flannel or Calico."""

from __future__ import annotations

import time
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import typer

from tortie.cli import node_machine as machine
from tortie.cli.errors import Misused, Refused
from tortie.cli.output import Format, Output, note
from tortie.cni import install
from tortie.machine import calico, flannel, reading

BACKUPS = "/var/backups/tortie"


class From(StrEnum):
    FLANNEL = "flannel"
    CALICO = "calico"


def command(
    source: Annotated[From, typer.Option("--from", help="Whose machine it was.")],
    dry_run: machine.DryRun = False,
    yes: machine.Yes = False,
    pods: Annotated[
        bool, typer.Option("--pods", help="Remove the links of its pods that run here, too: they lose the network.")
    ] = False,
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", metavar="CIDR", help="A pool of Calico's that no set names here any more. Repeatable."),
    ] = None,
    backup: Annotated[
        str, typer.Option("--backup", metavar="DIRECTORY", help="Where its files go.", show_default=f"below {BACKUPS}")
    ] = "",
    force: machine.Force = False,
    root: Annotated[
        str,
        typer.Option(
            "--root", metavar="DIRECTORY", help="Where the machine's files are, when this runs in a container."
        ),
    ] = "/",
    bin_dir: machine.BinDir = machine.BIN_DIR,
    conf_dir: machine.ConfDir = machine.CONF_DIR,
    output: Format = Output.TABLE,
) -> None:
    """Remove what flannel or Calico left on this machine: devices, routes, chains, sets, CNI files.

    In the order that breaks the least: its CNI configuration first, so that new pods are Tortie's; then chains, sets,
    rules and routes; devices and files last. Files are moved into a backup. What cannot be told as theirs stays, and is
    named. kube-proxy's chains are not touched.

    Remove its DaemonSet first: it refuses while its program runs here. Pods that run keep their links and lose the way
    to other nodes: they are listed, and must be started again; --pods removes their links at once.

    Exit code 1: its program still runs, or something could not be removed.
    """
    for text in pool or ():
        try:
            ip_network(text)
        except ValueError as error:
            raise Misused(f"--pool: {error}") from error
    places = reading.Places(
        root=Path(root),
        bin_dir=Path(root) / bin_dir.lstrip("/"),
        conf_dir=Path(root) / conf_dir.lstrip("/"),
        cache_dir=Path(root) / "var/lib/cni",
    )
    theirs = {From.FLANNEL: flannel, From.CALICO: calico}[source]
    found = reading.read(places, (*theirs.FILES, *((calico.BPF,) if source is From.CALICO else ())))
    if theirs.PROGRAM in found.processes and not (force or dry_run):
        raise Refused(f"{theirs.PROGRAM} runs here and would put everything back: remove its DaemonSet first")
    made = (
        flannel.plan(found, pods=pods)
        if source is From.FLANNEL
        else calico.plan(found, pods=pods, pools=tuple(pool or ()))
    )
    if made.steps and not any(install.NAME in types for _, types, _ in found.networks):
        note("Tortie's own CNI configuration is not here yet (`tortie cni install`): until it is, no new pod can start")
    machine.perform(
        made,
        places,
        backup=Path(backup or f"{BACKUPS}/{source.value}-{time.strftime('%Y%m%d-%H%M%S')}"),
        dry_run=dry_run,
        yes=yes,
        output=output,
        nothing=f"There is nothing of {source.value} on this machine" + (" but what stays." if made.kept else "."),
    )
