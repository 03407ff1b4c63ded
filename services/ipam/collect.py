"""Which handles look forgotten, since when, and which of them may be given back now. Pure.

    handles, words of the agents, nodes, epoch, who lives, candidates so far --observe--> Findings(candidates, due)
    the same, read again right before the write ------------------------------> still due?

A handle is a candidate while no agent lists any of its addresses, under whatever handle. What a candidate still waits
for is its reason:

    node is there     its agent's word is current (Holding under this epoch), the agent lives, two observations, and
                      the grace has passed since the first
    node was deleted  its agent is dead (one that lives is evidence, whatever it lists), two observations
    node is unknown   as if it were deleted, after the grace: resources may have been lost, too, and come back

A candidate carries the sequences of its allocations, so that a handle that was released and given again between two
looks begins anew, and so does one that somebody asked for again (`Handle.assigned`); the handle's own sequence is what
the write swaps on. All of this is on the bus: whoever takes the lease next goes on with it.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from typing import NamedTuple

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import LOAD_BALANCER, Candidate, Handle
from services.ipam.cidr import Cidr
from services.ipam.draft import Draft
from services.ipam.words import Words

USES = ("workload", "tunnel", "warm", "floating")
"""What agents answer for. Addresses of Services are held and given back by ipam itself."""
OBSERVATIONS = 2


class World(NamedTuple):
    """What is known beside the handles."""

    words: Words
    nodes: Collection[NodeName]
    """Those that have a resource."""
    gone: Container[NodeName]
    """Those that were deleted, by word of the bus."""
    epoch: str
    alive: Container[NodeName]
    """Those whose agent gives signs of life."""
    now: float
    grace_s: float


class Findings(NamedTuple):
    candidates: dict[HandleId, Candidate]
    due: list[HandleId]
    """Those that may be given back, if they still may when everything has been read again."""


def observe(handles: Iterable[Handle], known: Mapping[HandleId, Candidate], world: World) -> Findings:
    """One look at everything."""
    found: dict[HandleId, Candidate] = {}
    due: list[HandleId] = []
    for held in handles:
        if held.use not in USES or is_listed(held, world):
            continue
        waits = obstacle(held.node, world)
        candidate = _candidate(held, known.get(held.handle), world, waits)
        found[held.handle] = candidate
        if not waits and candidate.observations >= OBSERVATIONS and world.now >= candidate.due:
            due.append(held.handle)
    return Findings(found, due)


def is_listed(held: Handle, world: World) -> bool:
    """Whether anybody who counts lists one of the addresses: the remains of a deleted node whose agent is dead do
    not."""
    return any(
        user in world.nodes or user in world.alive for address in held.addresses for user in world.words.users(address)
    )


def obstacle(node: NodeName, world: World) -> str:
    """Why nothing of the node can be given back now; empty when nothing stands in the way."""
    if node not in world.nodes:
        if node in world.alive:
            return f"node {node} has no resource, but its agent is alive"
        return "" if world.nodes or node in world.gone else "there is no Node resource at all"
    if not world.words.has_spoken(node, world.epoch):
        return f"the agent of node {node} has not said what it holds since the records were begun"
    if node not in world.alive:
        return f"the agent of node {node} is silent"
    return ""


def may_go(held: Handle, known: Candidate, world: World) -> bool:
    """The last look, with everything read again: whether a due handle is still what it was found to be."""
    return (
        held.sequences == known.sequences
        and held.node == known.node
        and held.assigned <= known.since
        and not is_listed(held, world)
        and not obstacle(held.node, world)
        and world.now >= known.due
    )


def _candidate(held: Handle, known: Candidate | None, world: World, waits: str) -> Candidate:
    if held.node in world.nodes:
        because = f"no pod or device of node {held.node} has the address"
    else:
        because = f"node {held.node} is {'deleted' if held.node in world.gone else 'unknown'}"
    since, observations = world.now, 0
    if (
        known is not None
        and (known.sequences, known.node) == (held.sequences, held.node)
        and held.assigned <= known.since
    ):
        since, observations = known.since, known.observations
    if not waits:
        since = since if observations else world.now
        observations = min(observations + 1, OBSERVATIONS)
    return Candidate(
        handle=held.handle,
        node=held.node,
        namespace=held.namespace,
        pod=held.pod,
        addresses=held.addresses,
        sequences=held.sequences,
        reason=f"{because}; it waits: {waits}" if waits else because,
        since=since,
        observations=observations,
        due=since if held.node in world.gone else since + world.grace_s,
    )


def surplus(draft: Draft, seen: Mapping[Cidr, int], nodes: Collection[NodeName]) -> tuple[dict[Cidr, int], list[Cidr]]:
    """Empty blocks beyond the one that a node keeps of each pool: all of them by their sequence, and those that were
    seen so before and have not changed since. One that has no resource (`nodes` have) keeps none: it was deleted when
    nobody was there to hear of it."""
    spare: dict[Cidr, int] = {}
    ledger = draft.ledger
    for node, owned in ledger.owned.items():
        leaves = bool(nodes) and node not in nodes and node != LOAD_BALANCER
        by_pool: dict[str, list[Cidr]] = {}
        for cidr in sorted(owned):
            by_pool.setdefault(ledger.blocks[cidr].pool, []).append(cidr)
        for cidrs in by_pool.values():
            empty = [cidr for cidr in cidrs if draft.unused(cidr)]
            keep = 0 if leaves or len(empty) < len(cidrs) else 1
            spare.update((cidr, ledger.blocks[cidr].sequence) for cidr in empty[keep:])
    return spare, [cidr for cidr, sequence in spare.items() if seen.get(cidr) == sequence]


def give_back(draft: Draft, cidr: Cidr) -> None:
    """An empty block that its node does not need, in one write: block and claim together."""
    block = draft.ledger.blocks[cidr]
    assert block.node is not None
    draft.remove(cidr)
    draft.set_affinity(block.node, cidr, None)
    draft.tell(
        "returned",
        f"The empty block of node {block.node} is free again: the node has others.",
        node=block.node,
        object=cidr.text,
    )
