"""`tortie ipam candidates`: which addresses look forgotten, why, and when they are released."""

from __future__ import annotations

from typing import Any

from tortie.cli.client import Client
from tortie.cli.ipam_show import allocated_to
from tortie.cli.options import Api
from tortie.cli.output import Format, Output, moment, note, print_as, say_if_stale
from tortie.cli.tables import render

_HEADINGS = ["IPS", "NODE", "ALLOCATED-TO", "SINCE", "SEEN", "RELEASED AFTER", "WHY"]


def command(output: Format = Output.TABLE, api: Api = "") -> None:
    """Show what the collector has in view.

    A candidate is an address that its node does not say it uses. It is released when it was seen so at least twice, the
    grace period is over, and a last look right before the write finds nothing that uses it.
    """
    client = Client(api)
    report = client.get("/v1/ipam/candidates")
    if not print_as(report, output):
        if report["items"]:
            print(render(_HEADINGS, map(_row, report["items"])))
        else:
            note("nothing looks forgotten")
        epoch = report["epoch"]
        if epoch is not None and epoch["missing"]:
            note(f"not heard of yet, and so not judged: {', '.join(epoch['missing'])}")
    say_if_stale(client)


def _row(item: dict[str, Any]) -> list[str]:
    return [
        ",".join(item["addresses"]),
        item["node"],
        allocated_to(item),
        moment(item["since"]),
        str(item["observations"]),
        moment(item["due"]),
        item["reason"],
    ]
