"""Every address that a block gives or somebody uses: block, handle and holder must tell the same story.

block.allocations --- handle record       both ways: each names the other, with the same sequence
       |
    holders       an endpoint, a node's holding, a Service: one, on that node, under that handle
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from operator import itemgetter
from typing import NamedTuple

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import LOAD_BALANCER, Allocation, Block, Candidate, Handle
from bus_schemas.ipam_check.grounds import Ground, Grounds
from bus_schemas.ipam_check.holders import Holder, Holders, believes
from bus_schemas.ipam_check.records import Records
from bus_schemas.ipam_check.report import AddressRow, AddressState, Finding, Kind

SETTLING_S = 60.0
"""An address that was given so recently may not have been announced yet."""
ONLY_THE_NODE_KNOWS = ("tunnel", "warm")
"""Uses that no endpoint tells of."""


class Given(NamedTuple):
    """One allocation, with its block and its handle's record."""

    ip: str
    position: tuple[int, int]
    """(family, number) of the address."""
    allocation: Allocation
    block: Block
    record: Handle | None
    """None: there is none, or it does not have the address."""

    @property
    def node(self) -> NodeName:
        return self.allocation.borrower or self.block.node or NodeName("")


def check(records: Records, grounds: Grounds, holders: Holders, now: float) -> tuple[list[AddressRow], list[Finding]]:
    rows: list[tuple[tuple[int, int], AddressRow]] = []
    findings: list[Finding] = []
    given: dict[str, Given] = {}
    for block in records.blocks.values():
        for one in _given(block, records):
            given[one.ip] = one
            row, found = _judge(one, records, grounds, holders, now)
            rows.append((one.position, row))
            findings += found
    findings += _handles(records, given)
    for address, who in holders.of.items():
        if address not in given:
            rows.append((_position(address), _unallocated_row(address, who)))
            findings += _unallocated(address, who, records, grounds)
        findings += _twice(address, holders.pods(address))
    rows.sort(key=itemgetter(0))
    return [row for _, row in rows], findings


def _position(text: str) -> tuple[int, int]:
    """(family, number); what is no address comes first."""
    try:
        address = ip_address(text)
    except ValueError:
        return 0, 0
    return address.version, int(address)


def _given(block: Block, records: Records) -> Iterator[Given]:
    try:
        network = ip_network(block.cidr)
    except ValueError:
        return  # named as a malformed block
    first, size = int(network.network_address), network.num_addresses
    for allocation in block.allocations:
        if 0 <= allocation.ordinal < size:
            ip = str(network.network_address + allocation.ordinal)
            record = records.handles.get(allocation.handle)
            if record is not None and ip not in record.addresses:
                record = None
            yield Given(ip, (network.version, first + allocation.ordinal), allocation, block, record)


# --- what is given


def _judge(
    one: Given, records: Records, grounds: Grounds, holders: Holders, now: float
) -> tuple[AddressRow, list[Finding]]:
    findings = list(_recorded(one, records))
    who = holders.of.get(one.ip, [])
    if who:
        state, why = AddressState.IN_USE, ""
        findings += _told(one, who)
    else:
        state, why = _without_holder(one, records, now)
    candidate = records.candidates.get(one.allocation.handle) if state is AddressState.LEAKED else None
    if state is AddressState.LEAKED:
        findings.append(_finding(one, Kind.LEAKED, f"{_named(one)}: {why}{_candidacy(candidate)}"))
    if grounds.reserved and one.position in grounds.reserved:
        findings.append(_finding(one, Kind.RESERVED, f"{_named(one)} is reserved and in use", note=True))
    record = one.record
    row = AddressRow(
        ip=one.ip,
        state=state,
        holder="; ".join(dict.fromkeys(holder.text for holder in who)),
        node=one.node,
        handle=one.allocation.handle,
        sequence=one.allocation.sequence,
        use=record.use if record is not None else "",
        namespace=record.namespace if record is not None else "",
        pod=record.pod if record is not None else "",
        block=one.block.cidr,
        pool=one.block.pool,
        borrowed=one.allocation.borrower is not None and one.allocation.borrower != one.block.node,
        why=why if state is AddressState.LEAKED else "",
        since=candidate.since if candidate is not None else None,
        due=candidate.due if candidate is not None else None,
    )
    return row, findings


def _recorded(one: Given, records: Records) -> Iterator[Finding]:
    """The handle's record beside the allocation."""
    handle = one.allocation.handle
    record = records.handles.get(handle)
    if record is None:
        yield _finding(one, Kind.HANDLE_MISSING, f"{one.ip} is given to handle {handle}, which does not exist")
        return
    sequence = dict(zip(record.addresses, record.sequences, strict=False)).get(one.ip)
    if sequence is None:
        yield _finding(one, Kind.HANDLE_MISSING, f"{one.ip} is given to handle {handle}, which does not have it")
    elif sequence != one.allocation.sequence:
        text = f"{one.ip} was given to handle {handle} at {one.allocation.sequence}, the handle says at {sequence}"
        yield _finding(one, Kind.HANDLE_MISSING, text)
    elif record.node != one.node and record.node != LOAD_BALANCER:
        text = f"{one.ip} is on node {one.node or '(none)'} by its block and on {record.node} by handle {handle}"
        yield _finding(one, Kind.OTHER_NODE, text)


