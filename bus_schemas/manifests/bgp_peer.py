"""Reading BGPPeer: which nodes (`node`, `nodeSelector`, or all of them) have a session with whom (`peerIP`,
`peerSelector`, `localWorkloadSelector`)."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Literal

from bus_schemas.manifests.addresses import address
from bus_schemas.manifests.bgp_secrets import password
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.names import dns_subdomain
from bus_schemas.manifests.numbers import as_number, duration
from bus_schemas.manifests.selections import selector
from bus_schemas.resources.bgp import BGPPeer, BGPPeerSpec

MAX_HOPS = 255
MAX_OWN_AS = 255

_NEXT_HOPS: tuple[Literal["Auto", "Self", "Keep"], ...] = ("Auto", "Self", "Keep")
_SOURCES: tuple[Literal["UseNodeIP", "None"], ...] = ("UseNodeIP", "None")
_REVERSE: tuple[Literal["Auto", "Manual"], ...] = ("Auto", "Manual")
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})")


def bgp_peer(document: Fields, *, stored: bool) -> BGPPeer:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    spec = BGPPeerSpec(
        node=fields.read("node", _node, ""),
        node_selector=fields.read("nodeSelector", selector, ""),
        peer_ip=fields.read("peerIP", _peer_address, ""),
        as_number=fields.maybe("asNumber", _no_zero_as),
        local_as_number=fields.maybe("localASNumber", as_number),
        peer_selector=fields.read("peerSelector", selector, ""),
        local_workload_selector=fields.read("localWorkloadSelector", selector, ""),
        next_hop_mode=fields.maybe("nextHopMode", lambda at: at.choice(_NEXT_HOPS)),
        keep_original_next_hop=fields.boolean("keepOriginalNextHop"),
        password=fields.maybe("password", password),
        source_address=fields.maybe("sourceAddress", lambda at: at.choice(_SOURCES)),
        max_restart_time=fields.maybe("maxRestartTime", duration),
        keepalive_time=fields.maybe("keepaliveTime", duration),
        num_allowed_local_as_numbers=fields.integer("numAllowedLocalASNumbers", 0, MAX_OWN_AS),
        ttl_security=fields.integer("ttlSecurity", 0, MAX_HOPS),
        reachable_by=fields.read("reachableBy", lambda at: "" if at.value == "" else address(at), ""),
        filters=tuple(dns_subdomain(at) for at in fields.items("filters")),
        reverse_peering=fields.maybe("reversePeering", lambda at: at.choice(_REVERSE)),
    )
    fields.close(Unknown.NEARLY_REFUSED)
    _check(fields, spec)
    return BGPPeer(metadata=meta, spec=spec)


def _check(fields: Fields, spec: BGPPeerSpec) -> None:
    def exclusive(name: str, *others: str) -> None:
        for other in others:
            if (given := fields.take(other)) is not None and given.value not in ("", 0):
                fields.place(other).fault(f"cannot be given together with {name}")

    if spec.node:
        exclusive("node", "nodeSelector")
    if spec.peer_selector:
        exclusive("peerSelector", "peerIP", "asNumber")
    if spec.local_workload_selector:
        exclusive("localWorkloadSelector", "peerIP", "peerSelector")
        if spec.as_number is None:
            fields.place("asNumber").fault("is required with a localWorkloadSelector")
    if spec.keep_original_next_hop and spec.next_hop_mode is not None:
        fields.place("keepOriginalNextHop").fault("is the older word for nextHopMode: only one of them can be given")
    if spec.endpoint[0] and (found := ip_address(spec.endpoint[0])).version == 6 and found.is_link_local:
        fields.place("peerIP").warn("is an address of a link, without saying of which: there will be no session")
    if spec.reachable_by:
        place = fields.place("reachableBy")
        if not spec.peer_ip:
            place.fault("needs a peerIP, the address that is reached by it")
        elif (":" in spec.reachable_by) != (":" in spec.endpoint[0]):
            place.fault(f"must be of the family of the peerIP {spec.peer_ip}")


def _node(at: At) -> str:
    return "" if at.value == "" else dns_subdomain(at)


def _no_zero_as(at: At) -> int | None:
    """0 is how Calico's own types write that there is none."""
    return None if at.value is not False and at.value in (0, "0") else as_number(at)


def _peer_address(at: At) -> str:
    text = at.string()
    if not text:
        return ""
    with_port = _WITH_PORT.fullmatch(text)
    if with_port is None:
        return address(at)
    host, port = with_port[1] or with_port[3], int(with_port[2] or with_port[4])
    try:
        found = ip_address(host)
    except ValueError:
        found = None
    if found is None or (found.version == 6) != bool(with_port[1]) or not 1 <= port <= 65535:
        at.fault(f"must be an address, perhaps with a port (10.0.0.1:179, [fd00::1]:179), not {said(text)}")
        return ""
    return f"[{found}]:{port}" if found.version == 6 else f"{found}:{port}"
