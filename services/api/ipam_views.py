"""Reports about addresses, made of the mirror: how full, whose, how configured, what looks forgotten. Plain JSON.

Sizes and counts are exact integers whatever the family; shares are left to whoever prints them. Of each pool and block
`total = inUse + reserved + free`: `reserved` counts what an IPReservation keeps back and nobody uses. Among the free
are those that still rest after their release (`cooling`; a block remembers them for longer) and those that a node keeps
ready for its next pod (`warm`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from math import inf
from typing import Any

from bus_schemas.ipam import Allocation, Block, Candidate, Cooling
from bus_schemas.ipam_check import Records
from bus_schemas.ipam_check.grounds import Ground, Grounds
from bus_schemas.ipam_check.holders import Holders
from bus_schemas.ipam_check.records import FAMILIES, cannot_read
from bus_schemas.resources import IPAMConfiguration, IPPool, IPReservation, Node, Service
from bus_schemas.resources.pools import IPAM_CONFIGURATION
from bus_schemas.status import Status
from services.api.core import Core

Json = dict[str, Any]

CONFIGURATION_DEFAULTS = {"strictAffinity": "false", "AutoAllocateBlocks": "true", "MaxBlocksPerHost": "20"}
"""What address management does where its replicas say nothing else in their status."""
COOLDOWN = "IPCooldownSeconds"
CONFIGURED = {
    "strictAffinity": "strict_affinity",
    "AutoAllocateBlocks": "auto_allocate_blocks",
    "MaxBlocksPerHost": "max_blocks_per_host",
    COOLDOWN: "ip_cooldown_seconds",
}
"""Property -> the field of IPAMConfiguration that decides it where it is given."""
UNLIMITED = "unlimited"
"""What MaxBlocksPerHost 0 means."""


def usage(core: Core, now: float) -> Json:
    """`{configuration, epoch, pools, orphans}`; a pool is `{name, cidr, total, inUse, reserved, free, cooling, warm,
    borrowed, blocks}`, a block the same with its `node`. A block counts for the pool that it lies in; those that lie in
    none are `orphans`. A node's own range (`spec.podCIDRs`) is a pool as soon as a block was cut from it."""
    grounds = Grounds(records(core))
    inside: dict[str, list[Block]] = {stored.resource.metadata.name: [] for stored in core.resources(IPPool)}
    cidrs = {name: str(_pool(core, name).spec.cidr) for name in inside}
    orphans: list[Block] = []
    count = _Count(core, grounds, now)
    for block in _sound(core):
        ground = _ground_of(block, grounds)
        if ground is None:
            orphans.append(block)
        else:
            inside.setdefault(ground.name, []).append(block)
            cidrs.setdefault(ground.name, str(ground.network))
    return {
        "configuration": configuration(core),
        "epoch": epoch(core),
        "pools": [_counted_pool(name, cidrs[name], count.blocks(blocks), count) for name, blocks in inside.items()],
        "orphans": count.blocks(orphans),
    }


def address(core: Core, text: str, now: float) -> Json:
    """Who holds one address: `{ip, assigned, state, pool, block, owner, handle, node, namespace, pod, use, sequence,
    assignedAt, holders, reservedBy, releasedAt, candidate}`; what does not apply is empty. `state` is `in use`, `warm`
    (kept ready), `cooling`, `free` (in a block), `unclaimed` (in a pool) or `unmanaged`. Raises ValueError when the
    text is no address."""
    ip = ip_address(text)
    known = _speaking_of(core, str(ip))
    ground = Grounds(known).around(ip.version, int(ip), int(ip))
    block = _block_of(core, ip.version, int(ip))
    report: Json = {
        "ip": str(ip),
        "assigned": False,
        "state": "unmanaged" if ground is None else "unclaimed",
        "pool": "" if ground is None else ground.name,
        **dict.fromkeys(("block", "owner", "handle", "node", "namespace", "pod", "use"), ""),
        "sequence": 0,
        "assignedAt": 0.0,
        "releasedAt": 0.0,
        "holders": list(dict.fromkeys(holder.text for holder in Holders(known).of.get(str(ip), ()))),
        "reservedBy": [name for name, kept in known.reservations.items() if _keeps(kept, ip.version, int(ip))],
        "candidate": None,
    }
    if block is None:
        return report
    ordinal = int(ip) - int(_network(block.cidr).network_address)
    report |= {"state": "free", "pool": report["pool"] or block.pool, "block": block.cidr, "owner": block.node or ""}
    resting = next((c for c in block.cooling if c.ordinal == ordinal), None)
    if resting is not None and _Rest(core, now).lasts(resting):
        report |= {"state": "cooling", "releasedAt": resting.released}
    allocation = next((a for a in block.allocations if a.ordinal == ordinal), None)
    if allocation is not None:
        report |= _allocated(core, block, allocation)
        if report["use"] == "warm" and not core.owner(str(ip)):
            report["state"] = "warm"
    return report


