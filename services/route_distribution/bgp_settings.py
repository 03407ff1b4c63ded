"""What the BGPConfigurations say for one node: `node.<name>` before `default` before what is built in."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

import msgspec
from msgspec.structs import fields

from bus_schemas.bgp import DEFAULT_AS, NORMAL_PRIORITY, Advertisement, Mesh, Secret, SessionOptions
from bus_schemas.resources.bgp import BGPConfigurationSpec, BGPPassword, ClusterRoutes, ServiceBlock

DEFAULT = "default"
OF_NODE = "node."

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

T = TypeVar("T")


class NodeBgpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything decided; equal for nodes that need not differ."""

    as_number: int = DEFAULT_AS
    mesh: Mesh | None = None
    listen_port: int = 0
    bind_node_address: bool = False
    log_level: str = "Info"
    services: tuple[str, ...] = ()
    advertisements: tuple[Advertisement, ...] = ()
    cluster_routes: ClusterRoutes = "EnabledNoEncapOnly"
    priority4: int = NORMAL_PRIORITY
    priority6: int = NORMAL_PRIORITY
    ignored_interfaces: tuple[str, ...] = ()
    workload_address4: str = ""
    workload_address6: str = ""


def settings_of(default: BGPConfigurationSpec | None, own: BGPConfigurationSpec | None) -> NodeBgpSettings:
    spec = merged(own or BGPConfigurationSpec(), default or BGPConfigurationSpec())
    return NodeBgpSettings(
        as_number=int(spec.as_number or DEFAULT_AS),
        mesh=None if spec.node_to_node_mesh_enabled is False else _mesh(spec),
        listen_port=spec.listen_port or 0,
        bind_node_address=spec.bind_mode == "NodeIP",
        log_level=spec.log_severity_screen or "Info",
        services=_services(spec),
        advertisements=_advertisements(spec),
        cluster_routes=spec.program_cluster_routes or "EnabledNoEncapOnly",
        priority4=spec.ipv4_normal_route_priority or NORMAL_PRIORITY,
        priority6=spec.ipv6_normal_route_priority or NORMAL_PRIORITY,
        ignored_interfaces=spec.ignored_interfaces,
        workload_address4=spec.local_workload_peering_ipv4,
        workload_address6=spec.local_workload_peering_ipv6,
    )


def merged(own: BGPConfigurationSpec, default: BGPConfigurationSpec) -> BGPConfigurationSpec:
    """Field by field: what `own` says, else what `default` says."""

    def said(name: str) -> Any:
        value = getattr(own, name)
        return getattr(default, name) if value in (None, "", ()) else value

    return BGPConfigurationSpec(**{field.name: said(field.name) for field in fields(BGPConfigurationSpec)})


def _mesh(spec: BGPConfigurationSpec) -> Mesh:
    options = SessionOptions(
        password=secret(spec.node_mesh_password), restart_s=whole_seconds(spec.node_mesh_max_restart_time)
    )
    return Mesh(options=options)


def _services(spec: BGPConfigurationSpec) -> tuple[str, ...]:
    """Ranges that every node announces whole. Single addresses depend on endpoints: `service_addresses`."""
    aggregated = spec.service_load_balancer_aggregation != "Disabled"
    blocks: tuple[ServiceBlock, ...] = (
        *spec.service_cluster_ips,
        *spec.service_external_ips,
        *(spec.service_load_balancer_ips if aggregated else ()),
    )
    networks = (network for block in blocks if (network := readable(block.cidr)) is not None)
    return tuple(dict.fromkeys(str(network) for network in networks if network.num_addresses > 1))


def _advertisements(spec: BGPConfigurationSpec) -> tuple[Advertisement, ...]:
    values = {community.name: community.value for community in spec.communities}
    return tuple(
        Advertisement(
            cidr=str(network),
            communities=tuple(dict.fromkeys(values.get(name, name) for name in one.communities)),
        )
        for one in spec.prefix_advertisements
        if (network := readable(one.cidr)) is not None
    )


def readable(cidr: str) -> IPv4Network | IPv6Network | None:
    """None: refused at the door, and came by another."""
    try:
        return ip_network(cidr, strict=False)
    except ValueError:
        return None


def secret(password: BGPPassword | None) -> Secret | None:
    reference = None if password is None else password.secret_key_ref
    return None if reference is None else Secret(name=reference.name, key=reference.key)


def whole_seconds(duration: str | None) -> int:
    """A Go duration, rounded up to seconds, of which BIRD counts; 0: none is given."""
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(duration or ""))
    return int(-(-total // 1))
