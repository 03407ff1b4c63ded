"""`tortie delete`: objects by kind and name, or whatever manifests name."""

from __future__ import annotations

from typing import Annotated

import typer

from tortie.cli.apply import print_results, send
from tortie.cli.client import Client
from tortie.cli.errors import Misused, Refused
from tortie.cli.names import targets
from tortie.cli.options import Api, Files, Namespace, Recursive
from tortie.cli.sources import Joined, read


def command(
    objects: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND NAME...] [KIND/NAME] [KIND/NS/NAME]", show_default=False)
    ] = None,
    namespace: Namespace = "default",
    filename: Files = None,
    recursive: Recursive = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="An absent object is no error.")] = False,
    api: Api = "",
) -> None:
    if bool(filename) == bool(objects):
        raise Misused("delete needs either objects (KIND NAME) or manifests (-f FILE)")
    client = Client(api)
    if filename:
        results = send(client, "/v1/delete", Joined(read(filename, recursive=recursive)))
        print_results(result for result in results if result["outcome"] != "missing")
        missing = [result["object"] for result in results if result["outcome"] == "missing"]
        if missing and not ignore_not_found:
            raise Refused("not found", missing, status=404)
        return
    named = targets(objects or [], namespace)
    if any(not target.name for target in named):
        raise Misused("delete needs a name: there is no deleting of a whole kind")
    for target in named:
        try:
            print_results([client.delete_one(target.kind, target.name, target.namespace)])
        except Refused as refused:
            if not (ignore_not_found and refused.absent):
                raise
