"""What the allocator may do: the service's settings, and what IPAMConfiguration `default` says instead of them.

    Settings --limits--> configured by the resource --for_request--> what holds for one request

Calico's names, and here: strictAffinity, autoAllocateBlocks, maxBlocksPerHost, ipCooldownSeconds. A limit knows who set
it, so that who meets it is told what to change.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from bus_schemas.ipam import AssignRequest
from bus_schemas.resources.pools import IPAMConfigurationSpec

BY_SETTING = "TORTIE_MAX_BLOCKS_PER_NODE"
BY_RESOURCE = "maxBlocksPerHost of IPAMConfiguration default"
BY_REQUEST = "the request's own limit"


class Limits(NamedTuple):
    strict_affinity: bool = False
    """No addresses out of another node's block."""
    max_blocks_per_node: int = 20
    """Of one family; 0: no limit."""
    reclaim_after_s: float = 60.0
    auto_allocate_blocks: bool = True
    """Nodes claim blocks as they need them."""
    cooldown_s: float = 0.0
    """How long a released address rests before it is given to whoever comes."""
    max_blocks_by: str = BY_SETTING
    """Who said `max_blocks_per_node`."""
    exclusive: bool = False
    """What is asked for is all one owner's own: nobody is there to borrow from, whatever strictAffinity says."""

    def configured(self, spec: IPAMConfigurationSpec | None) -> Limits:
        """With what the resource says; what it leaves open stays."""
        if spec is None:
            return self
        limits = self
        if spec.strict_affinity is not None:
            limits = limits._replace(strict_affinity=spec.strict_affinity)
        if spec.auto_allocate_blocks is not None:
            limits = limits._replace(auto_allocate_blocks=spec.auto_allocate_blocks)
        if spec.max_blocks_per_host is not None:
            limits = limits._replace(max_blocks_per_node=max(0, spec.max_blocks_per_host), max_blocks_by=BY_RESOURCE)
        if spec.ip_cooldown_seconds is not None:
            limits = limits._replace(cooldown_s=float(max(0, spec.ip_cooldown_seconds)))
        return limits

    def for_request(self, request: AssignRequest) -> Limits:
        """A request may ask for fewer blocks, never for more. What is all one owner's own (a node's pod CIDRs, the
        addresses of load balancers) knows no limit of blocks, and nobody to borrow from. What a node only keeps warm it
        takes from nobody else: neither an address of another's block, nor the block itself."""
        if request.use == "warm":
            return self._replace(strict_affinity=True, reclaim_after_s=math.inf)
        if request.from_pod_cidr or request.use == "loadbalancer":
            return self._replace(strict_affinity=True, max_blocks_per_node=0, auto_allocate_blocks=True, exclusive=True)
        asked = request.max_blocks_per_node
        if asked is None or asked <= 0 or 0 < self.max_blocks_per_node <= asked:
            return self
        return self._replace(max_blocks_per_node=asked, max_blocks_by=BY_REQUEST)

    @property
    def told(self) -> dict[str, str]:
        """In the words of Calico's IPAMConfiguration, as status shows them."""
        return {
            "strictAffinity": str(self.strict_affinity).lower(),
            "AutoAllocateBlocks": str(self.auto_allocate_blocks).lower(),
            "MaxBlocksPerHost": str(self.max_blocks_per_node) if self.max_blocks_per_node else "unlimited",
            "IPCooldownSeconds": f"{self.cooldown_s:g}",
        }
