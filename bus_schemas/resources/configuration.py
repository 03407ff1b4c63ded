"""FelixConfiguration: the fields that something here uses (projectcalico.org/v3)."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.metadata import Resource


class ProtoPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    protocol: str
    """tcp, udp or sctp."""
    port: int
    net: str = ""
    """Only to or from this CIDR; empty: anywhere."""


class FelixConfigurationSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """None: not set here, so the next object in precedence (per node, then `default`, then built in) decides."""

    vxlan_vni: int | None = msgspec.field(default=None, name="vxlanVNI")
    vxlan_port: int | None = msgspec.field(default=None, name="vxlanPort")
    vxlan_mtu: int | None = msgspec.field(default=None, name="vxlanMTU")
    ipip_mtu: int | None = msgspec.field(default=None, name="ipipMTU")
    mtu_iface_pattern: str | None = None
    """A regular expression for the names of devices whose least MTU is that of the uplink. None: the device of the
    node's address."""
    feature_detect_override: str | None = None
    """`ChecksumOffloadBroken=true,...`: what is known of the machine and need not be found out."""
    wireguard_enabled: bool | None = None
    """Pods' packets between nodes are encrypted, over IPv4; between nodes of which both have it so."""
    wireguard_enabled_v6: bool | None = msgspec.field(default=None, name="wireguardEnabledV6")
    wireguard_listening_port: int | None = None
    wireguard_listening_port_v6: int | None = msgspec.field(default=None, name="wireguardListeningPortV6")
    wireguard_mtu: int | None = msgspec.field(default=None, name="wireguardMTU")
    wireguard_mtu_v6: int | None = msgspec.field(default=None, name="wireguardMTUV6")
    wireguard_keep_alive: str | None = None
    """A Go duration (`25s`): a packet at least so often, for a NAT between the nodes to remember; None: none."""
    default_endpoint_to_host_action: Literal["Drop", "Return", "Accept"] | None = None
    log_prefix: str | None = None
    nat_outgoing_exclusions: Literal["IPPoolsOnly", "IPPoolsAndHostIPs"] | None = None
    workload_source_spoofing: Literal["Disabled", "Any"] | None = None
    """Any: pods may ask by annotation for sources that are not their own."""
    floating_ips: Literal["Enabled", "Disabled"] | None = msgspec.field(default=None, name="floatingIPs")
    """Enabled: pods may ask by annotation for floating addresses."""
    allow_vxlan_packets_from_workloads: bool | None = msgspec.field(default=None, name="allowVXLANPacketsFromWorkloads")
    allow_ipip_packets_from_workloads: bool | None = msgspec.field(default=None, name="allowIPIPPacketsFromWorkloads")
    failsafe_inbound_host_ports: tuple[ProtoPort, ...] | None = None
    """Ports of the node that stay reachable whatever its host endpoints' policies say. None: Calico's list; empty:
    none at all."""
    failsafe_outbound_host_ports: tuple[ProtoPort, ...] | None = None
    log_action_rate_limit: str | None = None
    """Of the action Log: `<n>/second`, `/minute`, `/hour`, `/day`; empty or None: no limit."""
    log_action_rate_limit_burst: int | None = None
    route_refresh_interval: str | None = None
    """A Go duration (`90s`): how often the self-check reads routes, tunnels and links back; `0`: only when it hears of
    a change. Not set: as often as the agent's own setting says."""
    nftables_refresh_interval: str | None = None
    """The same for the policy table, of which nothing is heard: only whether it exists is then asked."""


class FelixConfiguration(Resource, tag="felixconfiguration/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "FelixConfiguration"
    TOKEN: ClassVar[str] = "felixconfiguration"
    PLURAL: ClassVar[str] = "felixconfigurations"
    ALIASES: ClassVar[tuple[str, ...]] = ("felixconfig", "fc")
    NAMESPACED: ClassVar[bool] = False

    spec: FelixConfigurationSpec = FelixConfigurationSpec()
