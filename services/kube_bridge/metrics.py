"""The bridge's own measures."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("tortie_kube_requests", "Requests to the API server", ["verb", "resource", "code"])
LISTS = Counter("tortie_kube_lists", "Complete lists", ["resource", "how"])
EVENTS_SEEN = Counter("tortie_kube_watch_events", "Events of watches", ["resource", "type"])
FAILURES = Counter("tortie_kube_watch_failures", "Lists and watches that failed", ["resource", "why"])
OBJECTS = Gauge("tortie_kube_objects", "Objects that Kubernetes has", ["resource"])
INVALID = Gauge("tortie_kube_invalid_objects", "Objects of Kubernetes that cannot be mirrored as they are")
LEADS = Gauge("tortie_kube_leads", "1 while this replica writes")
REPORTS = Counter("tortie_kube_reports", "Writes of status and Events", ["resource", "outcome"])
FLUSH_SECONDS = Histogram(
    "tortie_kube_flush_seconds",
    "Time from changed objects to what is wanted on the bus",
    buckets=(0.0001, 0.001, 0.01, 0.1, 1, 10),
)
