"""What the policy table needs to know of the node as a whole, from pools and configuration. Pure."""

from __future__ import annotations

from typing import Any, Literal

from services.node_dataplane.core import Surroundings
from services.node_dataplane.nft.table import NodeRules
from services.node_dataplane.tunnel import DEVICES
from services.node_dataplane.turns import FIELDS

_TO_HOST: dict[str, Literal["accept", "drop", "return"]] = {"Accept": "accept", "Drop": "drop", "Return": "return"}


def node_rules(around: Surroundings) -> NodeRules:
    port = around.tunnels[0].port if around.tunnels else None
    return NodeRules(
        masquerade_pools=tuple(p.spec.cidr for p in around.pools if p.spec.nat_outgoing),
        all_pools=tuple(p.spec.cidr for p in around.pools),
        nodes=around.node_addresses,
        exclude_nodes=_setting(around, "nat_outgoing_exclusions") == "IPPoolsAndHostIPs",
        vxlan_port=port,
        vxlan_links=tuple(DEVICES.values()),
        allow_vxlan_from_workloads=bool(_setting(around, "allow_vxlan_packets_from_workloads")),
        endpoint_to_host=_TO_HOST.get(_setting(around, "default_endpoint_to_host_action") or "", "accept"),
        spoofing=_setting(around, "workload_source_spoofing") == "Any",
        log_prefix=_setting(around, "log_prefix") or "calico-packet",
    )


def refresh_intervals(around: Surroundings) -> dict[str, str | None]:
    """How often the self-check shall look, as it is written."""
    return {field: _setting(around, field) for field in FIELDS.values()}


def _setting(around: Surroundings, field: str) -> Any:
    for _, configuration in around.configurations:
        value = getattr(configuration.spec, field)
        if value is not None:
            return value
    return None
