"""Reading BGPConfiguration, with the rules of libcalico-go's validator.

There are two kinds of it: `default`, and `node.<name>` for one node, which may only say what differs from node to node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from bus_schemas.manifests.addresses import address, network
from bus_schemas.manifests.bgp_secrets import password
from bus_schemas.manifests.communities import community, is_community
from bus_schemas.manifests.devices import device_pattern
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.numbers import as_number, duration
from bus_schemas.manifests.ports import port_number
from bus_schemas.resources.bgp import (
    CLUSTER_ROUTES,
    BGPConfiguration,
    BGPConfigurationSpec,
    Community,
    PrefixAdvertisement,
    ServiceBlock,
)

DEFAULT = "default"
OF_NODE = "node."
MAX_PRIORITY = 0x7FFFFFFE

SEVERITIES = ("Trace", "Debug", "Info", "Warning", "Error", "Fatal")
_AGGREGATION: tuple[Literal["Enabled", "Disabled"], ...] = ("Enabled", "Disabled")
_BIND_MODES: tuple[Literal["None", "NodeIP"], ...] = ("None", "NodeIP")
FOR_ALL = (
    "nodeToNodeMeshEnabled",
    "asNumber",
    "serviceClusterIPs",
    "serviceExternalIPs",
    "serviceLoadBalancerIPs",
    "nodeMeshPassword",
    "nodeMeshMaxRestartTime",
)
"""What only `default` may say."""
WITH_MESH = ("nodeMeshPassword", "nodeMeshMaxRestartTime")


def bgp_configuration(document: Fields, *, stored: bool) -> BGPConfiguration:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    communities = tuple(_community(at.fields()) for at in fields.items("communities"))
    names = frozenset(known.name for known in communities)
    spec = BGPConfigurationSpec(
        node_to_node_mesh_enabled=fields.maybe("nodeToNodeMeshEnabled", At.boolean),
        as_number=fields.maybe("asNumber", as_number),
        log_severity_screen=fields.maybe("logSeverityScreen", lambda at: at.choice(SEVERITIES, any_case=True)),
        service_cluster_ips=_service_blocks(fields, "serviceClusterIPs"),
        service_external_ips=_service_blocks(fields, "serviceExternalIPs"),
        service_load_balancer_ips=_service_blocks(fields, "serviceLoadBalancerIPs"),
        service_load_balancer_aggregation=fields.maybe(
            "serviceLoadBalancerAggregation", lambda at: at.choice(_AGGREGATION)
        ),
        communities=communities,
        prefix_advertisements=tuple(_advertisement(at.fields(), names) for at in fields.items("prefixAdvertisements")),
        listen_port=fields.maybe("listenPort", port_number),
        node_mesh_password=fields.maybe("nodeMeshPassword", password),
        node_mesh_max_restart_time=fields.maybe("nodeMeshMaxRestartTime", duration),
        bind_mode=fields.maybe("bindMode", lambda at: at.choice(_BIND_MODES)),
        ignored_interfaces=tuple(_ignored_interface(at) for at in fields.items("ignoredInterfaces")),
        local_workload_peering_ipv4=fields.read("localWorkloadPeeringIPV4", _own_address(4), ""),
        local_workload_peering_ipv6=fields.read("localWorkloadPeeringIPV6", _own_address(6), ""),
        program_cluster_routes=fields.maybe(
            "programClusterRoutes", lambda at: at.choice(CLUSTER_ROUTES, any_case=True)
        ),
        ipv4_normal_route_priority=fields.integer("ipv4NormalRoutePriority", 1, MAX_PRIORITY),
        ipv6_normal_route_priority=fields.integer("ipv6NormalRoutePriority", 1, MAX_PRIORITY),
    )
    if communities and not spec.prefix_advertisements:
        fields.place("communities").fault("are not used by any of the prefixAdvertisements")
    if spec.node_to_node_mesh_enabled is False:
        _forbid(fields, WITH_MESH, "cannot be set when nodeToNodeMeshEnabled is false")
    if meta.name.startswith(OF_NODE):
        _forbid(fields, FOR_ALL, f"can be set for the whole cluster only, in the BGPConfiguration {DEFAULT}")
    elif meta.name and meta.name != DEFAULT:
        place = document.fields("metadata").place("name")
        place.warn(f"only {DEFAULT} and {OF_NODE}<name> have an effect, not {said(meta.name)}")
    fields.unused("serviceLoadBalancerAggregation")
    fields.close(Unknown.WARNED)
    return BGPConfiguration(metadata=meta, spec=spec)


def _forbid(fields: Fields, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if (given := fields.take(name)) is not None and given.value not in ([], ""):
            given.fault(reason)


def _community(fields: Fields) -> Community:
    read = Community(name=fields.string("name"), value=fields.required("value", community, ""))
    fields.close(Unknown.REFUSED)
    return read


def _advertisement(fields: Fields, defined: frozenset[str]) -> PrefixAdvertisement:
    cidr = fields.required("cidr", lambda at: network(at, host=True), None)
    communities = []
    for at in fields.items("communities"):
        text = at.string()
        if text not in defined and not is_community(text):
            at.fault(f"must be a community or the name of one that is defined, not {said(text)}")
        communities.append(text)
    fields.close(Unknown.REFUSED)
    return PrefixAdvertisement(cidr="" if cidr is None else str(cidr), communities=tuple(communities))


def _service_blocks(fields: Fields, name: str) -> tuple[ServiceBlock, ...]:
    return tuple(_service_block(at.fields()) for at in fields.items(name))


def _service_block(fields: Fields) -> ServiceBlock:
    cidr = fields.required("cidr", lambda at: network(at, host=True), None)
    fields.close(Unknown.REFUSED)
    return ServiceBlock(cidr="" if cidr is None else str(cidr))


def _ignored_interface(at: At) -> str:
    name = device_pattern(at)
    if name == "*":
        at.fault("must not be every device")
    return name


def _own_address(family: int) -> Callable[[At], str]:
    return lambda at: "" if at.value == "" else address(at, family=family)
