"""What ipam counts, in the process-wide registry that `chassis.health` serves."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ASSIGNED = Counter("tortie_ipam_assigned", "Addresses given")
REPEATED = Counter("tortie_ipam_repeated", "Requests for what the handle held already")
RELEASED = Counter("tortie_ipam_released", "Addresses given back")
UNMET = Counter("tortie_ipam_unmet", "Requests without success", ["reply"])
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
IN_USE = Gauge("tortie_ipam_allocations_in_use", "Addresses in use", ["pool"])
SIZE = Gauge("tortie_ipam_ippool_size", "Addresses of the pool", ["pool"])
BLOCKS = Gauge("tortie_ipam_blocks", "Claimed blocks")
CANDIDATES = Gauge("tortie_ipam_gc_candidates", "Handles that look forgotten")
COLLECTED = Counter("tortie_ipam_gc_reclamations", "Addresses of forgotten handles that were given back")
