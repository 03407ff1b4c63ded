"""`tortie cni`: what a container runtime needs on a node, the plugin and a network configuration that names it."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tortie.cli.errors import Misused, Refused
from tortie.cli.options import pairs
from tortie.cli.output import note
from tortie.cni import install, plugin

app = typer.Typer()

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
WAIT_S = 0.5
_NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")

Network = Annotated[str, typer.Option("--network", metavar="NAME", help="The network's name.")]
Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="KEY=VALUE", help="A label of containers that no Pod resource describes. Repeatable."
    ),
]
Chain = Annotated[
    list[str] | None,
    typer.Option(
        "--chain", metavar="PLUGIN", help=f"A plugin to call after ours: {', '.join(install.CHAINED)}. Repeatable."
    ),
]
Socket = Annotated[str, typer.Option("--socket", metavar="PATH", help="The agent's socket, its TORTIE_CNI_SOCKET.")]
Version = Annotated[str, typer.Option("--cni-version", metavar="VERSION", help=f"One of {', '.join(VERSIONS)}.")]


@app.command("install")
def install_(
    network: Network = install.NETWORK,
    label: Label = None,
    chain: Chain = None,
    socket: Socket = plugin.SOCKET,
    cni_version: Version = "1.0.0",
    bin_dir: Annotated[Path, typer.Option("--bin-dir", metavar="DIRECTORY", help="For the plugin.")] = install.PLUGINS,
    conf_dir: Annotated[
        Path, typer.Option("--conf-dir", metavar="DIRECTORY", help="For the configuration.")
    ] = install.NETWORKS,
    file: Annotated[str, typer.Option("--file", metavar="NAME", help="Of the configuration.")] = install.FILE,
    front: Annotated[
        Path | None,
        typer.Option(
            "--front",
            metavar="FILE",
            help=f"The static front end, for hosts without Python (`make cni-front`). {install.FRONT} if it is there, "
            "and else the plugin in Python.",
        ),
    ] = None,
    plugin_: Annotated[bool, typer.Option("--plugin/--no-plugin", help="Write the plugin.")] = True,
    configuration: Annotated[
        bool, typer.Option("--configuration/--no-configuration", help="Write the configuration, after the plugin.")
    ] = True,
    when_ready: Annotated[
        bool,
        typer.Option(
            "--when-ready",
            help="Write the configuration when the agent can take pods, however long that is: it is what makes a "
            "Kubernetes node ready.",
        ),
    ] = False,
    chain_if_there: Annotated[
        list[str] | None,
        typer.Option(
            "--chain-if-there", metavar="PLUGIN", help="As --chain, if the plugin is in --bin-dir. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the configuration, write nothing.")] = False,
) -> None:
    """Write the plugin and a network configuration that names it; again to replace them."""
    chain, perhaps = chain or [], chain_if_there or []
    unknown = [name for name in (*chain, *perhaps) if name not in install.CHAINED]
    if unknown:
        raise Misused(f"--chain: {', '.join(unknown)} is not one of {', '.join(install.CHAINED)}")
    if not (plugin_ or configuration):
        raise Misused("--no-plugin and --no-configuration: nothing is left to be written")
    missing = install.absent(perhaps, [bin_dir])
    chain += [name for name in perhaps if name not in missing and name not in chain]
    if not _NETWORK.fullmatch(network):
        raise Misused(f"--network: {network!r} is not a network's name: letters, digits, and then _ . - too")
    if cni_version not in VERSIONS:
        raise Misused(f"--cni-version: {cni_version} is not one of {', '.join(VERSIONS)}")
    if Path(file).name != file or not file.endswith(".conflist"):
        raise Misused(f"--file: {file!r} is not a file name that ends in .conflist")
    labels = pairs("--label", label)
    written = install.conflist(socket=socket, network=network, version=cni_version, labels=labels, chain=chain)
    if dry_run:
        print(install.text_of(written), end="")
        return
    if front is None and install.FRONT.exists():
        front = install.FRONT
    if plugin_ and front is not None and not front.is_file():
        raise Misused(f"--front: {front} is not there; `make cni-front` builds it")
    try:
        if plugin_:
            print(install.install_plugin(bin_dir) if front is None else install.install_front(bin_dir, front))
        if configuration:
            if when_ready:
                _wait(socket)
            print(install.install_conflist(conf_dir, written, file=file))
    except OSError as error:
        raise Refused(f"cannot write {error.filename}: {error.strerror}") from error
    absent = install.absent(chain, (bin_dir, *install.ELSEWHERE))
    if absent and configuration:
        print(
            f"warning: {', '.join(absent)} is not in {bin_dir}: Debian's containernetworking-plugins has it",
            file=sys.stderr,
        )


def _wait(socket: str) -> None:
    """Returns when the agent says that it can take pods; says what it waits for."""
    said = ""
    while obstacle := install.obstacle(socket):
        if obstacle != said:
            note(f"waiting: {obstacle}")
        said = obstacle
        time.sleep(WAIT_S)
