"""How nodes speak BGP: BGPConfiguration, BGPPeer and BGPFilter (projectcalico.org/v3)."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.metadata import Resource

ClusterRoutes = Literal["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"]
"""Which routes between nodes BIRD puts into the kernel; what it does not, the agents do."""
CLUSTER_ROUTES: tuple[ClusterRoutes, ...] = ("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class SecretKeyRef(_Part, frozen=True, kw_only=True):
    name: str
    key: str


class BGPPassword(_Part, frozen=True, kw_only=True):
    """A password is never in a resource, only where it is."""

    secret_key_ref: SecretKeyRef | None = None


class Community(_Part, frozen=True, kw_only=True):
    name: str
    value: str
    """`64512:100` (RFC 1997) or `64512:1:100` (RFC 8092)."""


class PrefixAdvertisement(_Part, frozen=True, kw_only=True):
    cidr: str
    communities: tuple[str, ...] = ()
    """Names of communities that the configuration defines, or values."""


class ServiceBlock(_Part, frozen=True, kw_only=True):
    cidr: str


class BGPConfigurationSpec(_Part, frozen=True, kw_only=True):
    """None: not set here. `node.<name>` goes before `default`, what neither sets is built in."""

    node_to_node_mesh_enabled: bool | None = None
    as_number: int | str | None = None
    log_severity_screen: str | None = None
    service_cluster_ips: tuple[ServiceBlock, ...] = msgspec.field(default=(), name="serviceClusterIPs")
    service_external_ips: tuple[ServiceBlock, ...] = msgspec.field(default=(), name="serviceExternalIPs")
    service_load_balancer_ips: tuple[ServiceBlock, ...] = msgspec.field(default=(), name="serviceLoadBalancerIPs")
    service_load_balancer_aggregation: Literal["Enabled", "Disabled"] | None = None
    communities: tuple[Community, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    listen_port: int | None = None
    node_mesh_password: BGPPassword | None = None
    node_mesh_max_restart_time: str | None = None
    """A Go duration, as all times of these kinds."""
    bind_mode: Literal["None", "NodeIP"] | None = None
    ignored_interfaces: tuple[str, ...] = ()
    local_workload_peering_ipv4: str = msgspec.field(default="", name="localWorkloadPeeringIPV4")
    local_workload_peering_ipv6: str = msgspec.field(default="", name="localWorkloadPeeringIPV6")
    program_cluster_routes: ClusterRoutes | None = None
    ipv4_normal_route_priority: int | None = msgspec.field(default=None, name="ipv4NormalRoutePriority")
    ipv6_normal_route_priority: int | None = msgspec.field(default=None, name="ipv6NormalRoutePriority")


class BGPConfiguration(Resource, tag="bgpconfiguration/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "BGPConfiguration"
    TOKEN: ClassVar[str] = "bgpconfiguration"
    PLURAL: ClassVar[str] = "bgpconfigurations"
    ALIASES: ClassVar[tuple[str, ...]] = ("bgpconfig", "bc")
    NAMESPACED: ClassVar[bool] = False

    spec: BGPConfigurationSpec = BGPConfigurationSpec()


class BGPPeerSpec(_Part, frozen=True, kw_only=True):
    """Neither `node` nor `node_selector`: every node has the session."""

    node: str = ""
    node_selector: str = ""
    peer_ip: str = msgspec.field(default="", name="peerIP")
    """`10.0.0.1`, `10.0.0.1:179`, `[fd00::1]:179`."""
    as_number: int | None = None
    local_as_number: int | None = msgspec.field(default=None, name="localASNumber")
    peer_selector: str = ""
    """Instead of an address: the nodes that are peered with."""
    local_workload_selector: str = ""
    """Instead of an address: the pods of the node that it peers with."""
    next_hop_mode: Literal["Auto", "Self", "Keep"] | None = None
    keep_original_next_hop: bool = False
    """The older word for `next_hop_mode: Keep`."""
    password: BGPPassword | None = None
    source_address: Literal["UseNodeIP", "None"] | None = None
    max_restart_time: str | None = None
    keepalive_time: str | None = None
    num_allowed_local_as_numbers: int | None = msgspec.field(default=None, name="numAllowedLocalASNumbers")
    ttl_security: int | None = None
    """Hops to the peer at most (RFC 5082)."""
    reachable_by: str = ""
    filters: tuple[str, ...] = ()
    reverse_peering: Literal["Auto", "Manual"] | None = None

    @property
    def endpoint(self) -> tuple[str, int]:
        """The peer's plain address and port; 0: none is given."""
        host, bracket, port = self.peer_ip.rpartition("]:")
        if bracket:
            return host.removeprefix("["), int(port)
        host, colon, port = self.peer_ip.partition(":")
        return (host, int(port)) if colon and "." in host else (self.peer_ip, 0)


