"""What an operator can set about the policy compiler."""

from __future__ import annotations

from chassis.errors import SettingsError
from chassis.settings import ServiceSettings
from chassis.shares import PARTITIONS


class Settings(ServiceSettings, frozen=True, kw_only=True):
    policy_flush_min_s: float = 0.002
    """Seconds between two flushes at least: what arrives meanwhile is compiled together. After a pause a change is
    compiled at once."""
    policy_flush_max_s: float = 0.1
    """Seconds between a change and its compilation at most, while changes keep coming."""
    policy_retry_s: float = 1.0
    """Seconds to wait after a failed write before the next attempt."""
    policy_warm_mb: int = 1024
    """Up to how many MB of the streams of policy, desired objects and endpoints nats-server is made to keep in its
    memory, beyond what it needs anyway; 100,000 pods are some 200. What it has to read from its files first takes 2 to
    5 ms more to write. 0: none."""
    policy_shards: int = 1
    """Over how many replicas the writing is spread, the same number for all of them; 1: one writes, the others stand
    by. May be changed one replica after the other. A shard without a replica of its own goes to another one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.policy_warm_mb < 0:
            raise SettingsError([f"TORTIE_POLICY_WARM_MB: must not be negative, is {self.policy_warm_mb}"])
        if not 1 <= self.policy_shards <= PARTITIONS:
            raise SettingsError([f"TORTIE_POLICY_SHARDS: must be 1 to {PARTITIONS}, not {self.policy_shards}"])
