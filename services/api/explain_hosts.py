"""Host endpoints on the way of a connection: what they say where it enters a node, passes it, and leaves it. Pure.

    hop: a node, the device by which the connection enters it, the device by which it leaves
    enters  untracked ingress, before NAT, forwarded ingress     not from the node itself
    leaves  forwarded egress; from the node itself untracked     not to the node itself

What an untracked policy or one before NAT allows is not asked about again at that device. The host endpoint `*` stands
for the pods' devices, too; it has no untracked policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from bus_schemas.explanations import HOST, WayReport, way_report
from bus_schemas.policy import Direction, HostAttachment, Way
from bus_schemas.policy_snapshot import Snapshot
from bus_schemas.verdicts import Flow

Device = Literal["uplink", "pod", "itself"]
EVERY = "*"


class Hop(NamedTuple):
    """One node that the connection passes."""

    enters: Device
    leaves: Device
    hosts: Sequence[HostAttachment]
    """The node's."""
    addresses: Sequence[str]
    """The node's own."""


class OnTheWay(NamedTuple):
    reports: tuple[WayReport, ...]
    settled: frozenset[Way]
    """Ways in which a node's own policy is not asked any more: of what it sends, of what it receives."""


class _Stage(NamedTuple):
    title: str
    way: Way
    said: Callable[[HostAttachment], Direction]
    early: bool


_UNTRACKED_IN = _Stage("not tracked", "ingress", lambda host: host.untracked_ingress, early=True)
_UNTRACKED_OUT = _Stage("not tracked", "egress", lambda host: host.untracked_egress, early=True)
_PRE_DNAT = _Stage("before NAT", "ingress", lambda host: host.pre_dnat_ingress, early=True)
_FORWARD_IN = _Stage("forwarded", "ingress", lambda host: host.forward_ingress, early=False)
_FORWARD_OUT = _Stage("forwarded", "egress", lambda host: host.forward_egress, early=False)


def on_the_way(hops: Iterable[Hop], flow: Flow, world: Snapshot) -> OnTheWay:
    reports: list[WayReport] = []
    settled: set[Way] = set()
    for hop in hops:
        entered = governing(hop.hosts, hop.addresses, hop.enters)
        left = governing(hop.hosts, hop.addresses, hop.leaves)
        if entered is not None:
            found, allowed = _ask(entered, _entering(entered, hop), flow, world)
            reports += found
            if allowed and hop.leaves == "itself":
                settled.add("ingress")
        if left is not None:
            stages = (_FORWARD_OUT,) if hop.enters != "itself" else () if left.interface == EVERY else (_UNTRACKED_OUT,)
            found, allowed = _ask(left, stages, flow, world)
            reports += found
            if allowed and hop.enters == "itself":
                settled.add("egress")
    return OnTheWay(tuple(reports), frozenset(settled))


def governing(hosts: Sequence[HostAttachment], addresses: Iterable[str], device: Device) -> HostAttachment | None:
    """The host endpoint of a device. Which device the node's uplink is, only the node knows: it is taken for the one
    that has the node's address, or else for one of those that are named."""
    every = next((host for host in hosts if host.interface == EVERY), None)
    if device != "uplink":
        return every if device == "pod" else None
    addressed = [host for host in hosts if set(addresses) & set(host.addresses)]
    named = [host for host in hosts if host.interface not in ("", EVERY) and not host.addresses]
    return next(iter((*addressed, *named)), every)


def _entering(host: HostAttachment, hop: Hop) -> tuple[_Stage, ...]:
    untracked = (_UNTRACKED_IN,) if host.interface != EVERY else ()
    return (*untracked, _PRE_DNAT, *((_FORWARD_IN,) if hop.leaves != "itself" else ()))


def _ask(host: HostAttachment, stages: Iterable[_Stage], flow: Flow, world: Snapshot) -> tuple[list[WayReport], bool]:
    """What those say that say anything, until one decides; whether it allows for good."""
    reports: list[WayReport] = []
    for stage in stages:
        said = stage.said(host)
        if not said.tiers and said.preview is None:
            continue
        report = way_report(f"{HOST}{host.name}, {stage.title}", said, stage.way, flow, world)
        decided = report.steps[-1].kind == "policy"
        reports.append(report if decided or report.action == "deny" else _undecided(report))
        if report.action == "deny" or (stage.early and decided):
            return reports, report.action == "allow"
    return reports, False


def _undecided(report: WayReport) -> WayReport:
    says = "it goes on to other policies"
    steps = (*report.steps[:-1], msgspec.structs.replace(report.steps[-1], outcome="pass", says=says))
    return msgspec.structs.replace(report, because="no policy decides", steps=steps)
