"""BGP sessions at /metrics: as of the last look, so that the series of a session that is gone go, too."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily

from bus_schemas.sessions import SessionState

DEATHS = Counter("tortie_bird_ended", "Times that BIRD ended without being told to")
FLAPS = Counter("tortie_bgp_sessions_lost", "BGP sessions that were established and are not any more")


class SessionMetrics:
    def __init__(self) -> None:
        self._sessions: tuple[SessionState, ...] = ()
        REGISTRY.register(self)

    def close(self) -> None:
        REGISTRY.unregister(self)

    def show(self, sessions: tuple[SessionState, ...]) -> None:
        self._sessions = sessions

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return _families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        established, imported, exported = _families()
        for session in self._sessions:
            labels = [session.neighbour, session.origin]
            established.add_metric(labels, float(session.established))
            imported.add_metric(labels, session.imported)
            exported.add_metric(labels, session.exported)
        return established, imported, exported


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    labels = ["neighbour", "type"]
    return (
        GaugeMetricFamily("tortie_bgp_session_established", "1 while the BGP session is established", labels=labels),
        GaugeMetricFamily("tortie_bgp_routes_imported", "Routes that came by the session", labels=labels),
        GaugeMetricFamily("tortie_bgp_routes_exported", "Routes that went by the session", labels=labels),
    )
