"""Ports of the node that no host endpoint's policy can close, so that a mistake does not lock the operator out.

As lines of nft for the four places where host endpoints are asked. Before connection tracking (`raw`) the answers to
failsafe connections are let through, too: nothing there knows them as answers, and an untracked policy would decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Literal

from bus_schemas.failsafe import INBOUND, OUTBOUND, PROTOCOLS, Failsafe
from bus_schemas.protocols import SCTP, TCP, UDP

__all__ = ["INBOUND", "OUTBOUND", "PROTOCOLS", "SCTP", "TCP", "UDP", "Failsafe"]

End = Literal["sport", "dport"]
Side = Literal["saddr", "daddr"]


def inbound(own: Iterable[Failsafe]) -> tuple[str, ...]:
    return _lines(own, "dport", "saddr")


def outbound(own: Iterable[Failsafe]) -> tuple[str, ...]:
    return _lines(own, "dport", "daddr")


def raw_inbound(inbound_ports: Iterable[Failsafe], outbound_ports: Iterable[Failsafe]) -> tuple[str, ...]:
    return (*inbound(inbound_ports), *_lines(outbound_ports, "sport", "saddr"))


def raw_outbound(inbound_ports: Iterable[Failsafe], outbound_ports: Iterable[Failsafe]) -> tuple[str, ...]:
    return (*outbound(outbound_ports), *_lines(inbound_ports, "sport", "daddr"))


def _lines(ports: Iterable[Failsafe], end: End, far: Side) -> tuple[str, ...]:
    """One line for all ports of a protocol with the same far end."""
    together: dict[tuple[int, str], set[int]] = {}
    for protocol, port, net in ports:
        together.setdefault((protocol, net), set()).add(port)
    return tuple(
        f"{_from(net, far)}meta l4proto {protocol} th {end} {_listed(sorted(numbers))} accept"
        for (protocol, net), numbers in sorted(together.items())
    )


def _from(net: str, far: Side) -> str:
    if not net:
        return ""
    network = ip_network(net, strict=False)
    family = f"meta nfproto ipv{network.version}"
    if network.prefixlen == 0:
        return f"{family} "
    return f"{'ip' if network.version == 4 else 'ip6'} {far} {network} "


def _listed(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else "{ " + ", ".join(map(str, numbers)) + " }"
