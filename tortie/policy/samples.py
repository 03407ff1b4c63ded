"""Which protocols and ports are worth asking about: one of every stretch that no rule tells apart. Pure.

Every port that a rule or a named port names begins or ends a stretch, so what holds for the sample holds for all of it.
Of ICMP: every type that is named, and echo. Of other protocols: those that are named, and one that stands for the rest.
Source ports are not varied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bus_schemas import verdict_words as words
from bus_schemas.policy import Rule
from bus_schemas.protocols import ICMP, ICMPV6, SCTP, TCP, UDP, WITH_PORTS
from bus_schemas.verdicts import Flow

REST = 253
"""Stands for the protocols that nobody names (RFC 3692: for experiments)."""
SOURCE_PORT = 40000
LAST_PORT = 65535


@dataclass(frozen=True)
class Sample:
    protocol: int
    first: int = 0
    last: int = 0
    """The stretch of ports (of ICMP: the type) that it stands for."""

    def flow(self, source: bytes, destination: bytes) -> Flow:
        if self.protocol in (ICMP, ICMPV6):
            return Flow(source, destination, self.protocol, icmp_type=self.first, icmp_code=0)
        if self.protocol in WITH_PORTS:
            return Flow(source, destination, self.protocol, SOURCE_PORT, max(self.first, 1))
        return Flow(source, destination, self.protocol)


def samples(rules: Iterable[Rule], named_ports: Iterable[bytes], version: int) -> tuple[Sample, ...]:
    """`named_ports`: members of the `ports` groups."""
    cuts: dict[int, set[int]] = {protocol: {0, LAST_PORT + 1} for protocol in (TCP, UDP, SCTP)}
    icmp = ICMP if version == 4 else ICMPV6
    types = {8 if version == 4 else 128}
    others = {REST}
    for rule in rules:
        for protocol in (rule.protocol, rule.not_protocol):
            if protocol in WITH_PORTS:
                cuts.setdefault(protocol, {0, LAST_PORT + 1})
            elif protocol is not None and protocol not in (ICMP, ICMPV6):
                others.add(protocol)
        types.update(i.type for i in (rule.icmp, rule.not_icmp) if i is not None)
        ranges = (*rule.destination.ports, *rule.destination.not_ports)
        for protocol in cuts if rule.protocol is None else {rule.protocol} & cuts.keys():
            for range_ in ranges:
                cuts[protocol] |= {range_.first, range_.last + 1}
    for member in named_ports:
        protocol, port = member[-4], int.from_bytes(member[-2:], "big")
        if protocol in cuts:
            cuts[protocol] |= {port, port + 1}
    found = [
        Sample(protocol, first, after - 1)
        for protocol in sorted(cuts)
        for first, after in pairwise(sorted(cut for cut in cuts[protocol] if cut <= LAST_PORT + 1))
    ]
    found += [Sample(icmp, type_, type_) for type_ in sorted(types)]
    found += [Sample(protocol) for protocol in sorted(others)]
    return tuple(found)


def describe(asked: Sequence[Sample], mask: int) -> str:
    """The samples whose bit is set: `TCP/5432, UDP`."""
    if mask == (1 << len(asked)) - 1:
        return "everything"
    by_protocol: dict[int, list[tuple[Sample, bool]]] = {}
    for at, sample in enumerate(asked):
        by_protocol.setdefault(sample.protocol, []).append((sample, bool(mask >> at & 1)))
    return ", ".join(
        _of_protocol(protocol, found) for protocol, found in by_protocol.items() if any(on for _, on in found)
    )


def _of_protocol(protocol: int, found: Sequence[tuple[Sample, bool]]) -> str:
    name = "other protocols" if protocol == REST else words.protocol(protocol)
    if all(on for _, on in found):
        return name
    on, off = ([sample for sample, is_on in found if is_on is wanted] for wanted in (True, False))
    if protocol in WITH_PORTS and len(_merged(off)) < len(_merged(on)):
        return f"{name} but not {name}/{','.join(_merged(off))}"
    return f"{name}/{','.join(_merged(on))}"


def _merged(found: Iterable[Sample]) -> list[str]:
    spans: list[list[int]] = []
    for sample in found:
        if spans and spans[-1][1] + 1 == sample.first:
            spans[-1][1] = sample.last
        else:
            spans.append([sample.first, sample.last])
    return [str(first) if first == last else f"{first}-{last}" for first, last in spans]
