"""What an operator can choose about addresses."""

from __future__ import annotations

from chassis.settings import ServiceSettings
from services.ipam.limits import Limits


class Settings(ServiceSettings, frozen=True, kw_only=True):
    strict_affinity: bool = False
    """Never give a node an address out of another node's block (Calico's StrictAffinity). This, the next and the
    cool-down are what holds as long as IPAMConfiguration `default` says nothing else."""
    max_blocks_per_node: int = 20
    """The most blocks of one family that a node may claim; 0: no limit."""
    reclaim_after_s: float = 60.0
    """When a pool is exhausted, other nodes' empty blocks may be taken over this long after they were claimed."""
    ip_cooldown_s: float = 2.0
    """How long a released address rests before it is given to whoever comes (Calico's ipCooldownSeconds; its default is
    0, not at all). Two seconds are many times what all nodes take to hear that the pod is gone, so its traffic and its
    rights are nobody else's; and where every other address is in use, a new pod waits that long and does not fail."""
    leak_grace_s: float = 900.0
    """How long an address that no agent lists is left alone before it is given back."""
    collect_interval_s: float = 300.0
    """How often forgotten addresses and superfluous blocks are looked for."""
    recovery_settle_s: float = 6.0
    """When the bus lost its records and no replica remembers them: so long everybody has to find out and to say what
    he knows, at least. Agents and the api notice a loss within five seconds."""
    attempts: int = 12
    """How often a conflicting write is decided anew before the answer is `busy`."""
    backoff_s: float = 0.002
    """The first pause between attempts lasts up to this long, each further one up to twice as long."""
    max_backoff_s: float = 0.25
    """The longest pause between attempts."""

    @property
    def told(self) -> dict[str, str]:
        """What status says of the replica until IPAMConfiguration `default` says otherwise."""
        return self.limits.told

    @property
    def limits(self) -> Limits:
        return Limits(
            strict_affinity=self.strict_affinity,
            max_blocks_per_node=self.max_blocks_per_node,
            reclaim_after_s=self.reclaim_after_s,
            cooldown_s=self.ip_cooldown_s,
        )
