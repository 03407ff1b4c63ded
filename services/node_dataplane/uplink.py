"""The node's devices and their addresses as the kernel has them, and the one of them that leads to the other nodes.
Pure; `interfaces` reads them, `autodetection` and `own_address` choose."""

from __future__ import annotations

from dataclasses import dataclass

from services.node_dataplane.routes import Network


@dataclass(frozen=True)
class Interface:
    name: str
    mtu: int
    networks: tuple[Network, ...]
    """In the kernel's order, without link-local ones."""
    defaults: frozenset[int] = frozenset()
    """Families whose default route leaves by it."""
    up: bool = True
    own: bool = False
    """A tunnel of ours."""
    unfit: tuple[tuple[Network, str], ...] = ()
    """Of `networks`, those that nobody should rely on, and why."""


@dataclass(frozen=True)
class Uplink:
    device: str
    mtu: int
    network: Network
