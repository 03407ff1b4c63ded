"""IPPool: where addresses come from and how they are reached (projectcalico.org/v3)."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.metadata import Resource


class IPPoolSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    cidr: str
    vxlan_mode: Literal["Never", "CrossSubnet", "Always"] = "Never"
    ipip_mode: Literal["Never", "CrossSubnet", "Always"] = "Never"
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = msgspec.field(default=False, name="disableBGPExport")
    block_size: int = 0
    """Prefix length of the blocks; 0 stands for the default of the family (26, 122): see `IPPool.block_size`."""
    node_selector: str = ""
    """Calico selector over node labels; empty is `all()`."""
    namespace_selector: str = ""
    allowed_uses: tuple[Literal["Workload", "Tunnel", "LoadBalancer"], ...] = ("Workload", "Tunnel")
    assignment_mode: Literal["Automatic", "Manual"] = "Automatic"


class IPPool(Resource, tag="ippool/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "IPPool"
    TOKEN: ClassVar[str] = "ippool"
    PLURAL: ClassVar[str] = "ippools"
    ALIASES: ClassVar[tuple[str, ...]] = ("ipp", "pool", "pools")
    NAMESPACED: ClassVar[bool] = False

    spec: IPPoolSpec

    @property
    def family(self) -> int:
        return 6 if ":" in self.spec.cidr else 4

    @property
    def block_size(self) -> int:
        """Prefix length of the pool's blocks."""
        return self.spec.block_size or (26 if self.family == 4 else 122)
