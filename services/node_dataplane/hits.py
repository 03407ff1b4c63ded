"""How often each policy decided: counters of the kernel, published as HITS and shown as metrics.

    kernel's counter objects --one dump--> figures --meaning (PolicyTable.counted)--> Hits --> bus, /metrics

The kernel counts; this only reads, in a thread and on a socket of its own, so neither packets nor commits wait. What is
published lives a minute: a message goes out when something changed, and else often enough to stay.

The counters begin when the table is made. Its handle, another one after every replacement, tells a restarted agent
whether they are still those that it knew; that and the time of the beginning are all that is kept on disk.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily

from bus_schemas.ids import NodeName
from bus_schemas.policy import Hit, Hits
from bus_schemas.subjects import HITS, Family, Key
from chassis.errors import BusError
from chassis.health import Health
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft import counters
from services.node_dataplane.nft.attribution import GUARDS, Counted

TTL_S = 60.0
RENEW_S = 30.0
FILE = "counters.json"
CAUSE = "policy counters"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FIELDS = {
    "allow": "allowed",
    "deny": "denied",
    "pass": "passed",
    "would_allow": "would_allow",
    "would_deny": "would_deny",
}


class Bus(Protocol):
    """What of the bus is used here."""

    async def put(self, family: Family[Hits], key: Key, message: Hits, *, ttl_s: float | None = None) -> int: ...


class Table(Protocol):
    """Says what counters mean."""

    def counted(self) -> Mapping[str, Counted]: ...


class Reading(NamedTuple):
    table: str
    """Which table of which life of the machine; empty: there is none."""
    packets: Mapping[str, int]
    """By counter object."""


def hits_of(counted: Mapping[str, Counted], packets: Mapping[str, int]) -> tuple[Hit, ...]:
    """Those that are not zero, by policy and way."""
    sums: dict[tuple[str, str], dict[str, int]] = {}
    for name, (rules, way, verdict) in counted.items():
        if figure := packets.get(name, 0):
            sums.setdefault((rules, way), {})[_FIELDS[verdict]] = figure
    return tuple(Hit(rules=rules, way=way, **sums[rules, way]) for rules, way in sorted(sums))  # type: ignore[arg-type]


def guarded(packets: Mapping[str, int]) -> dict[str, int]:
    """Packets that each guard dropped."""
    return {guard: packets.get(guard, 0) for guard in GUARDS}


class Beginning(msgspec.Struct, frozen=True):
    """When the counters of a table began."""

    table: str
    since: float


def beginning(known: Beginning | None, reading: Reading, now: float) -> Beginning:
    if known is not None and known.table == reading.table:
        return known
    return Beginning(reading.table, now)


class HitCounters:
    def __init__(
        self,
        node: NodeName,
        table: Table,
        bus: Bus,
        health: Health,
        *,
        directory: Path,
        interval_s: float,
        metrics: bool,
    ) -> None:
        """`interval_s` 0: nothing is read. `metrics`: policies, too, are shown at /metrics, not guards alone."""
        self._node = node
        self._table = table
        self._bus = bus
        self._health = health
        self._path = directory / FILE
        self._interval_s = interval_s
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        self._metrics = PolicyMetrics(by_policy=metrics)
        self._beginning: Beginning | None = None
        self._published: tuple[float, tuple[Hit, ...]] = (0.0, ())
        """When (of the machine's clock that only advances), and what."""

    def close(self) -> None:
        self._metrics.close()
        self._socket.close()

    async def run(self) -> None:
        """For ever."""
        if not self._interval_s:
            return
        self._beginning = await asyncio.to_thread(_load, self._path)
        while True:
            try:
                await self.read_once()
            except OSError as error:
                self._health.note(CAUSE, f"they cannot be read: {error}")
            else:
                self._health.note(CAUSE, None)
            await asyncio.sleep(self._interval_s)

    async def read_once(self) -> None:
        """Raises OSError."""
        reading = await asyncio.to_thread(self._read)
        if not reading.table:
            return
        now = time.time()
        begun = beginning(self._beginning, reading, now)
        if begun is not self._beginning:
            await asyncio.to_thread(_save, self._path, begun)
            self._beginning = begun
        hits = hits_of(self._table.counted(), reading.packets)
        self._metrics.show(hits, guarded(reading.packets))
        await self._publish(Hits(node=self._node, since=begun.since, time=now, hits=hits))

    async def _publish(self, message: Hits) -> None:
        at, last = self._published
        now = asyncio.get_running_loop().time()
        if message.hits == last and (not last or now - at < RENEW_S):
            return
        try:
            await self._bus.put(HITS, (self._node,), message, ttl_s=TTL_S)
        except BusError:
            return  # Health says why; the next reading says more.
        self._published = (now, message.hits)

    def _read(self) -> Reading:
        answer = self._socket.get(counters.get_table())
        if answer is None:
            return Reading("", {})
        table = f"{_BOOT.read_text().strip()}/{counters.table_handle(answer[1])}"
        figures = counters.read(self._socket.stream(counters.dump()))
        return Reading(table, {name: figure.packets for name, figure in figures.items()})


def _load(path: Path) -> Beginning | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Beginning)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # The counters then seem to begin now, which costs a date.


def _save(path: Path, begun: Beginning) -> None:
    aside = path.with_suffix(".new")
    aside.write_bytes(msgspec.json.encode(begun))
    os.replace(aside, path)


class PolicyMetrics:
    """The last reading at /metrics: series of policies that are gone go, too."""

    def __init__(self, *, by_policy: bool) -> None:
        self._by_policy = by_policy
        self._hits: tuple[Hit, ...] = ()
        self._guards: Mapping[str, int] = {}
        REGISTRY.register(self)

    def close(self) -> None:
        REGISTRY.unregister(self)

    def show(self, hits: tuple[Hit, ...], guards: Mapping[str, int]) -> None:
        self._hits, self._guards = hits, guards

    def describe(self) -> Iterable[CounterMetricFamily]:
        return (_connections(), _denied())

    def collect(self) -> Iterable[CounterMetricFamily]:
        denied = _denied()
        for guard, packets in self._guards.items():
            denied.add_metric([guard], packets)
        connections = _connections()
        for hit in self._hits if self._by_policy else ():
            for verdict, field in _FIELDS.items():
                if figure := getattr(hit, field):
                    connections.add_metric([hit.rules, hit.way, verdict], figure)
        return connections, denied


def _connections() -> CounterMetricFamily:
    return CounterMetricFamily(
        "tortie_policy_connections",
        "Connections (first packets) that a policy decided on this node",
        labels=["policy", "direction", "verdict"],
    )


def _denied() -> CounterMetricFamily:
    return CounterMetricFamily("tortie_denied_packets", "Packets that a guard of the node dropped", labels=["reason"])
