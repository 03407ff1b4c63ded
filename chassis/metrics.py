"""The chassis's own counters, one process-wide registry, served by `health` at /metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

MALFORMED = Counter("tortie_bus_malformed", "Messages that could not be read and were set aside", ["stream"])
GAPS = Counter("tortie_bus_gaps", "Live feeds found behind their stream and read again", ["stream"])
WIPED = Counter("tortie_bus_wiped", "Streams found wiped or re-created", ["stream"])
RECONNECTS = Counter("tortie_bus_sessions", "Sessions opened with a nats-server")
CONNECTED = Gauge("tortie_bus_connected", "1 while there is a usable session")
EVENTS_DROPPED = Counter("tortie_bus_events_dropped", "Events dropped because the buffer was full")
RPC_ERRORS = Counter("tortie_rpc_errors", "Requests answered with an error", ["endpoint", "code"])
CONFLICTS = Counter("tortie_bus_conflicts", "Writes refused because the key had changed")
REPAIRS = Counter("tortie_publication_repairs", "Published keys found changed or lost, and written again")
