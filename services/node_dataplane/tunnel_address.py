"""Holds the node's own addresses of one kind of tunnel: asked for and given back with the tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from bus_schemas.ids import NodeName
from bus_schemas.ipam import (
    Assigned,
    AssignRequest,
    Busy,
    Held,
    PoolExhausted,
    Refused,
    Released,
    ReleaseRequest,
    tunnel_handle,
)
from bus_schemas.resources import IPPool
from bus_schemas.subjects import ASSIGN, RELEASE, Rpc
from chassis.errors import BusError
from chassis.health import Health
from services.node_dataplane.tunnel import misplaced

RETRY_S = 0.2
LONGEST_RETRY_S = 5.0
"""A pool stays exhausted for long, and every node of the cluster asks."""
REQUEST_S = 5.0
REFRESH_S = 60.0
"""A repeated request writes nothing where the address is still ours, and heals a service that lost it."""
CAUSES = {"vxlan": "tunnel address", "ipip": "ipip tunnel address", "wireguard": "wireguard tunnel address"}
"""In health, by kind of tunnel."""


class Bus(Protocol):
    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any: ...


class TunnelAddress:
    def __init__(
        self, node: NodeName, kind: str, bus: Bus, health: Health, gained: Callable[[str, tuple[str, ...]], None]
    ) -> None:
        """`kind`: a key of CAUSES. `gained` is told it and the addresses whenever they change."""
        self._node = node
        self._kind = kind
        self._handle = tunnel_handle(node, kind)
        self._bus = bus
        self._health = health
        self._gained = gained
        self._families: frozenset[int] | None = None
        """None: not known yet, so nothing is given back."""
        self._pools: tuple[IPPool, ...] = ()
        self._registered = False
        self._addresses: tuple[str, ...] = ()
        self._held = True
        """Something may be held under our handle: an earlier life may have asked for it."""
        self._wake = asyncio.Event()

    def adopt(self, addresses: tuple[str, ...]) -> None:
        """What an earlier life left on the devices is ours until the address service says otherwise: without its
        address the kernel drops the routes over a tunnel."""
        self._set(addresses)

    def want(self, families: frozenset[int], pools: tuple[IPPool, ...], *, registered: bool = True) -> None:
        """`pools`: those that the address may be of. `registered`: the node has its resource. The address service takes
        the address back when that is deleted, so it is asked again as soon as it has returned."""
        returned = registered and not self._registered
        self._registered = registered
        if returned or (families, pools) != (self._families, self._pools):
            self._families, self._pools = families, pools
            self._wake.set()

    def held(self) -> Iterable[Held]:
        """For `holding`."""
        if self._addresses:
            yield Held(handle=self._handle, addresses=self._addresses, use="tunnel")

    async def run(self) -> None:
        """For ever."""
        retry_s = RETRY_S
        while True:
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if self._families is None:
                continue
            try:
                problem = await (self._obtain(self._families) if self._families else self._give_back())
            except BusError as error:
                problem = f"the address service does not answer ({error})"
            if problem:
                self._health.note(CAUSES[self._kind], problem)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                self._wake.set()
            else:
                retry_s = RETRY_S
                self._health.note(CAUSES[self._kind], None)

    async def _obtain(self, families: frozenset[int]) -> str:
        """What stands in the way, or empty."""
        request = AssignRequest(node=self._node, handle=self._handle, families=tuple(sorted(families)), use="tunnel")
        reply = await self._bus.request(ASSIGN, request, timeout_s=REQUEST_S)
        match reply:
            case Assigned(addresses=addresses):
                self._held = True
                held = frozenset(6 if ":" in address else 4 for address in addresses)
                if held != families or misplaced(addresses, self._pools):
                    return await self._give_back() or "the tunnel address moves to another pool"
                self._set(addresses)
                return ""
            case Refused() if self._held:
                # What the handle holds is of other families: it cannot be extended, only asked for anew.
                return await self._give_back() or "the tunnel address changes its families"
            case PoolExhausted(reason=reason) | Refused(reason=reason) | Busy(reason=reason):
                return str(reason)
        return f"unexpected answer {reply!r}"

    async def _give_back(self) -> str:
        self._set(())
        if not self._held:
            return ""
        request = ReleaseRequest(handle=self._handle, node=self._node)
        reply = await self._bus.request(RELEASE, request, timeout_s=REQUEST_S)
        match reply:
            case Released():
                self._held = False
                return ""
            case Refused(reason=reason) | Busy(reason=reason):
                return str(reason)
        return f"unexpected answer {reply!r}"

    def _set(self, addresses: tuple[str, ...]) -> None:
        if addresses != self._addresses:
            self._addresses = addresses
            self._gained(self._kind, addresses)
