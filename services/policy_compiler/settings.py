"""What an operator can set about the policy compiler."""

from __future__ import annotations

from chassis.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    policy_flush_min_s: float = 0.002
    """Seconds between two flushes at least: what arrives meanwhile is compiled together. After a pause a change is
    compiled at once."""
    policy_flush_max_s: float = 0.1
    """Seconds between a change and its compilation at most, while changes keep coming."""
    policy_retry_s: float = 1.0
    """Seconds to wait after a failed write before the next attempt."""
