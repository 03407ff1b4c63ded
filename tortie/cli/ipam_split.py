"""`tortie ipam split`: one pool into several of equal size, while it is in use."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tortie.cli.apply import print_results
from tortie.cli.client import Client
from tortie.cli.errors import Misused
from tortie.cli.options import Api
from tortie.cli.output import Format, Output, print_as


def command(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="How many pools: 2, 4, 8 ...")],
    pool: Annotated[str, typer.Argument(metavar="[POOL]", help="The pool's name.", show_default=False)] = "",
    name: Annotated[str, typer.Option("--name", metavar="POOL", help="The pool's name.")] = "",
    cidr: Annotated[str, typer.Option("--cidr", metavar="CIDR", help="The pool's CIDR.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, change nothing.")] = False,
    output: Format = Output.TABLE,
    api: Api = "",
) -> None:
    """Replace a pool by NUMBER pools that are alike, called split-POOL-0, split-POOL-1 ...

    All of them change in one step and nothing has to be locked or stopped: pods keep their addresses.
    """
    if sum(map(bool, (pool, name, cidr))) != 1:
        raise Misused("which pool? POOL, --name POOL or --cidr CIDR")
    body = {"count": number, "pool": pool or name, "cidr": cidr}
    answer = Client(api).post("/v1/ipam/split", json.dumps(body), {"dryRun": dry_run or None})
    if not print_as(answer["results"], output):
        print_results(answer["results"], note=" (dry run)" if dry_run else "")
