"""`tortie ipam configure`: how addresses are given, changed for the whole cluster at once."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tortie.cli.client import Client
from tortie.cli.errors import Misused
from tortie.cli.options import Api
from tortie.cli.output import Format, Output, note, print_as

UNSET = "default"
PROPERTIES = {
    "strictAffinity": "StrictAffinity",
    "autoAllocateBlocks": "AutoAllocateBlocks",
    "maxBlocksPerHost": "MaxBlocksPerHost",
    "ipCooldownSeconds": "IPCooldownSeconds",
}
"""IPAMConfiguration.spec -> the word for it."""
_TRUTH = {"true": True, "false": False}


def command(
    strictaffinity: Annotated[
        str, typer.Option("--strictaffinity", metavar="true|false", help="No addresses out of other nodes' blocks.")
    ] = "",
    auto_allocate_blocks: Annotated[
        str, typer.Option("--auto-allocate-blocks", metavar="true|false", help="Whether nodes claim blocks at need.")
    ] = "",
    max_blocks_per_host: Annotated[
        str, typer.Option("--max-blocks-per-host", metavar="NUMBER", help="Blocks of one family a node; 0: no limit.")
    ] = "",
    ip_cooldown_seconds: Annotated[
        str, typer.Option("--ip-cooldown-seconds", metavar="NUMBER", help="How long an address rests after release.")
    ] = "",
    output: Format = Output.TABLE,
    api: Api = "",
) -> None:
    """Change the IPAMConfiguration; what is not named stays. `default` takes a setting out of it again."""
    changes = {
        "strictAffinity": _truth("--strictaffinity", strictaffinity),
        "autoAllocateBlocks": _truth("--auto-allocate-blocks", auto_allocate_blocks),
        "maxBlocksPerHost": _number("--max-blocks-per-host", max_blocks_per_host),
        "ipCooldownSeconds": _number("--ip-cooldown-seconds", ip_cooldown_seconds),
    }
    given = {name: value for name, value in changes.items() if value != ""}
    if not given:
        raise Misused("what is to change? See `tortie ipam configure --help`")
    client = Client(api)
    answer = client.post("/v1/ipam/configuration", json.dumps(given))
    if output is not Output.TABLE:
        print_as(client.get("/v1/ipam/configuration"), output)
        return
    for result in answer["results"]:
        for warning in result["warnings"]:
            note(f"warning: {warning}")
    for name, value in given.items():
        print(f"Successfully set {PROPERTIES[name]} to: {UNSET if value is None else json.dumps(value)}")


def _truth(option: str, text: str) -> bool | str | None:
    if text in ("", UNSET):
        return None if text else ""
    if text.lower() not in _TRUTH:
        raise Misused(f"{option} is true, false or {UNSET}, not {text}")
    return _TRUTH[text.lower()]


def _number(option: str, text: str) -> int | str | None:
    if text in ("", UNSET):
        return None if text else ""
    if not (text.isascii() and text.isdecimal()):
        raise Misused(f"{option} is a number or {UNSET}, not {text}")
    return int(text)