class BGPPeer(Resource, tag="bgppeer/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "BGPPeer"
    TOKEN: ClassVar[str] = "bgppeer"
    PLURAL: ClassVar[str] = "bgppeers"
    ALIASES: ClassVar[tuple[str, ...]] = ("bgpp", "bp")
    NAMESPACED: ClassVar[bool] = False

    spec: BGPPeerSpec = BGPPeerSpec()


class PrefixLength(_Part, frozen=True, kw_only=True):
    min: int | None = None
    max: int | None = None


class MatchedCommunities(_Part, frozen=True, kw_only=True):
    values: tuple[str, ...]


class AddCommunity(_Part, frozen=True, kw_only=True):
    value: str


class PrependASPath(_Part, frozen=True, kw_only=True):
    prefix: tuple[int, ...]
    """In the order in which the AS path then begins."""


class SetPriority(_Part, frozen=True, kw_only=True):
    value: int


class FilterOperation(_Part, frozen=True, kw_only=True):
    """One of the three."""

    add_community: AddCommunity | None = None
    prepend_as_path: PrependASPath | None = msgspec.field(default=None, name="prependASPath")
    set_priority: SetPriority | None = None


class FilterRule(_Part, frozen=True, kw_only=True):
    """Decides about the routes that match everything it names."""

    action: Literal["Accept", "Reject"]
    cidr: str = ""
    match_operator: Literal["Equal", "NotEqual", "In", "NotIn"] | None = None
    prefix_length: PrefixLength | None = None
    source: Literal["RemotePeers"] | None = None
    interface: str = ""
    """A device's name or a pattern with `*`."""
    peer_type: Literal["eBGP", "iBGP"] | None = None
    communities: MatchedCommunities | None = None
    as_path_prefix: tuple[int, ...] = msgspec.field(default=(), name="asPathPrefix")
    priority: int | None = None
    operations: tuple[FilterOperation, ...] = ()


class BGPFilterSpec(_Part, frozen=True, kw_only=True):
    """The first rule that matches decides; where none does, what is asked next."""

    export_v4: tuple[FilterRule, ...] = msgspec.field(default=(), name="exportV4")
    import_v4: tuple[FilterRule, ...] = msgspec.field(default=(), name="importV4")
    export_v6: tuple[FilterRule, ...] = msgspec.field(default=(), name="exportV6")
    import_v6: tuple[FilterRule, ...] = msgspec.field(default=(), name="importV6")

    def rules(self, way: Literal["import", "export"], family: int) -> tuple[FilterRule, ...]:
        if way == "import":
            return self.import_v4 if family == 4 else self.import_v6
        return self.export_v4 if family == 4 else self.export_v6


class BGPFilter(Resource, tag="bgpfilter/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "BGPFilter"
    TOKEN: ClassVar[str] = "bgpfilter"
    PLURAL: ClassVar[str] = "bgpfilters"
    ALIASES: ClassVar[tuple[str, ...]] = ("bgpf", "bf")
    NAMESPACED: ClassVar[bool] = False

    spec: BGPFilterSpec = BGPFilterSpec()