def _speaking_of(core: Core, ip: str) -> Records:
    """The pools, and of the rest what concerns one address."""
    return Records(
        pools=_named(core, IPPool),
        reservations=_named(core, IPReservation),
        nodes=_named(core, Node),
        services=_services(core),
        service_addresses={key: given for key, given in core.service_addresses.items() if ip in given.addresses},
        endpoints={
            key: endpoint
            for key, endpoint in core.endpoints.items()
            if ip in endpoint.addresses or any(ip == floating for floating, _ in endpoint.floating)
        },
        holdings={
            key: holding for key, holding in core.holdings.items() if any(ip in held.addresses for held in holding.held)
        },
    )


def _allocated(core: Core, block: Block, allocation: Allocation) -> Json:
    told: Json = {
        "assigned": True,
        "state": "in use",
        "handle": allocation.handle,
        "sequence": allocation.sequence,
        "node": allocation.borrower or block.node or "",
    }
    handle = core.handles.get(allocation.handle)
    if handle is not None:
        told |= {"node": handle.node, "namespace": handle.namespace, "pod": handle.pod, "use": handle.use}
        told |= {"assignedAt": handle.assigned}
    candidate = core.candidates.get(allocation.handle)
    if candidate is not None:
        told |= {"candidate": {"reason": candidate.reason, "since": candidate.since, "due": candidate.due}}
    return told


def borrowed(core: Core) -> list[Json]:
    """Every address that a node uses out of a block that is not its own: `{ip, node, block, owner, use, namespace,
    pod}`, by address."""
    rows = []
    for block in _in_order(_sound(core)):
        first = _network(block.cidr).network_address
        for allocation in block.allocations:
            if _is_borrowed(block, allocation):
                handle = core.handles.get(allocation.handle)
                rows.append(
                    {
                        "ip": str(first + allocation.ordinal),
                        "node": allocation.borrower or "",
                        "block": block.cidr,
                        "owner": block.node or "",
                        "use": handle.use if handle is not None else "",
                        "namespace": handle.namespace if handle is not None else "",
                        "pod": handle.pod if handle is not None else "",
                        "handle": allocation.handle,
                    }
                )
    return rows


def configuration(core: Core) -> dict[str, str]:
    """What is in force: the IPAMConfiguration where it says something, else what the replicas say of themselves."""
    replicas = [status for status in core.statuses.values() if status.component == "ipam"]
    told = {name: _told(replicas, name) or default for name, default in CONFIGURATION_DEFAULTS.items()}
    stored = core.resource(IPAMConfiguration, ("", IPAM_CONFIGURATION))
    if stored is not None:
        assert isinstance(stored.resource, IPAMConfiguration)
        for name, field in CONFIGURED.items():
            value = getattr(stored.resource.spec, field)
            if value is not None:
                told[name] = _said(name, value)
    for name in CONFIGURED:
        if name not in told and (text := _told(replicas, name)):
            told[name] = text
    return told


def candidates(core: Core) -> Json:
    """`{epoch, items}`: what the collector thinks may be forgotten, the next to be released first."""
    items = [
        {
            "handle": candidate.handle,
            "addresses": list(candidate.addresses),
            "node": candidate.node,
            "namespace": candidate.namespace,
            "pod": candidate.pod,
            "reason": candidate.reason,
            "since": candidate.since,
            "observations": candidate.observations,
            "due": candidate.due,
        }
        for candidate in sorted(core.candidates.values(), key=_next)
    ]
    return {"epoch": epoch(core), "items": items}


def _next(candidate: Candidate) -> tuple[float, list[tuple[int, int]]]:
    addresses = [ip_address(text) for text in candidate.addresses]
    return candidate.due, [(address.version, int(address)) for address in addresses]


def epoch(core: Core) -> Json | None:
    """The life of the address records, `{id, state, began, missing}`; None while nobody has begun one."""
    found = core.epochs.get("")
    if found is None:
        return None
    return {"id": found.id, "state": found.state, "began": found.began, "missing": list(found.missing)}


def records(core: Core) -> Records:
    """What a check looks at, as it is now: the mirror may change meanwhile."""
    return Records(
        blocks=dict(core.blocks),
        affinities=dict(core.affinities),
        handles=dict(core.handles),
        candidates=dict(core.candidates),
        services=_services(core),
        service_addresses=dict(core.service_addresses),
        pools=_named(core, IPPool),
        reservations=_named(core, IPReservation),
        nodes=_named(core, Node),
        endpoints=dict(core.endpoints),
        holdings=dict(core.holdings),
        epoch=core.epochs.get(""),
        unreadable=tuple(
            cannot_read(family, key, reason) for (family, key), reason in core.unreadable.items() if family in FAMILIES
        ),
    )


def _services(core: Core) -> dict[tuple[str, str], Service]:
    found = (stored.resource for stored in core.resources(Service))
    return {service.key: service for service in found if isinstance(service, Service)}


def _named(core: Core, kind: Any) -> Any:
    return {stored.resource.metadata.name: stored.resource for stored in core.resources(kind)}


# --- counting


def _pool(core: Core, name: str) -> IPPool:
    stored = core.resource(IPPool, ("", name))
    assert stored is not None
    assert isinstance(stored.resource, IPPool)
    return stored.resource


