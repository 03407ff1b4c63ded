"""What becomes of a node's claim on a block: a table, and the step that each row asks for.

A claim is an affinity record and, once it is confirmed, a block that names the node. `keep` is whether the node should
have the block: the node was not deleted, and the block's pool is there, enabled and selects the node. A block is empty
when nobody has an address of it, or had one a moment ago (one that cools down would be given at once to whoever claims
the block next).

    affinity          block                   step
    ---------------   ---------------------   ------------------------------------------------------------------
    pending           none                    nothing: the node's next request goes on with it; not keep: forget
    any               another node's          forget: the race was lost, or the node was disowned
    confirmed, none   the node's, keep        confirm
    confirmed, none   the node's, given from  node gone: disown; otherwise confirm: pods still use it
    confirmed, none   the node's, empty       retire: nobody gives addresses from it any more (not keep)
    pendingDeletion   the node's, keep        confirm
    pendingDeletion   the node's, given from  as above: somebody gave one before he knew
    pendingDeletion   the node's, empty       remove the block and the affinity
    confirmed, p.D.   none                    forget

Every step is one atomic write, and the state after it is a row again: whoever comes next, this replica or another, goes
on where a crashed one stopped. Without word that a node or pool is gone, nothing is taken from anybody.
"""

from __future__ import annotations

from enum import Enum, auto

from bus_schemas.ids import NodeName
from bus_schemas.ipam import AffinityState, Block
from services.ipam.cidr import Cidr
from services.ipam.desired import Desired
from services.ipam.draft import Draft


class Step(Enum):
    FORGET = auto()
    CONFIRM = auto()
    DISOWN = auto()
    RETIRE = auto()
    REMOVE = auto()


class Verdict(Enum):
    """Whether a node should have a block, and why not."""

    KEEP = auto()
    UNSELECTED = auto()
    """The pool does not select the node: an empty block goes back, a claim under way may end."""
    POOL_GONE = auto()
    NODE_GONE = auto()


def verdict(desired: Desired, node: NodeName, cidr: Cidr, block: Block | None) -> Verdict:
    if node in desired.gone_nodes:
        return Verdict.NODE_GONE
    pool = desired.pool_of_block(cidr, block)
    if pool is None:
        return Verdict.POOL_GONE if block is not None and desired.has_lost(block) else Verdict.KEEP
    if pool.disabled:
        return Verdict.POOL_GONE
    labels = desired.nodes.get(node)
    if labels is not None and not pool.node_selector.matches(labels):
        return Verdict.UNSELECTED
    return Verdict.KEEP


def next_step(
    state: AffinityState | None, block: Block | None, node: NodeName, judged: Verdict, *, empty: bool
) -> Step | None:
    """The table above. `block`: at the claim's place, None when there is none that can be worked with."""
    if block is None:
        if state is AffinityState.PENDING:
            return None if judged in (Verdict.KEEP, Verdict.UNSELECTED) else Step.FORGET
        return None if state is None else Step.FORGET
    if block.node != node:
        return None if state is None else Step.FORGET
    confirmed = None if state is AffinityState.CONFIRMED else Step.CONFIRM
    if judged is Verdict.KEEP:
        return confirmed
    if not empty:
        return Step.DISOWN if judged is Verdict.NODE_GONE else confirmed
    return Step.REMOVE if state is AffinityState.PENDING_DELETION else Step.RETIRE


def take_step(draft: Draft, step: Step, node: NodeName, cidr: Cidr) -> None:
    match step:
        case Step.FORGET:
            draft.set_affinity(node, cidr, None)
        case Step.CONFIRM:
            draft.set_affinity(node, cidr, AffinityState.CONFIRMED)
        case Step.RETIRE:
            draft.set_affinity(node, cidr, AffinityState.PENDING_DELETION)
        case Step.DISOWN:
            draft.disown(cidr)
            draft.set_affinity(node, cidr, None)
            draft.tell("disowned", f"Node {node} is gone, its addresses are not.", node=node, object=cidr.text)
        case Step.REMOVE:
            draft.remove(cidr)
            draft.set_affinity(node, cidr, None)
            draft.tell("returned", f"The empty block of node {node} is free again.", node=node, object=cidr.text)
