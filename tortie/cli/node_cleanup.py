"""`tortie node cleanup`: leave this machine, with every trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tortie.cli import node_machine as machine
from tortie.cli.errors import Refused
from tortie.cli.output import Format, Output
from tortie.machine import ours, reading


def command(
    dry_run: machine.DryRun = False,
    yes: machine.Yes = False,
    pods: Annotated[
        bool, typer.Option("--pods", help="Remove the links of pods that run here, too: they lose the network.")
    ] = False,
    force: machine.Force = False,
    state_dir: machine.StateDir = machine.STATE_DIR,
    socket: machine.Socket = machine.SOCKET,
    bin_dir: machine.BinDir = machine.BIN_DIR,
    conf_dir: machine.ConfDir = machine.CONF_DIR,
    output: Format = Output.TABLE,
) -> None:
    """Remove from this machine whatever Tortie put there, and nothing else.

    Routes of protocol 84, tunnel devices, the policy tables, our BIRD with its routes, CNI plugin and configuration,
    kernel settings that nobody changed since, the agent's socket and directory. tunl0 is given back to the kernel. May
    be run again at any time.

    Stop the agent first: it refuses while one runs. While pods run here, their links, the routes to them, the policy
    and the agent's notes stay, unless --pods is given.

    Exit code 1: an agent runs, or something could not be removed.
    """
    places = reading.Places(
        state_dir=Path(state_dir), cni_socket=Path(socket), bin_dir=Path(bin_dir), conf_dir=Path(conf_dir)
    )
    found = reading.read(places, (state_dir, socket))
    if found.agent and not (force or dry_run):
        raise Refused(f"an agent runs here (it answers at {socket}) and would put everything back: stop it first")
    made = ours.plan(found, pods=pods, state_dir=state_dir, cni_socket=socket, bin_dir=bin_dir, conf_dir=conf_dir)
    machine.perform(
        made,
        places,
        backup=Path("/"),
        dry_run=dry_run,
        yes=yes,
        output=output,
        nothing="There is nothing of Tortie on this machine" + (" but what stays." if made.kept else "."),
    )
