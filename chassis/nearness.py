"""Which requests come to this replica first: those about the same thing to the same replica, as long as it is there.

    request --its word--> part --rpc.<service>.<name>.<part>--> the replica whose part it is
                            `--nobody there, no answer-------> rpc.<service>.<name>, whichever replica is free

Replicas that are asked about the same thing at the same moment would be in each other's way: compare-and-swap lets one
of them win, the others have worked in vain. So each listens to a part of the words. Which part follows from who is
there, by rendezvous hashing: every replica computes it for itself out of the signs of life (STATUS) of all of them, and
when one comes or goes only its parts change hands. Nothing depends on it: while two replicas think differently, two or
none listen to a part; two share its requests, and what nobody listens to goes to all, as what has no word does.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from bus_schemas.subjects import RPC_PARTS, STATUS
from chassis.feed import Interest

if TYPE_CHECKING:
    from chassis.bus import Bus


class Taking(Protocol):
    """What of `micro.MicroService` is used here."""

    async def take(self, parts: frozenset[int]) -> None: ...


def parts_of(instance: str, instances: Iterable[str]) -> frozenset[int]:
    """The parts of one of several replicas; of one that is not among them none."""
    present = sorted(set(instances))
    return frozenset(part for part in range(RPC_PARTS) if present and _owner(part, present) == instance)


def _owner(part: int, instances: list[str]) -> str:
    return max(instances, key=lambda instance: blake2b(f"{part} {instance}".encode(), digest_size=8).digest())


async def stay_near(bus: Bus, service: Taking) -> None:
    """For ever: the service listens to what is its own."""
    ready: set[str] = set()
    parts: frozenset[int] = frozenset()
    async with bus.follow(Interest(STATUS, (bus.name,))) as feed:
        while True:
            for fact in (await feed.next()).facts:
                instance = fact.key[1]
                if fact.value is not None and fact.value.ready:
                    ready.add(instance)
                else:
                    ready.discard(instance)
            if feed.in_sync and parts != (now := parts_of(bus.instance, ready)):
                parts = now
                await service.take(parts)
