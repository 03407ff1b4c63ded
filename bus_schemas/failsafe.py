"""Ports of nodes that stay open whatever the policies of their host endpoints say, where no configuration lists any."""

from __future__ import annotations

from typing import NamedTuple

from bus_schemas.protocols import SCTP, TCP, UDP

PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}


class Failsafe(NamedTuple):
    protocol: int
    port: int
    net: str = ""
    """Only with this CIDR at the far end; empty: with anybody."""


_CONTROL = tuple(Failsafe(TCP, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667))
"""BGP, etcd, Typha, the API server, and what the platforms of old used: in both of Calico's lists."""
INBOUND = (Failsafe(TCP, 22), Failsafe(UDP, 68), *_CONTROL)
OUTBOUND = (Failsafe(UDP, 53), Failsafe(UDP, 67), *_CONTROL)
"""What holds while the configuration names no list (FelixConfiguration, failsafe*HostPorts); agents add the bus."""
