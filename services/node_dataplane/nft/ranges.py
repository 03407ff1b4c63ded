"""Addresses and ports as ranges of numbers: exact differences, and overlapping claims made disjoint.

An interval map of the kernel holds no overlaps: of several claims on a range the first in order gets what they share.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import NamedTuple

Range = tuple[int, int]
"""First and last, both included."""


class Claim(NamedTuple):
    ranges: Sequence[Range]
    """Of addresses."""
    ports: Sequence[Range]
    """Empty: it is not about ports."""
    verdict: str


class Box(NamedTuple):
    addresses: Range
    ports: Range
    verdict: str


ALL_PORTS: Range = (0, 65535)


def of_cidrs(cidrs: Iterable[str], family: int) -> list[Range]:
    """Of one family, merged. Raises ValueError."""
    nets = [net for net in (ip_network(cidr, strict=False) for cidr in cidrs) if net.version == family]
    return merged((int(net.network_address), int(net.broadcast_address)) for net in nets)


def of_packed(nets: Iterable[bytes]) -> list[Range]:
    """Packed networks (`bus_schemas.policy.NET4`) of one family, merged."""
    found = []
    for net in nets:
        host = (1 << 8 * (len(net) - 1) - net[-1]) - 1
        first = int.from_bytes(net[:-1], "big") & ~host
        found.append((first, first | host))
    return merged(found)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Ascending, without overlaps or neighbours."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def difference(ranges: Sequence[Range], without: Sequence[Range]) -> list[Range]:
    """Both merged."""
    found = []
    for first, last in ranges:
        for begin, end in without:
            if end < first or begin > last:
                continue
            if begin > first:
                found.append((first, begin - 1))
            first = end + 1
            if first > last:
                break
        if first <= last:
            found.append((first, last))
    return found


def disjoint(claims: Iterable[tuple[Range, str]]) -> list[tuple[Range, str]]:
    """Where claims overlap, the earlier one has it. Neighbours with the same verdict are one."""
    numbered = sorted((first, order, last, verdict) for order, ((first, last), verdict) in enumerate(claims))
    edges = sorted({first for first, *_ in numbered} | {last + 1 for _, _, last, _ in numbered})
    found: list[tuple[Range, str]] = []
    active: list[tuple[int, int, str]] = []
    at = 0
    for edge, following in pairwise(edges):
        while at < len(numbered) and numbered[at][0] == edge:
            _, order, last, verdict = numbered[at]
            heapq.heappush(active, (order, last, verdict))
            at += 1
        while active and active[0][1] < edge:
            heapq.heappop(active)
        if not active:
            continue
        verdict = active[0][2]
        if found and found[-1][0][1] == edge - 1 and found[-1][1] == verdict:
            found[-1] = ((found[-1][0][0], following - 1), verdict)
        else:
            found.append(((edge, following - 1), verdict))
    return found


def boxes(claims: Sequence[Claim], most: int) -> list[Box] | None:
    """Disjoint boxes of addresses and ports that cover just what the claims do; None: it would take more than `most`
    steps."""
    starts = sorted({edge for c in claims for first, last in c.ports or (ALL_PORTS,) for edge in (first, last + 1)})
    place = {edge: index for index, edge in enumerate(starts)}
    within: list[list[Claim]] = [[] for _ in starts]
    steps = 0
    for claim in claims:
        for first, last in merged(claim.ports or (ALL_PORTS,)):
            for index in range(place[first], place[last + 1] if last + 1 in place else len(starts)):
                within[index].append(claim)
                steps += len(claim.ranges)
                if steps > most:
                    return None
    found: list[Box] = []
    for index, present in enumerate(within):
        if present:
            ports = (starts[index], starts[index + 1] - 1)
            found += [
                Box(addresses, ports, verdict)
                for addresses, verdict in disjoint((each, claim.verdict) for claim in present for each in claim.ranges)
            ]
    return found


def spelled(addresses: Range, family: int) -> str:
    """As nft writes it."""
    first, last = (str(ip_address(number.to_bytes(4 if family == 4 else 16, "big"))) for number in addresses)
    return first if first == last else f"{first}-{last}"
