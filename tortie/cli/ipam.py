"""`tortie ipam`: how full the pools are, whose an address is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.options import Api
from tortie.cli.tables import render

app = typer.Typer()

BIG = 10**12
"""From here on a number of addresses is printed in powers of ten."""


@app.callback()
def _group() -> None:
    """Keeps `show` a command of its own while it is the only one."""


@app.command()
def show(
    show_blocks: Annotated[bool, typer.Option("--show-blocks", help="Also every block, and whose it is.")] = False,
    show_configuration: Annotated[
        bool, typer.Option("--show-configuration", help="How addresses are given out, instead of how many.")
    ] = False,
    ip: Annotated[str, typer.Option("--ip", metavar="ADDRESS", help="Who holds this address, instead.")] = "",
    api: Api = "",
) -> None:
    """Show how many addresses there are and how many are in use."""
    client = Client(api)
    if ip:
        print(_owner(client.get("/v1/ipam", {"ip": ip})["address"]))
        return
    report = client.get("/v1/ipam")
    if show_configuration:
        print(render(["PROPERTY", "VALUE"], [[key, str(value)] for key, value in report["configuration"].items()]))
        return
    headings = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"]
    rows = []
    for pool in report["pools"]:
        rows.append(_row("IP Pool", pool))
        if show_blocks:
            rows += [[*_row("Block", block), block["node"] or "-"] for block in pool["blocks"]]
    if show_blocks:
        headings.append("NODE")
        rows += [[*_row("Block without pool", block), block["node"] or "-"] for block in report["orphans"]]
    print(render(headings, [row + [""] * (len(headings) - len(row)) for row in rows]))


def _row(grouping: str, counted: dict[str, Any]) -> list[str]:
    total, used, free = counted["total"], counted["inUse"], counted["free"]
    return [grouping, counted["cidr"], _number(total), _share(used, total), _share(free, total)]


def _share(part: int, total: int) -> str:
    return f"{_number(part)} ({round(100 * part / total)}%)"


def _number(count: int) -> str:
    return str(count) if count < BIG else f"{count:.4e}"


def _owner(address: dict[str, Any]) -> str:
    ip, pool = address["ip"], address["pool"]
    if not address["assigned"]:
        block = f"block {address['block']} of node {address['owner'] or '(none)'}, " if address["block"] else ""
        return f"{ip} is not assigned ({block}{f'pool {pool}' if pool else 'in no pool'})"
    holder = f"pod {address['namespace']}/{address['pod']}" if address["pod"] else f"use {address['use'] or 'unknown'}"
    lines = [f"{ip} is in use: {holder} on node {address['node']}"]
    for heading, key in (
        ("Namespace", "namespace"),
        ("Pod", "pod"),
        ("Node", "node"),
        ("Use", "use"),
        ("Handle", "handle"),
        ("Block", "block"),
        ("Pool", "pool"),
    ):
        if address[key]:
            lines.append(f"  {heading + ':':<11}{address[key]}")
    if address["owner"] != address["node"]:
        lines.append(f"  Borrowed from a block of node {address['owner'] or '(none)'}")
    return "\n".join(lines)
