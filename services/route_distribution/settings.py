"""What an operator can set about route distribution."""

from __future__ import annotations

from chassis.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    route_flush_min_s: float = 0.002
    """Seconds to gather further changes before a flush: the least time between a change and its route."""
    route_flush_max_s: float = 0.05
    """Seconds between a change and its route at most, while changes keep coming."""
    route_retry_s: float = 1.0
    """Seconds to wait after a failed write before the next attempt."""
