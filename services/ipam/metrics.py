"""What ipam counts, in the process-wide registry that `chassis.health` serves.

Requests are counted as they are answered. How addresses are used is computed when somebody asks for it (`shown`), from
the ledger, with names near those of Calico's kube-controllers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.ipam.usage import Usage

ASSIGNED = Counter("tortie_ipam_assigned", "Addresses given")
REPEATED = Counter("tortie_ipam_repeated", "Requests for what the handle held already")
RELEASED = Counter("tortie_ipam_released", "Addresses given back")
UNMET = Counter("tortie_ipam_unmet", "Requests without success", ["reply"])
REQUESTS = Counter("tortie_ipam_requests", "Requests by what they were answered", ["request", "outcome"])
CONFLICTS = Counter("tortie_ipam_conflicts", "Decisions that another writer's change made void")
SECONDS = Histogram(
    "tortie_ipam_request_seconds",
    "From request to answer",
    ["request"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
BATCHED = Histogram(
    "tortie_ipam_batched_requests",
    "Requests of one node that were answered by one decision",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
WRITTEN = Histogram(
    "tortie_ipam_batch_writes",
    "Writes that went to the bus in one atomic batch",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000),
)
CANDIDATES = Gauge("tortie_ipam_gc_candidates", "Handles that look forgotten")
COLLECTED = Counter("tortie_ipam_gc_reclamations", "Addresses of forgotten handles that were given back")


@contextmanager
def shown(read: Callable[[], Usage]) -> Iterator[None]:
    """Meanwhile /metrics shows what `read` says."""
    collector = _UsageCollector(read)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


class _UsageCollector(Collector):
    def __init__(self, read: Callable[[], Usage]) -> None:
        self._read = read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: registering must not read."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        usage = self._read()
        for name, text, by_place in (
            ("tortie_ipam_allocations_in_use", "Addresses in use", usage.in_use),
            ("tortie_ipam_allocations_warm", "Addresses that nodes keep ready for their next pods", usage.warm),
            ("tortie_ipam_allocations_borrowed", "Addresses that nodes have of other nodes' blocks", usage.borrowed),
            ("tortie_ipam_blocks", "Claimed blocks", usage.blocks),
        ):
            family = GaugeMetricFamily(name, text, labels=["pool", "node"])
            for place, count in by_place.items():
                family.add_metric(place, count)
            yield family
        for field, text in (
            ("size", "Addresses of the pool"),
            ("reserved", "Addresses of the pool that are reserved and not in use"),
            ("free", "Addresses of the pool that are neither in use nor reserved"),
        ):
            family = GaugeMetricFamily(f"tortie_ipam_ippool_{field}", text, labels=["pool"])
            for pool, figures in usage.pools.items():
                family.add_metric([pool], getattr(figures, field))
            yield family
