"""The policy compiler's own measures."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

FLUSH_SECONDS = Histogram(
    "tortie_policy_compile_seconds",
    "Time to compile what changed since the last flush",
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
MESSAGES = Counter("tortie_policy_messages", "Messages that compiling changed", ["family"])
SIZES = Gauge("tortie_policy_objects", "How many there were when last all was on the bus", ["what"])
FAULTS = Gauge("tortie_policy_faults", "Fields of policies and endpoints that could not be compiled")
