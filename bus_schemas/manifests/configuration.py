"""Reading FelixConfiguration.

Felix has some two hundred parameters; those that nothing here needs are accepted with a warning, so that a
configuration from a Calico cluster can be applied as it is.
"""

from __future__ import annotations

import re
from typing import Literal

from bus_schemas.manifests import felix_parameters
from bus_schemas.manifests.addresses import net
from bus_schemas.manifests.calico_policy import check_cut
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.felix_parameters import regular_expression
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.numbers import duration
from bus_schemas.resources.configuration import (
    FelixConfiguration,
    FelixConfigurationSpec,
    ProtoPort,
)

MAX_VNI = (1 << 24) - 1
MAX_MTU = 65535

_TO_HOST: tuple[Literal["Drop", "Return", "Accept"], ...] = ("Drop", "Return", "Accept")
_EXCLUSIONS: tuple[Literal["IPPoolsOnly", "IPPoolsAndHostIPs"], ...] = ("IPPoolsOnly", "IPPoolsAndHostIPs")
_SPOOFING: tuple[Literal["Disabled", "Any"], ...] = ("Disabled", "Any")
_FLOATING: tuple[Literal["Enabled", "Disabled"], ...] = ("Enabled", "Disabled")
_PORT_PROTOCOLS = ("tcp", "udp", "sctp")
FEATURES = re.compile(r"(?:[a-zA-Z0-9_-]+=(?:true|false|),)*(?:[a-zA-Z0-9_-]+=(?:true|false|))?")
RATE = re.compile(r"[1-9][0-9]{0,8}/(?:second|minute|hour|day)")


def felix_configuration(document: Fields, *, stored: bool) -> FelixConfiguration:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    spec = FelixConfigurationSpec(
        vxlan_vni=fields.integer("vxlanVNI", 1, MAX_VNI),
        vxlan_port=fields.integer("vxlanPort", 1, 65535),
        vxlan_mtu=fields.integer("vxlanMTU", 0, MAX_MTU),
        ipip_mtu=fields.integer("ipipMTU", 0, MAX_MTU),
        mtu_iface_pattern=fields.maybe("mtuIfacePattern", regular_expression),
        feature_detect_override=fields.maybe("featureDetectOverride", _features),
        wireguard_enabled=fields.maybe("wireguardEnabled", At.boolean),
        wireguard_enabled_v6=fields.maybe("wireguardEnabledV6", At.boolean),
        wireguard_listening_port=fields.integer("wireguardListeningPort", 1, 65535),
        wireguard_listening_port_v6=fields.integer("wireguardListeningPortV6", 1, 65535),
        wireguard_mtu=fields.integer("wireguardMTU", 0, MAX_MTU),
        wireguard_mtu_v6=fields.integer("wireguardMTUV6", 0, MAX_MTU),
        wireguard_keep_alive=fields.maybe("wireguardKeepAlive", duration),
        default_endpoint_to_host_action=fields.maybe(
            "defaultEndpointToHostAction", lambda at: at.choice(_TO_HOST, any_case=True)
        ),
        log_prefix=fields.maybe("logPrefix", At.string),
        nat_outgoing_exclusions=fields.maybe("natOutgoingExclusions", lambda at: at.choice(_EXCLUSIONS, any_case=True)),
        workload_source_spoofing=fields.maybe("workloadSourceSpoofing", lambda at: at.choice(_SPOOFING, any_case=True)),
        floating_ips=fields.maybe("floatingIPs", lambda at: at.choice(_FLOATING)),
        allow_vxlan_packets_from_workloads=fields.maybe("allowVXLANPacketsFromWorkloads", At.boolean),
        allow_ipip_packets_from_workloads=fields.maybe("allowIPIPPacketsFromWorkloads", At.boolean),
        route_refresh_interval=fields.maybe("routeRefreshInterval", duration),
        nftables_refresh_interval=fields.maybe("nftablesRefreshInterval", duration),
        failsafe_inbound_host_ports=fields.maybe("failsafeInboundHostPorts", _proto_ports),
        failsafe_outbound_host_ports=fields.maybe("failsafeOutboundHostPorts", _proto_ports),
        log_action_rate_limit=fields.maybe("logActionRateLimit", _rate),
        log_action_rate_limit_burst=fields.integer("logActionRateLimitBurst", 1, 9999),
    )
    check_cut(document, meta)
    felix_parameters.check_unused(fields)
    fields.close(Unknown.WARNED)
    return FelixConfiguration(metadata=meta, spec=spec)


def _features(at: At) -> str:
    text = at.string()
    if at.value == text and not FEATURES.fullmatch(text):
        at.fault(f"must be Feature=true,Other=false,..., not {said(text)}")
    return text


def _proto_ports(at: At) -> tuple[ProtoPort, ...]:
    return tuple(_proto_port(item.fields()) for item in at.items())


def _proto_port(fields: Fields) -> ProtoPort:
    read = ProtoPort(
        protocol=fields.required("protocol", _port_protocol, "tcp"),
        port=fields.required("port", lambda at: at.integer(0, 65535), 0),
        net=fields.read("net", lambda at: net(at) if at.value else "", ""),
    )
    fields.close(Unknown.REFUSED)
    return read


def _port_protocol(at: At) -> str:
    return at.choice(_PORT_PROTOCOLS, any_case=True)


def _rate(at: At) -> str:
    text = at.string()
    if text and not RATE.fullmatch(text):
        at.fault(f"must be a number per second, minute, hour or day (like 10/second), not {said(text)}")
    return text
