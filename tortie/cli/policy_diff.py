"""`tortie policy diff`: which connections a change of policies would open or close, before it is applied."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tortie.cli.client import Client
from tortie.cli.errors import Misused
from tortie.cli.options import Api, Files, Recursive

if TYPE_CHECKING:
    from bus_schemas.ids import PodKey
    from bus_schemas.resources import Resource
    from tortie.policy.changes import Comparison
    from tortie.policy.offline import OfflineCluster

SHOWN = 40
"""Changes that are printed; `-o json` has all."""
_NAMED = 4
"""Pods of a namespace that are named one by one."""


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


def command(
    filename: Files = None,
    recursive: Recursive = False,
    delete: Annotated[bool, typer.Option("--delete", help="As if the manifests were deleted, not applied.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
    api: Api = "",
) -> None:
    """Say which connections would be allowed or denied that are not now, if the manifests were applied.

    Compared are the pods that are on the network now, both ways, and addresses outside that the policies' networks
    tell apart; one port of every stretch that no rule tells apart. Not compared: host endpoints, source ports.
    Nothing is changed.

    Exit code 0: no difference, 1: differences, 2: it cannot be said.
    """
    from bus_schemas.resources import KINDS
    from bus_schemas.subjects import DESIRED
    from services.policy_compiler.core import READS
    from tortie.cli import desired
    from tortie.policy.changes import compare

    if not filename:
        raise Misused("diff needs manifests: -f FILE, -f DIRECTORY or -f -")
    changed = desired.of_files(filename, recursive=recursive)
    client = Client(api)
    present = desired.of_api(client, (kind for kind in KINDS.values() if DESIRED[kind] in READS))
    endpoints = client.get("/v1/endpoints")["items"]
    after = {(type(resource), resource.key): resource for resource in present}
    for resource in changed:
        if not delete:
            after[type(resource), resource.key] = resource
        elif after.pop((type(resource), resource.key), None) is None:
            print(f"warning: {resource.display} is not there to be deleted", file=sys.stderr)
    pods: dict[PodKey, tuple[str, ...]] = {}
    worlds = [_world(present, endpoints, pods), _world(after.values(), endpoints, pods)]
    comparison = compare(worlds[0], worlds[1], pods)
    for fault in sorted(set(worlds[1].faults) - set(worlds[0].faults)):
        print(f"warning: not compiled, and closed instead: {fault}", file=sys.stderr)
    if output is Output.JSON:
        print(json.dumps(asdict(comparison), indent=2))
    else:
        _show(comparison, list(map(str, pods)))
    if comparison.changes:
        raise typer.Exit(1)


def _world(
    resources: Iterable[Resource], endpoints: Iterable[dict[str, Any]], pods: dict[PodKey, tuple[str, ...]]
) -> OfflineCluster:
    from bus_schemas.endpoints import EndpointPort
    from bus_schemas.ids import PodKey
    from tortie.policy.offline import OfflineCluster

    cluster = OfflineCluster(resources)
    for endpoint in endpoints:
        about: dict[str, Any] = {}
        if "labels" in endpoint:
            ports = tuple(EndpointPort(**port) for port in endpoint["ports"])
            about = {"labels": endpoint["labels"], "service_account": endpoint["serviceAccount"], "ports": ports}
        key = PodKey(endpoint["namespace"], endpoint["name"])
        pods[key] = tuple(endpoint["addresses"])
        cluster.plug(key, endpoint["node"], pods[key], **about)
    cluster.settle()
    return cluster


# --- printing


def _show(comparison: Comparison, pods: Sequence[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    headings = {
        "denied then": ("allowed now, denied then:", "red"),
        "allowed then": ("denied now, allowed then:", "green"),
    }
    left = SHOWN
    for kind, (heading, style) in headings.items():
        rows = [change for change in comparison.changes if change.kind == kind]
        if not rows:
            continue
        console.print(Text(heading, "bold"))
        for change in rows[: max(left, 0)]:
            ends = f"{names(change.sources, pods)} -> {names(change.destinations, pods)}"
            console.print(Text(f"  {ends}  {change.traffic}  ({change.because})", style))
        if len(rows) > max(left, 0):
            console.print(Text(f"  and {len(rows) - max(left, 0)} more (-o json has all)", "dim"))
        left -= len(rows)
    if not comparison.changes:
        console.print("no connection is allowed or denied that is not so now")
    told = f"compared: {comparison.pods} pods in {comparison.classes} classes, {comparison.asked} protocols and ports, "
    told += f"{len(comparison.outside)} regions outside{' (there are more)' if comparison.truncated else ''}"
    console.print(Text(told, "dim"))


def names(members: Iterable[str], pods: Sequence[str]) -> str:
    """Pods by namespace: all of one as `shop/*`, all with a beginning in common as `shop/web-* (12 pods)`."""
    by_namespace: dict[str, list[str]] = defaultdict(list)
    texts = []
    for member in members:
        if member.startswith("outside "):
            texts.append(member)
        else:
            by_namespace[member.partition("/")[0]].append(member)
    for namespace, mine in sorted(by_namespace.items()):
        everyone = [pod for pod in pods if pod.startswith(f"{namespace}/")]
        start = _common(mine)
        if len(mine) == len(everyone) > 1:
            texts.append(f"{namespace}/* ({len(mine)} pods)")
        elif len(mine) > 1 and len(start) > len(namespace) + 1 and sum(p.startswith(start) for p in pods) == len(mine):
            texts.append(f"{start}* ({len(mine)} pods)")
        elif len(mine) > _NAMED:
            texts.append(f"{', '.join(mine[: _NAMED - 1])} and {len(mine) - _NAMED + 1} more of {namespace}")
        else:
            texts += mine
    return ", ".join(texts)


def _common(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]
