"""`tortie get`: objects as a table, YAML or JSON, once or as they change."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Annotated, Any

import typer

from tortie.cli import tables
from tortie.cli.client import Client, object_path, segment
from tortie.cli.errors import Misused
from tortie.cli.names import Target, targets
from tortie.cli.options import Api, Namespace

Manifest = dict[str, Any]


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"


def command(
    objects: Annotated[list[str], typer.Argument(metavar="KIND[,KIND] [NAME...] | KIND/NAME | KIND/NS/NAME")],
    namespace: Namespace = "default",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Only with these labels: app=web,tier!=db.")] = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with every change.")] = False,
    api: Api = "",
) -> None:
    client = Client(api)
    named = targets(objects, "" if everywhere else namespace)
    if watch:
        _watch(client, named, selector, output, everywhere)
        return
    items = [item for target in named for item in _get(client, target, selector)]
    if client.stale:
        print(f"tortie: this may be out of date: {client.stale}", file=sys.stderr)
    items = _placed(client, items)
    if output in (Output.TABLE, Output.WIDE):
        _print_tables(items, wide=output is Output.WIDE, everywhere=everywhere)
    else:
        single = len(named) == 1 and named[0].name
        _print(items[0] if single else {"apiVersion": "v1", "kind": "List", "items": items}, output)


def _get(client: Client, target: Target, selector: str) -> list[Manifest]:
    if target.name:
        return [client.get(object_path(target.kind, target.name, target.namespace))]
    query = {"namespace": target.namespace or None, "labelSelector": selector or None}
    answer = client.get(f"/v1/{segment(target.kind)}", query)
    if answer.get("kind") != "List":
        raise Misused(f"{target.kind}: no kind of object, but a report of the api; `tortie --help` names its command")
    items: list[Manifest] = answer["items"]
    return items


def _placed(client: Client, items: list[Manifest]) -> list[Manifest]:
    """Pods with the node and the addresses that they have, which their manifests need not know."""
    if not any(tables.token(item) == "pod" for item in items):
        return items
    places = {(e["namespace"], e["name"]): e for e in client.get("/v1/endpoints")["items"]}
    return [_place(item, places.get(_key(item))) for item in items]


def _key(item: Manifest) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _place(item: Manifest, place: dict[str, Any] | None) -> Manifest:
    if place is None or tables.token(item) != "pod":
        return item
    spec = {**item.get("spec", {}), "nodeName": place["node"]}
    ips = [{"ip": address} for address in place["addresses"]]
    return {**item, "spec": spec, "status": {**item.get("status", {}), "podIPs": ips}}


def _print_tables(items: Sequence[Manifest], *, wide: bool, everywhere: bool) -> None:
    if not items:
        print("nothing found", file=sys.stderr)
    for position, (kind, group) in enumerate(groupby(items, key=tables.token)):
        rows = list(group)
        namespaced = everywhere and "namespace" in rows[0]["metadata"]
        columns = tables.columns_of(kind, wide=wide, namespaces=namespaced)
        if position:
            print()
        print(tables.render([heading for heading, _ in columns], [[read(row) for _, read in columns] for row in rows]))


def _print(value: Any, output: Output) -> None:
    if output is Output.JSON:
        print(json.dumps(value, indent=2))
    else:
        from bus_schemas.manifests.writing import dump

        print(dump(value), end="")


def _watch(client: Client, named: Sequence[Target], selector: str, output: Output, everywhere: bool) -> None:
    if len(named) != 1:
        raise Misused("--watch follows one kind, or one object, at a time")
    for event, item in _changes(client, named[0], selector):
        if output in (Output.TABLE, Output.WIDE):
            columns = tables.columns_of(tables.token(item), wide=output is Output.WIDE, namespaces=everywhere)
            print("   ".join([event.ljust(8), *(read(item).ljust(len(heading)) for heading, read in columns)]).rstrip())
        elif output is Output.JSON:
            print(json.dumps({"type": event, "object": item}))
        else:
            print("---")
            _print({"type": event, "object": item}, output)
        sys.stdout.flush()


def _changes(client: Client, target: Target, selector: str) -> Iterator[tuple[str, Manifest]]:
    query = {"watch": True, "namespace": target.namespace or None, "labelSelector": selector or None}
    for event, data in client.stream(f"/v1/{segment(target.kind)}", query):
        if event in ("ADDED", "MODIFIED", "DELETED"):
            item = json.loads(data)
            if target.name in ("", item["metadata"]["name"]):
                yield event, item
