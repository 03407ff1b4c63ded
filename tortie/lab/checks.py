"""One expectation as something that can be tried again and again: `attempt() -> Verdict`.

A check looks its placeholders and places up anew at every attempt, because both come and go while a step takes effect.
What cannot be looked up (a pod without an address yet) is a verdict, not an error.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tortie.lab import kernel, ownership, probes, scenario, wire
from tortie.lab.cluster import Cluster
from tortie.lab.errors import CannotDo
from tortie.lab.kernel import Table
from tortie.lab.pods import DEVICE
from tortie.lab.processes import clean_environment, tortie_command
from tortie.lab.scenario import CommandExpectation, Expect, Place, SeenExpectation, Traffic, WireExpectation
from tortie.lab.topology import UPLINK

VXLAN_DEVICE = "vxlan.tortie"
IPIP_DEVICE = "tunl0"
ROLES: Mapping[str, str] = {"uplink": UPLINK, "vxlan": VXLAN_DEVICE, "ipip": IPIP_DEVICE}
"""The devices by which nodes of this lab reach one another."""

_REACH: Mapping[str, tuple[type[probes.Outcome], str]] = {
    "allow": (probes.Answered, "an answer"),
    "deny": (probes.Silent, "no answer at all: dropped"),
    "refuse": (probes.Refused, "a reset, or an ICMP error"),
}
Fill = Callable[[Any], Awaitable[Any]]
"""Replaces the placeholders in a text, or in lists and mappings of texts. Raises CannotDo."""


@dataclass(frozen=True)
class Verdict:
    holds: bool
    seen: str
    look: tuple[str, ...] = ()
    """Where to look next: commands to type, logs to read."""


@dataclass(frozen=True)
class Check:
    kind: str
    """The key in the scenario: `allow`, `routes` ..."""
    subject: str
    expected: str
    attempt: Callable[[], Awaitable[Verdict]]
    lasting: bool = False
    """It must still hold at the end of the step: one lucky packet proves nothing."""

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"


def checks(expect: Expect, cluster: Cluster, fill: Fill) -> list[Check]:
    """Every expectation of a step."""
    make = _Checks(cluster, fill)
    found = [make.reach("allow", text) for text in expect.allow]
    found += [make.reach("deny", text) for text in expect.deny]
    found += [make.reach("refuse", text) for text in expect.refuse]
    found += [make.seen(item) for item in expect.seen]
    tables: list[tuple[str, Table, Mapping[str, Sequence[Mapping[str, Any]]], bool]] = [
        ("routes", "routes", expect.routes, True),
        ("no_routes", "routes", expect.no_routes, False),
        ("neighbours", "neighbours", expect.neighbours, True),
        ("fdb", "fdb", expect.fdb, True),
    ]
    for kind, table, wanted, present in tables:
        found += [make.row(kind, table, where, row, present) for where, rows in wanted.items() for row in rows]
    found += [make.on_wire(item) for item in expect.wire]
    found += [make.mtu(where, size) for where, size in expect.mtu.items()]
    found += [make.command(item) for item in expect.command]
    return found


async def ask(cluster: Cluster, way: Traffic) -> probes.Outcome:
    """One probe between two places of the lab. Raises CannotDo."""
    await cluster.listen(way.destination, way.protocol, way.port)
    return await probes.probe(cluster.netns(way.source), cluster.address(way.destination), way.protocol, way.port)


class _Checks:
    def __init__(self, cluster: Cluster, fill: Fill) -> None:
        self._cluster = cluster
        self._fill = fill

    def reach(self, kind: str, text: str) -> Check:
        wanted, expected = _REACH[kind]

        async def attempt() -> Verdict:
            way = scenario.traffic(await self._fill(text))
            outcome = await ask(self._cluster, way)
            if isinstance(outcome, probes.Silent) and kind == "deny" and way.destination.kind == "pod":
                # A pod that answers nobody is no proof of a policy. Its own node reaches it whatever policy says.
                node = Place("node", self._node(way.destination))
                control = await ask(self._cluster, replace(way, source=node))
                if not isinstance(control, probes.Answered):
                    seen = f"{outcome}, but {node.name}, its own node, has no answer of it either: {control}"
                    return Verdict(False, seen, self._about(way))
            return Verdict(isinstance(outcome, wanted), str(outcome), self._about(way))

        return self._check(kind, text, expected, attempt, lasting=True)

    def seen(self, item: SeenExpectation) -> Check:
        async def attempt() -> Verdict:
            way = scenario.traffic(await self._fill(item.traffic))
            wanted = {"seen as": await self._fill(item.as_), "answered by": await self._fill(item.by)}
            outcome = await ask(self._cluster, way)
            if not isinstance(outcome, probes.Answered):
                return Verdict(False, str(outcome), self._about(way))
            found = {"seen as": outcome.seen_as, "answered by": outcome.by}
            holds = all(found[key] == text for key, text in wanted.items() if text)
            return Verdict(holds, ", ".join(f"{key} {text}" for key, text in found.items()), self._about(way))

        expected = ", ".join(filter(None, (item.as_ and f"seen as {item.as_}", item.by and f"answered by {item.by}")))
        return self._check("seen", item.traffic, expected, attempt, lasting=True)

    def row(self, kind: str, table: Table, where: str, row: Mapping[str, Any], present: bool) -> Check:
        async def attempt() -> Verdict:
            wanted = await self._fill(dict(row))
            netns = self._cluster.netns(_place(where))
            rows = await kernel.read(table, netns)
            found = kernel.matching(rows, wanted)
            shown = found if found or not present else kernel.near(rows, wanted)
            seen = "; ".join(map(_row, shown)) or "nothing of the kind"
            look = tuple(shlex.join(command) for command in kernel.commands(table, netns))
            return Verdict(bool(found) == present, seen, (*look, *self._logs(where)))

        expected = f"{'' if present else 'no row with '}{_row(row)}"
        return self._check(kind, where, expected, attempt, lasting=not present)

    def on_wire(self, item: WireExpectation) -> Check:
        async def attempt() -> Verdict:
            way = scenario.traffic(await self._fill(item.traffic))
            ends = (self._cluster.address(way.source), self._cluster.address(way.destination))
            async with wire.capture(self._cluster.netns(Place("node", item.on)), UPLINK, *ends) as capture:
                outcome = await ask(self._cluster, way)
            seen = f"{' and '.join(sorted(capture.seen)) or 'none of these packets'} ({outcome})"
            return Verdict(capture.seen == {item.seen}, seen, self._about(way))

        return self._check("wire", f"{item.traffic} on {item.on}", item.seen, attempt)

    def mtu(self, where: str, size: int) -> Check:
        async def attempt() -> Verdict:
            place = _place(where)
            device = DEVICE if place.kind == "pod" else UPLINK
            link = await kernel.link(self._cluster.netns(place), device)
            held = link["mtu"] if link else None
            return Verdict(held == size, f"{device} has {held}", self._logs(where))

        return self._check("mtu", where, str(size), attempt)

    def command(self, item: CommandExpectation) -> Check:
        async def attempt() -> Verdict:
            words = shlex.split(await self._fill(item.run))
            has, lacks = await self._fill(item.has), await self._fill(item.lacks)
            text = await run_command(self._cluster, words)
            missing = [part for part in has if part not in text]
            unwanted = [part for part in lacks if part in text]
            faults = [f"without {', '.join(map(repr, missing))}"] if missing else []
            faults += [f"with {', '.join(map(repr, unwanted))}"] if unwanted else []
            seen = " and ".join(faults) + ":\n" + text.rstrip() if faults else "as expected"
            return Verdict(not faults, seen, (f"TORTIE_API={ownership.api_address(self._cluster.name)} {item.run}",))

        expected = ", ".join([*map(repr, item.has), *(f"not {part!r}" for part in item.lacks)])
        return self._check("command", item.run, expected, attempt)

    def _check(
        self,
        kind: str,
        subject: str,
        expected: str,
        attempt: Callable[[], Awaitable[Verdict]],
        lasting: bool = False,
    ) -> Check:
        async def careful() -> Verdict:
            try:
                return await attempt()
            except CannotDo as error:
                return Verdict(False, str(error))

        return Check(kind, subject, expected, careful, lasting)

    def _about(self, way: Traffic) -> tuple[str, ...]:
        """Where to look when packets do not go as they should."""
        lab = self._cluster.name
        agents = dict.fromkeys(self._node(end) for end in (way.source, way.destination) if end.kind != "ip")
        rules = [f"tortie lab exec --lab {lab} {node} -- nft list table inet tortie" for node in agents if node]
        logs = [self._cluster.log_of(Place("node", node)) for node in agents if node]
        return (f"tortie lab probe --lab {lab} {shlex.join(str(way).replace('-> ', '').split())}", *rules, *logs)

    def _logs(self, where: str) -> tuple[str, ...]:
        node = self._node(_place(where))
        return (self._cluster.log_of(Place("node", node)),) if node else ()

    def _node(self, place: Place) -> str:
        """The node that a place is on, or is; empty for a pod that is gone."""
        if place.kind == "node":
            return place.name
        pod = self._cluster.pods.get(scenario.pod_key(place.name))
        return pod.spec.node if pod else ""


async def run_command(cluster: Cluster, words: Sequence[str]) -> str:
    """What a `tortie` command prints, both outputs together, when it is run against this lab."""
    if words[:1] != ["tortie"]:
        raise CannotDo(f"only tortie commands can be run, not {shlex.join(words)!r}")
    environment = {"TORTIE_API": ownership.api_address(cluster.name), "TORTIE_LAB": cluster.name, "NO_COLOR": "1"}
    child = await asyncio.create_subprocess_exec(
        *tortie_command(*words[1:]),
        env=clean_environment() | environment | {"COLUMNS": os.environ.get("COLUMNS", "160")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await child.communicate()
    return out.decode(errors="replace")


def _place(where: str) -> Place:
    """Tables are asked of `node` or `namespace/pod`."""
    return Place("pod" if "/" in where else "node", where)


def _row(row: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={','.join(map(str, v)) if isinstance(v, list | tuple) else v}" for key, v in row.items())
