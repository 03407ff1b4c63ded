"""What an operator can choose about addresses."""

from __future__ import annotations

from chassis.settings import ServiceSettings
from services.ipam.assign import Limits


class Settings(ServiceSettings, frozen=True, kw_only=True):
    strict_affinity: bool = False
    """Never give a node an address out of another node's block (Calico's StrictAffinity)."""
    max_blocks_per_node: int = 20
    """The most blocks of one family that a node may claim; 0: no limit."""
    reclaim_after_s: float = 60.0
    """When a pool is exhausted, other nodes' empty blocks may be taken over this long after they were claimed."""
    attempts: int = 12
    """How often a conflicting write is decided anew before the answer is `busy`."""
    backoff_s: float = 0.002
    """The first pause between attempts lasts up to this long, each further one up to twice as long."""
    max_backoff_s: float = 0.25
    """The longest pause between attempts."""

    @property
    def told(self) -> dict[str, str]:
        """What status says of the replica, in the words of Calico's IPAMConfiguration."""
        return {
            "strictAffinity": str(self.strict_affinity).lower(),
            "AutoAllocateBlocks": "true",
            "MaxBlocksPerHost": str(self.max_blocks_per_node) if self.max_blocks_per_node else "unlimited",
        }

    @property
    def limits(self) -> Limits:
        return Limits(self.strict_affinity, self.max_blocks_per_node, self.reclaim_after_s)