def _told(one: Given, who: Sequence[Holder]) -> Iterator[Finding]:
    """What its holders believe beside the allocation."""
    if not any(believes(holder, one.allocation.handle, one.record) for holder in who):
        others = " and ".join(dict.fromkeys(_claim(holder) for holder in who))
        yield _finding(one, Kind.OTHER_HANDLE, f"{_named(one)} is used by {others}")
    elsewhere = dict.fromkeys(h.text for h in who if h.node != one.node and h.node != LOAD_BALANCER)
    if elsewhere and one.node:
        text = f"{one.ip} is allocated to node {one.node} and used by {' and '.join(elsewhere)}"
        yield _finding(one, Kind.OTHER_NODE, text)


def _claim(holder: Holder) -> str:
    return f"{holder.text} as {holder.handle}" if holder.handle else holder.text


def _without_holder(one: Given, records: Records, now: float) -> tuple[AddressState, str]:
    use = one.record.use if one.record is not None else ""
    if use == "loadbalancer":
        why = "no Service of type LoadBalancer has it"
    elif one.node not in records.nodes:
        why = f"node {one.node or '(none)'} does not exist, and nobody says that he uses it"
    elif use in ONLY_THE_NODE_KNOWS and one.node not in records.holdings:
        return AddressState.UNKNOWN, ""
    else:
        why = f"node {one.node} does not say that it is used"
    if one.record is not None and now - one.record.assigned < SETTLING_S:
        return AddressState.SETTLING, ""
    return AddressState.LEAKED, why


def _candidacy(candidate: Candidate | None) -> str:
    if candidate is None:
        return "; not seen by the collector yet"
    times = "once" if candidate.observations == 1 else f"{candidate.observations} times"
    return f"; a candidate since {moment(candidate.since)}, seen {times}, due {moment(candidate.due)}"


def moment(unix: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _named(one: Given) -> str:
    record = one.record
    whose = f" of pod {record.namespace}/{record.pod}" if record is not None and record.pod else ""
    return f"{one.ip} (handle {one.allocation.handle}{whose})"


def _finding(one: Given, kind: Kind, text: str, *, note: bool = False) -> Finding:
    return Finding(
        kind=kind,
        object=one.ip,
        text=text,
        handle=one.allocation.handle,
        sequence=one.allocation.sequence,
        note=note,
    )


# --- what is not


def _unallocated_row(address: str, who: Sequence[Holder]) -> AddressRow:
    return AddressRow(
        ip=address,
        state=AddressState.NOT_ALLOCATED,
        holder="; ".join(dict.fromkeys(holder.text for holder in who)),
        node=who[0].node,
    )


def _unallocated(address: str, who: Sequence[Holder], records: Records, grounds: Grounds) -> Iterator[Finding]:
    text = " and ".join(dict.fromkeys(holder.text for holder in who))
    ground = _ground(address, grounds)
    if all(holder.pod is None and holder.node not in records.nodes for holder in who):
        left = f"{address} is still held by {text}, whose Node was deleted; its addresses are free"
        yield Finding(kind=Kind.DEPARTED, object=address, text=left, note=True)
    elif ground is not None:
        yield Finding(
            kind=Kind.NOT_ALLOCATED,
            object=address,
            text=f"{address} is used by {text}, and pool {ground.name} may give it to somebody else",
        )
    elif any(holder.handle for holder in who):
        yield Finding(kind=Kind.OUTSIDE, object=address, text=f"{address} is used by {text}, outside of every pool")
    else:
        told = f"{address} of {text} is in no pool: its own choice, or from elsewhere"
        yield Finding(kind=Kind.OWN_CHOICE, object=address, text=told, note=True)


def _ground(address: str, grounds: Grounds) -> Ground | None:
    family, number = _position(address)
    return grounds.around(family, number, number) if family else None


def _twice(address: str, pods: Sequence[Holder]) -> Iterator[Finding]:
    different = dict.fromkeys((holder.pod, holder.node) for holder in pods)
    if len(different) > 1:
        users = " and ".join(dict.fromkeys(holder.text for holder in pods))
        yield Finding(kind=Kind.DUPLICATE, object=address, text=f"{address} is used twice: by {users}")


def _handles(records: Records, given: dict[str, Given]) -> Iterator[Finding]:
    """Handles beside the blocks: each address that a handle has must be given to it."""
    for key, record in records.handles.items():
        fault = _handle_fault(key, record)
        if fault:
            yield Finding(kind=Kind.HANDLE_MALFORMED, object=key, text=f"handle {key} {fault}", handle=HandleId(key))
        for address in record.addresses:
            one = given.get(address)
            if one is None or one.allocation.handle != key:
                instead = f"is given to {one.allocation.handle}" if one is not None else "is given to nobody"
                text = f"handle {key} says that it has {address}, which {instead}"
                yield Finding(kind=Kind.HANDLE_ASTRAY, object=address, text=text, handle=HandleId(key))


def _handle_fault(key: str, record: Handle) -> str:
    if record.handle != key:
        return f"says that it is {record.handle}"
    if not record.addresses:
        return "has no address"
    if len(record.addresses) != len(record.sequences):
        return f"has {len(record.addresses)} addresses and {len(record.sequences)} sequences"
    return ""