def _counted_pool(name: str, cidr: str, blocks: list[Json], count: _Count) -> Json:
    summed = {key: sum(block[key] for block in blocks) for key in ("inUse", "cooling", "warm", "borrowed")}
    given_though_reserved = sum(block["reservedInUse"] for block in blocks)
    kept = count.reserved.count(cidr) - given_though_reserved
    counts = _counts(_network(cidr).num_addresses, summed.pop("inUse"), kept)
    return {"name": name, "cidr": cidr, **counts, **summed, "blocks": blocks}


def _cooldown_s(core: Core) -> float:
    """How long released addresses rest; the longest, where the replicas differ; without end, where nobody says."""
    stored = core.resource(IPAMConfiguration, ("", IPAM_CONFIGURATION))
    if stored is not None:
        assert isinstance(stored.resource, IPAMConfiguration)
        if stored.resource.spec.ip_cooldown_seconds is not None:
            return stored.resource.spec.ip_cooldown_seconds
    told = []
    for status in core.statuses.values():
        with suppress(KeyError, ValueError):
            told.append(float(status.detail[COOLDOWN]))
    return max(told, default=inf)


class _Rest:
    """How long released addresses rest, by what is in force."""

    def __init__(self, core: Core, now: float) -> None:
        self._since = now - _cooldown_s(core)

    def lasts(self, released: Cooling) -> bool:
        return released.released > self._since


class _Count:
    """Counts blocks."""

    def __init__(self, core: Core, grounds: Grounds, now: float) -> None:
        self.reserved = grounds.reserved
        self._rest = _Rest(core, now)
        self._core = core
        self._warm = {handle.handle for handle in core.handles.values() if handle.use == "warm"}

    def blocks(self, blocks: Iterable[Block]) -> list[Json]:
        return [self._block(block) for block in _in_order(blocks)]

    def _block(self, block: Block) -> Json:
        network = _network(block.cidr)
        kept = self.reserved.count(block.cidr)
        numbers = [int(network.network_address) + a.ordinal for a in block.allocations] if kept else []
        given_though_reserved = sum((network.version, number) in self.reserved for number in numbers)
        warm = sum(self._is_warm(network, allocation) for allocation in block.allocations)
        used = len(block.allocations) - warm
        return {
            "cidr": block.cidr,
            "node": block.node or "",
            **_counts(network.num_addresses, used, kept - given_though_reserved),
            "cooling": sum(map(self._rest.lasts, block.cooling)),
            "warm": warm,
            "borrowed": sum(_is_borrowed(block, allocation) for allocation in block.allocations),
            "reservedInUse": given_though_reserved,
        }

    def _is_warm(self, network: IPv4Network | IPv6Network, allocation: Allocation) -> bool:
        """Kept ready, and no pod has taken it yet: the record follows a moment later."""
        if allocation.handle not in self._warm:
            return False
        return not self._core.owner(str(network.network_address + allocation.ordinal))


def _is_borrowed(block: Block, allocation: Allocation) -> bool:
    return allocation.borrower is not None and allocation.borrower != block.node


def _counts(total: int, used: int, reserved: int) -> Json:
    return {"total": total, "inUse": used, "reserved": reserved, "free": total - used - reserved}


# --- places


@lru_cache(1 << 16)
def _network(cidr: str) -> IPv4Network | IPv6Network:
    return ip_network(cidr)


def _sound(core: Core) -> Iterator[Block]:
    """The blocks that are networks; `tortie ipam check` names the others."""
    for block in core.blocks.values():
        with suppress(ValueError):
            _network(block.cidr)
            yield block


def _in_order(blocks: Iterable[Block]) -> list[Block]:
    def position(block: Block) -> tuple[int, int]:
        network = _network(block.cidr)
        return network.version, int(network.network_address)

    return sorted(blocks, key=position)


def _ground_of(block: Block, grounds: Grounds) -> Ground | None:
    return grounds.of_block(block.pool, _network(block.cidr))


def _block_of(core: Core, family: int, number: int) -> Block | None:
    """The block that holds an address, by what such a block would be called."""
    width, cls = (32, IPv4Network) if family == 4 else (128, IPv6Network)
    for prefix in range(width, -1, -1):
        network = cls((number >> (width - prefix) << (width - prefix), prefix))
        if (block := core.blocks.get(str(network))) is not None:
            return block
    return None


def _keeps(reservation: IPReservation, family: int, number: int) -> bool:
    networks = (ip_network(text) for text in reservation.spec.reserved_cidrs)
    return any(n.version == family and int(n.network_address) <= number <= int(n.broadcast_address) for n in networks)


# --- configuration


def _said(name: str, value: bool | int) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return UNLIMITED if name == "MaxBlocksPerHost" and not value else str(value)


def _told(replicas: Iterable[Status], name: str) -> str:
    """What the replicas say of one setting; where they differ, each with what it says."""
    said = {status.instance: status.detail[name] for status in replicas if name in status.detail}
    if len(set(said.values())) <= 1:
        return next(iter(said.values()), "")
    return ", ".join(f"{value} ({instance})" for instance, value in sorted(said.items()))
