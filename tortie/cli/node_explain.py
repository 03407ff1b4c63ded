"""`tortie node explain`: where a node's address and MTU come from, and why the others were not taken."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bus_schemas.node_facts import FACTS_FILE
from chassis.errors import SettingsError
from chassis.settings import load, variables
from services.node_dataplane.settings import Settings
from tortie.cli.client import Client, segment
from tortie.cli.errors import CommandError, Misused, Unreachable
from tortie.cli.options import Api
from tortie.cli.output import Format, Output, print_as, say_if_stale
from tortie.cli.tables import render

Json = dict[str, Any]

STATE_DIR = "/var/lib/tortie"
CNI_SOCKET = "/run/tortie/cni.sock"
MARKS = {"chosen": "*", "possible": "+", "skipped": "-"}


def command(
    node: Annotated[
        str, typer.Argument(metavar="[NODE]", help="Which node, by the api. Without it this machine, without the api.")
    ] = "",
    state_dir: Annotated[
        str, typer.Option("--state-dir", metavar="DIRECTORY", help="The agent's (TORTIE_STATE_DIR).")
    ] = "",
    now: Annotated[
        bool, typer.Option("--now", help="Detect afresh on this machine, with the TORTIE_ settings of this shell.")
    ] = False,
    output: Format = Output.TABLE,
    api: Api = "",
) -> None:
    """Explain a node's addresses, its MTU and the checksum offload of its tunnels.

    Exit code 1: there is no such node. 2: nobody could be asked.
    """
    client = Client(api)
    report = _detected() if now else _asked(client, node) if node and not _here(node) else _told(client, state_dir)
    if not print_as(report, output):
        print("\n".join(described(report, time.time())))
    say_if_stale(client)


def _here(node: str) -> bool:
    return node == (os.environ.get("TORTIE_NODE") or socket.gethostname())


def _asked(client: Client, node: str) -> Json:
    answer: Json = client.get(f"/v1/nodes/{segment(node)}/facts")
    if answer["facts"] is None:
        raise CommandError(f"nothing is heard of the agent of node {node}, so nothing is known of its devices")
    return {**answer["facts"], "agent": answer["agent"], "from": f"the api, {client.address}"}


def _told(client: Client, state_dir: str) -> Json:
    """This machine: what its agent wrote down; else what the api knows of it; else what is found now."""
    from services.node_dataplane.explain_here import written

    path = Path(state_dir or os.environ.get("TORTIE_STATE_DIR") or STATE_DIR, FACTS_FILE)
    if (facts := written(path)) is not None:
        return {**facts, "agent": _runs()}
    if state_dir:
        raise Misused(f"no agent has written {path}")
    try:
        return _asked(client, os.environ.get("TORTIE_NODE") or socket.gethostname())
    except (Unreachable, CommandError):
        return _detected()


def _runs() -> bool:
    """Whether the agent of this machine answers."""
    path = os.environ.get("TORTIE_CNI_SOCKET") or CNI_SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(1.0)
        try:
            agent.connect(path)
        except OSError:
            return False
    return True


def _detected() -> Json:
    from services.node_dataplane.explain_here import detected

    own = variables(Settings)
    try:
        settings = load(Settings, {name: value for name, value in os.environ.items() if name in own})
    except SettingsError as error:
        raise Misused("the settings of this shell cannot be", details=error.faults) from error
    return detected(settings)


def described(report: Json, now: float) -> Iterator[str]:
    """In words and tables."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report["time"]))
    yield f"Node {report['node']}, as of {at} (by {report['from']})"
    if report.get("agent") is False:
        yield "Its agent does not answer: this is what it found last."
    for address in report["addresses"]:
        yield ""
        yield from _address(address)
    yield ""
    yield from _mtu(report["mtu"])
    yield ""
    yield "Checksum offload of tunnels"
    if not report["offload"]:
        yield "  there is no VXLAN device"
    for device in report["offload"]:
        yield from _offload(device)
    if report["configured"]:
        yield ""
        yield "Configured"
        yield from (f"  {name}={value}" for name, value in report["configured"].items())


def _address(address: Json) -> Iterator[str]:
    family = f"IPv{address['family']}"
    if address["address"]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(address["since"]))
        yield f"{family} address {address['address']} on {address['device']}, since {since}"
    else:
        yield f"{family} address: none"
    yield f"  by {address['method']} ({address['source']})"
    if address["problem"]:
        yield f"  PROBLEM: {address['problem']}"
    rows = [[MARKS[c["verdict"]], c["device"], c["address"] or "-", c["reason"]] for c in address["candidates"]]
    if rows:
        shown = render(["", "DEVICE", "ADDRESS", "WHY (* chosen, + possible, - not)"], rows)
        yield from (f"  {line}" for line in shown.splitlines())


def _mtu(mtu: Json) -> Iterator[str]:
    yield f"MTU of pods that start now: {mtu['cni'] or mtu['pods']}"
    if mtu["cni"]:
        yield f"  the CNI configuration says {mtu['cni']}; else it would be {mtu['pods']}"
    yield f"  MTU of the uplink: {mtu['uplink']}"
    yield from (f"  {term['mtu']:>5}  {term['what']}: {term['how']}" for term in mtu["terms"])
    if len(mtu["terms"]) > 1:
        yield f"  {mtu['pods']:>5}  the least of these"
    yield from (f"  PROBLEM: {problem}" for problem in mtu["problems"])


def _offload(device: Json) -> Iterator[str]:
    state = {True: "on", False: "off", None: "cannot be read"}[device["on"]]
    yield f"  {device['device']}: {state} (read back), {device['evidence']}: {device['reason']}"
    if device["check"] and device["check"] not in device["reason"]:
        yield f"    {device['check']}"
