"""What the policy table needs to know of the node as a whole, from pools and configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any, Literal
from urllib.parse import urlsplit

from bus_schemas.policy import CUT_ANNOTATION
from bus_schemas.resources.configuration import ProtoPort
from services.node_dataplane.core import Surroundings
from services.node_dataplane.nft import failsafe
from services.node_dataplane.nft.failsafe import Failsafe
from services.node_dataplane.nft.table import NodeRules
from services.node_dataplane.tunnel_devices import NAMES
from services.node_dataplane.turns import FIELDS
from services.node_dataplane.wishes import Allowed

_BUS_PORTS = {"ws": 80, "wss": 443}
"""Where a server's URL names none; of all other schemes it is 4222."""
_RATE = re.compile("[1-9][0-9]{0,3}/(second|minute|hour|day)")
_LOG_BURST = 5
_INBOUND, _OUTBOUND = "failsafe_inbound_host_ports", "failsafe_outbound_host_ports"
_TO_HOST: dict[str, Literal["accept", "drop", "return"]] = {"Accept": "accept", "Drop": "drop", "Return": "return"}


def node_rules(around: Surroundings, bus: tuple[int, ...] = ()) -> NodeRules:
    """`bus`: the TCP ports of the bus."""
    port = around.tunnels[0].port if around.tunnels else None
    return NodeRules(
        masquerade_pools=tuple(p.spec.cidr for p in around.pools if p.spec.nat_outgoing),
        all_pools=tuple(p.spec.cidr for p in around.pools),
        nodes=around.node_addresses,
        exclude_nodes=_setting(around, "nat_outgoing_exclusions") == "IPPoolsAndHostIPs",
        vxlan_port=port,
        tunnel_links=NAMES,
        ipip=around.ipip,
        wireguard_ports=around.wireguard_ports,
        allow_vxlan_from_workloads=bool(_setting(around, "allow_vxlan_packets_from_workloads")),
        allow_ipip_from_workloads=bool(_setting(around, "allow_ipip_packets_from_workloads")),
        endpoint_to_host=_TO_HOST.get(_setting(around, "default_endpoint_to_host_action") or "", "accept"),
        spoofing=allowed(around).sources,
        floating=allowed(around).floating,
        log_prefix=_setting(around, "log_prefix") or "calico-packet",
        log_limit=_log_limit(around),
        failsafe_inbound=_failsafe(_setting(around, _INBOUND), failsafe.INBOUND, bus),
        failsafe_outbound=_failsafe(_setting(around, _OUTBOUND), failsafe.OUTBOUND, bus),
    )


def bus_ports(servers: str) -> tuple[int, ...]:
    """The ports of the bus's servers, from the setting that names them."""
    urls = [urlsplit(url if "://" in url else f"nats://{url}") for url in map(str.strip, servers.split(","))]
    return tuple(sorted({url.port or _BUS_PORTS.get(url.scheme, 4222) for url in urls}))


def faults(around: Surroundings) -> tuple[str, ...]:
    """What the configuration says that means nothing, and is left out."""
    ports = [
        f"{field}: {fault}"
        for field in (_INBOUND, _OUTBOUND)
        for entry in _setting(around, field) or ()
        if (fault := _fault(entry))
    ]
    rate = _setting(around, "log_action_rate_limit")
    return (*ports, *([f"log_action_rate_limit: {rate!r} is not a rate"] if rate and not _log_limit(around) else ()))


def _log_limit(around: Surroundings) -> str:
    rate = _setting(around, "log_action_rate_limit") or ""
    burst = _setting(around, "log_action_rate_limit_burst") or _LOG_BURST
    return f"{rate} burst {burst} packets" if _RATE.fullmatch(rate) and burst > 0 else ""


def _failsafe(
    configured: tuple[ProtoPort, ...] | None, default: tuple[Failsafe, ...], bus: tuple[int, ...]
) -> tuple[Failsafe, ...]:
    """A list that somebody wrote holds as it is written. The built-in ones name what Calico's own datastores listen on,
    both ways; what takes their place here is the bus."""
    if configured is None:
        return tuple(dict.fromkeys((*default, *(Failsafe(failsafe.TCP, port) for port in bus))))
    return tuple(_read(configured))


def _read(configured: tuple[ProtoPort, ...]) -> Iterator[Failsafe]:
    for entry in configured:
        if not _fault(entry):
            yield Failsafe(failsafe.PROTOCOLS[entry.protocol.lower()], entry.port, entry.net)


def _fault(entry: ProtoPort) -> str:
    if entry.protocol.lower() not in failsafe.PROTOCOLS:
        return f"{entry.protocol!r} is none of {', '.join(failsafe.PROTOCOLS)}"
    if not 0 < entry.port < 1 << 16:
        return f"{entry.port} is not a port"
    if "%" in entry.net:
        return f"{entry.net!r} is of one link only"
    if entry.net:
        try:
            ip_network(entry.net, strict=False)
        except ValueError as error:
            return str(error)
    return ""


def allowed(around: Surroundings | None) -> Allowed:
    """What pods may ask for by annotation."""
    if around is None:
        return Allowed()
    return Allowed(
        floating=_setting(around, "floating_ips") == "Enabled",
        sources=_setting(around, "workload_source_spoofing") == "Any",
    )


def refresh_intervals(around: Surroundings) -> dict[str, str | None]:
    """How often the self-check shall look, as it is written."""
    return {field: _setting(around, field) for field in FIELDS.values()}


def cuts_connections(around: Surroundings, otherwise: bool) -> bool:
    """Whether every change of policy cuts what it no longer allows: the annotation of FelixConfiguration `default`."""
    configuration = dict(around.configurations).get("default")
    said = configuration.metadata.annotations.get(CUT_ANNOTATION, "") if configuration is not None else ""
    return {"cut": True, "keep": False}.get(said, otherwise)


def _setting(around: Surroundings, field: str) -> Any:
    for _, configuration in around.configurations:
        value = getattr(configuration.spec, field)
        if value is not None:
            return value
    return None
