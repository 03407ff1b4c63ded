"""`tortie ipam show`: how full the pools are, what is borrowed, what is in force, whose an address is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.errors import Misused
from tortie.cli.options import Api
from tortie.cli.output import Format, Output, moment, note, print_as, say_if_stale
from tortie.cli.tables import render

BIG = 10**12
"""From here on a number of addresses is printed in powers of ten."""

TYPES = {
    "workload": "Pod",
    "tunnel": "Tunnel",
    "loadbalancer": "Service",
    "floating": "Floating",
    "warm": "Warm",
}
"""AssignRequest.use -> the word in the column TYPE."""

_HEADINGS = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"]
_BORROWED = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"]


def command(
    show_blocks: Annotated[bool, typer.Option("--show-blocks", help="Also every block, and whose it is.")] = False,
    show_borrowed: Annotated[
        bool, typer.Option("--show-borrowed", help="The addresses that nodes use out of others' blocks, instead.")
    ] = False,
    show_configuration: Annotated[
        bool, typer.Option("--show-configuration", help="How addresses are given out, instead of how many.")
    ] = False,
    ip: Annotated[str, typer.Option("--ip", metavar="ADDRESS", help="Who holds this address, instead.")] = "",
    output: Format = Output.TABLE,
    api: Api = "",
) -> None:
    """Show how many addresses there are and how many are in use.

    IPS RESERVED are those that an IPReservation keeps back and nobody uses: in use, reserved and free make up the
    total.
    """
    if sum((bool(ip), show_borrowed, show_configuration, show_blocks)) > 1:
        raise Misused("--ip, --show-blocks, --show-borrowed and --show-configuration are four different questions")
    client = Client(api)
    if ip:
        address = client.get("/v1/ipam", {"ip": ip})["address"]
        if not print_as(address, output):
            print(owner(address))
    elif show_borrowed:
        items = client.get("/v1/ipam/borrowed")["items"]
        if not print_as(items, output):
            _print_borrowed(items)
    elif show_configuration:
        configuration = client.get("/v1/ipam/configuration")
        if not print_as(configuration, output):
            print(render(["PROPERTY", "VALUE"], [[key, str(value)] for key, value in configuration.items()]))
    else:
        _show_usage(client.get("/v1/ipam"), show_blocks, output)
    say_if_stale(client)


def _show_usage(report: dict[str, Any], show_blocks: bool, output: Output) -> None:
    if not show_blocks:
        report["pools"] = [{key: value for key, value in pool.items() if key != "blocks"} for pool in report["pools"]]
    if not print_as(report, output):
        print(usage(report, show_blocks=show_blocks))
        for text in notes(report):
            note(text)


# --- how full


def usage(report: dict[str, Any], *, show_blocks: bool) -> str:
    rows = []
    for pool in report["pools"]:
        rows.append(_row("IP Pool", pool))
        if show_blocks:
            rows += [[*_row("Block", block), block["node"] or "-"] for block in pool["blocks"]]
    if show_blocks:
        rows += [[*_row("Block without pool", block), block["node"] or "-"] for block in report["orphans"]]
    headings = [*_HEADINGS, "NODE"] if show_blocks else _HEADINGS
    return render(headings, [row + [""] * (len(headings) - len(row)) for row in rows])


def notes(report: dict[str, Any]) -> list[str]:
    """What the numbers alone do not say."""
    said = []
    epoch = report["epoch"]
    if epoch is not None and epoch["state"] != "ready":
        awaited = ", ".join(epoch["missing"]) or "nobody any more"
        said.append(f"the address records are being rebuilt from what the nodes hold; still awaited: {awaited}")
    cooling = sum(pool["cooling"] for pool in report["pools"])
    if cooling:
        said.append(f"{cooling} of the free addresses were released a moment ago and rest")
    warm = sum(pool["warm"] for pool in report["pools"])
    if warm:
        said.append(f"{warm} of the free addresses are kept ready on nodes for their next pods")
    if report["orphans"]:
        one = len(report["orphans"]) == 1
        said.append(f"{len(report['orphans'])} block{' is' if one else 's are'} in no pool: see --show-blocks")
    return said


def _row(grouping: str, counted: dict[str, Any]) -> list[str]:
    total = counted["total"]
    shares = [_share(counted[name], total) for name in ("inUse", "reserved", "free")]
    return [grouping, counted["cidr"], _number(total), *shares]


def _share(part: int, total: int) -> str:
    return f"{_number(part)} ({round(100 * part / total)}%)"


def _number(count: int) -> str:
    return str(count) if count < BIG else f"{count:.4e}"


# --- borrowed


def _print_borrowed(items: list[dict[str, Any]]) -> None:
    if items:
        print(render(_BORROWED, map(_borrowed_row, items)))
    else:
        note("no address is borrowed")


def _borrowed_row(item: dict[str, Any]) -> list[str]:
    return [
        item["ip"],
        item["node"],
        item["block"],
        item["owner"] or "-",
        TYPES.get(item["use"], item["use"] or "-"),
        allocated_to(item),
    ]


def allocated_to(item: dict[str, Any]) -> str:
    return f"{item['namespace']}/{item['pod']}" if item["pod"] else item["handle"]


# --- one address


def owner(address: dict[str, Any]) -> str:
    ip = address["ip"]
    if address["state"] == "warm":
        place = f"block {address['block']} of node {address['owner'] or '(none)'}, pool {address['pool'] or '(none)'}"
        return f"IP {ip} is kept ready by node {address['node']} for its next pod (handle {address['handle']}, {place})"
    if not address["assigned"]:
        return f"IP {ip} is not in use: not assigned ({_why_free(address)})"
    lines = [f"IP {ip} is in use", f"Handle ID: {address['handle']}", "Active Owner Attributes:"]
    attributes = {name: address[name] for name in ("namespace", "node", "pod", "use")}
    if address["assignedAt"]:
        attributes["timestamp"] = moment(address["assignedAt"])
    lines += [f"  {name}: {value}" for name, value in attributes.items() if value]
    whose = f"node {address['owner']}" if address["owner"] else "nobody"
    borrowed = ", borrowed" if address["owner"] != address["node"] else ""
    lines.append(f"Block: {address['block']} of {whose}{borrowed}, pool {address['pool'] or '(none)'}")
    lines.append(f"Used by: {'; '.join(address['holders']) or 'nobody says so'}")
    if address["reservedBy"]:
        lines.append(f"Reserved by: {', '.join(address['reservedBy'])}")
    candidate = address["candidate"]
    if candidate is not None:
        since, due = moment(candidate["since"]), moment(candidate["due"])
        lines.append(f"Looks forgotten since {since}, released after {due}: {candidate['reason']}")
    return "\n".join(lines)


def _why_free(address: dict[str, Any]) -> str:
    pool = f"pool {address['pool']}" if address["pool"] else "in no pool"
    block = f"block {address['block']} of node {address['owner'] or '(none)'}, " if address["block"] else ""
    resting = f"released {moment(address['releasedAt'])} and resting, " if address["state"] == "cooling" else ""
    reserved = f"; reserved by {', '.join(address['reservedBy'])}" if address["reservedBy"] else ""
    users = f"; but used by {'; '.join(address['holders'])}" if address["holders"] else ""
    return f"{resting}{block}{pool}{reserved}{users}"
