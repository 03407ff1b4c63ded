"""Reading FelixConfiguration and BGPConfiguration.

Felix has some two hundred parameters; those that nothing here needs are accepted with a warning, so that a
configuration from a Calico cluster can be applied as it is.
"""

from __future__ import annotations

from typing import Literal

from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown
from bus_schemas.manifests.numbers import as_number, duration
from bus_schemas.resources.configuration import (
    BGPConfiguration,
    BGPConfigurationSpec,
    FelixConfiguration,
    FelixConfigurationSpec,
)

MAX_VNI = (1 << 24) - 1
MAX_MTU = 65535

_TO_HOST: tuple[Literal["Drop", "Return", "Accept"], ...] = ("Drop", "Return", "Accept")
_EXCLUSIONS: tuple[Literal["IPPoolsOnly", "IPPoolsAndHostIPs"], ...] = ("IPPoolsOnly", "IPPoolsAndHostIPs")
_SPOOFING: tuple[Literal["Disabled", "Any"], ...] = ("Disabled", "Any")
_SEVERITIES = ("Trace", "Debug", "Info", "Warning", "Error", "Fatal")


def felix_configuration(document: Fields, *, stored: bool) -> FelixConfiguration:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    spec = FelixConfigurationSpec(
        vxlan_vni=fields.integer("vxlanVNI", 1, MAX_VNI),
        vxlan_port=fields.integer("vxlanPort", 1, 65535),
        vxlan_mtu=fields.integer("vxlanMTU", 0, MAX_MTU),
        default_endpoint_to_host_action=fields.maybe(
            "defaultEndpointToHostAction", lambda at: at.choice(_TO_HOST, any_case=True)
        ),
        log_prefix=fields.maybe("logPrefix", At.string),
        nat_outgoing_exclusions=fields.maybe("natOutgoingExclusions", lambda at: at.choice(_EXCLUSIONS, any_case=True)),
        workload_source_spoofing=fields.maybe("workloadSourceSpoofing", lambda at: at.choice(_SPOOFING, any_case=True)),
        allow_vxlan_packets_from_workloads=fields.maybe("allowVXLANPacketsFromWorkloads", At.boolean),
        route_refresh_interval=fields.maybe("routeRefreshInterval", duration),
        nftables_refresh_interval=fields.maybe("nftablesRefreshInterval", duration),
    )
    fields.close(Unknown.WARNED)
    return FelixConfiguration(metadata=meta, spec=spec)


def bgp_configuration(document: Fields, *, stored: bool) -> BGPConfiguration:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    spec = BGPConfigurationSpec(
        node_to_node_mesh_enabled=fields.maybe("nodeToNodeMeshEnabled", At.boolean),
        as_number=fields.maybe("asNumber", as_number),
        log_severity_screen=fields.maybe("logSeverityScreen", lambda at: at.choice(_SEVERITIES, any_case=True)),
    )
    if spec.node_to_node_mesh_enabled is False:
        for name in ("nodeMeshPassword", "nodeMeshMaxRestartTime"):
            if (at := fields.take(name)) is not None:
                at.fault("cannot be set when nodeToNodeMeshEnabled is false")
    fields.unused("nodeMeshPassword", "nodeMeshMaxRestartTime")
    fields.close(Unknown.WARNED)
    return BGPConfiguration(metadata=meta, spec=spec)
