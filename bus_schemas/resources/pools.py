"""Where addresses come from and how they are given: IPPool, IPReservation, IPAMConfiguration (projectcalico.org/v3)."""

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


class IPReservationSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    reserved_cidrs: tuple[str, ...] = msgspec.field(default=(), name="reservedCIDRs")
    """Addresses and networks out of which nothing is given but by name."""


class IPReservation(Resource, tag="ipreservation/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "IPReservation"
    TOKEN: ClassVar[str] = "ipreservation"
    PLURAL: ClassVar[str] = "ipreservations"
    ALIASES: ClassVar[tuple[str, ...]] = ()
    NAMESPACED: ClassVar[bool] = False

    spec: IPReservationSpec = IPReservationSpec()


IPAM_CONFIGURATION = "default"
"""The name of the one IPAMConfiguration."""


class IPAMConfigurationSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """None: not set here, the setting of the address service decides."""

    strict_affinity: bool | None = None
    auto_allocate_blocks: bool | None = None
    max_blocks_per_host: int | None = None
    """0: no limit."""
    ip_cooldown_seconds: int | None = None
    """How long a released address rests before it is given again."""


class IPAMConfiguration(Resource, tag="ipamconfiguration/1", frozen=True, kw_only=True):
    """There is one, called `IPAM_CONFIGURATION`. Calico stores it as the kind IPAMConfig."""

    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "IPAMConfiguration"
    TOKEN: ClassVar[str] = "ipamconfiguration"
    PLURAL: ClassVar[str] = "ipamconfigurations"
    ALIASES: ClassVar[tuple[str, ...]] = ("ipamconfig", "ipamconfigs")
    NAMESPACED: ClassVar[bool] = False

    spec: IPAMConfigurationSpec = IPAMConfigurationSpec()
