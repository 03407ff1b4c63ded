"""What a node notes of its pods, and of the addresses that it keeps for pods to come: the rows of `endpoint_store`.
Pure."""

from __future__ import annotations

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, PodKey


class Plugin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One plugged-in pod: what the bus hears of it, and what only this node needs to know."""

    endpoint: Endpoint
    handle: HandleId
    interface: str
    netns: str
    mac: str
    mtu: int
    takes_over: HandleId = HandleId("")
    """The warm handle under which the address service still knows the addresses."""
    also: tuple[HandleId, ...] = ()
    """Further handles that may hold something for the pod (floating addresses)."""
    unassigned: bool = False
    """The addresses are nobody's (`ipAddrsNoIpam`): there is nothing to give back."""
    unread: bool = False
    """It was started before anybody could read what its resource asks for, so it is not announced."""
    asked_mac: str = ""
    """The MAC that the pod asks for; `mac` is the one that it has, empty as long as it has no link."""
    sources: tuple[str, ...] = ()
    """CIDRs that the pod may send from beside its own addresses."""

    @property
    def pod(self) -> PodKey:
        return self.endpoint.pod

    @property
    def awaits_floating(self) -> bool:
        """Its floating addresses are asked for and not there yet, so it is not announced."""
        return bool(self.also) and not self.endpoint.floating

    @property
    def asks(self) -> tuple[HandleId, ...]:
        """The handles under which it has its addresses, or asks for them. Not its own as long as it has a warm one:
        what the address service may still know under it was that of an earlier life of the container."""
        own = () if self.unassigned or self.takes_over else (self.handle,)
        return (*own, *self.also)

    @property
    def owes(self) -> tuple[HandleId, ...]:
        """What must be given back when the pod goes."""
        own = () if self.unassigned else (self.handle,)
        return (*own, *filter(None, (self.takes_over,)), *self.also)

    @property
    def reached(self) -> tuple[str, ...]:
        """Every address that leads to the pod's link."""
        return (*self.endpoint.addresses, *(address for address, _ in self.endpoint.floating))


class Warm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Addresses that are kept for a pod to come."""

    handle: HandleId
    families: tuple[int, ...]
    addresses: tuple[str, ...] = ()
    """Empty: asked for, and not answered yet."""
