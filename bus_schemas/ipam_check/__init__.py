"""Whether the address records make sense: of themselves, and beside what the nodes say they use. Pure.

    Records     blocks, affinities, handles; pools, nodes, reservations; endpoints, holdings, services, candidates
       |-- grounds    pools: which of them holds a block or an address
       |-- blocks     each block by itself, beside the pools, the nodes and the affinities
       |-- holders    who says that he uses an address
       '-- addresses  every address that is given or used: block, handle and holder must agree
    Report      counts, problems, notes, one row an address; what `tortie ipam release --from-report` reads

The records come from several streams, so what is happening right now can look like a fault. `Report.confirmed_by` keeps
what a second look sees as well; an address that was given a moment ago is `settling`, not leaked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import median

from bus_schemas.ipam_check import addresses, blocks
from bus_schemas.ipam_check.grounds import Grounds
from bus_schemas.ipam_check.holders import Holders
from bus_schemas.ipam_check.records import Records
from bus_schemas.ipam_check.report import (
    VERSION,
    AddressRow,
    AddressState,
    Busiest,
    Counts,
    Finding,
    Kind,
    Report,
)

__all__ = [
    "VERSION",
    "AddressRow",
    "AddressState",
    "Counts",
    "Finding",
    "Kind",
    "Records",
    "Report",
    "check",
]

BUSIEST = 20
"""How many of the nodes with the most addresses a report names."""


def check(records: Records, now: float) -> Report:
    """`now`: Unix time in seconds, for what was given a moment ago."""
    grounds = Grounds(records)
    holders = Holders(records)
    findings = [*records.unreadable, *_life(records), *grounds.findings, *blocks.check(records, grounds)]
    rows, more = addresses.check(records, grounds, holders, now)
    findings += more
    per_node = Counter(row.node for row in rows if row.given and row.node)
    return Report(
        taken=now,
        counts=Counts(
            blocks=len(records.blocks),
            allocations=sum(len(block.allocations) for block in records.blocks.values()),
            affinities=len(records.affinities),
            handles=len(records.handles),
            pools=len(records.pools),
            reservations=len(records.reservations),
            nodes=len(records.nodes),
            endpoints=len(records.endpoints),
            holdings=len(records.holdings.keys() & records.nodes.keys()),
            used=len(holders.of),
            candidates=len(records.candidates),
        ),
        busiest=tuple(Busiest(node=node, addresses=count) for node, count in per_node.most_common(BUSIEST)),
        median=float(median(per_node.values())) if per_node else 0.0,
        problems=tuple(finding for finding in findings if not finding.note),
        notes=tuple(finding for finding in findings if finding.note),
        addresses=tuple(rows),
    )


def _life(records: Records) -> Iterator[Finding]:
    epoch = records.epoch
    if epoch is not None and epoch.state != "ready":
        awaited = ", ".join(epoch.missing) or "nobody any more"
        text = f"the records are being rebuilt from what the nodes hold; still awaited: {awaited}"
        yield Finding(kind=Kind.REBUILDING, object=epoch.id, text=text)
