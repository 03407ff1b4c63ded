"""Service addresses as chains: how a packet to one of them finds its backend. Pure.

                prerouting, output   address . protocol . port -> `services` map -> one of the chains below
                postrouting          masquerades where the answer would not come back by this node

    pick4_<n>        address . protocol . port . (random number below n) -> `backends` map: that is where it goes
    affine_<h>_..    sessionAffinity: the backend whose set holds the client, else a random one, whose set gets it
    split_<a>_<b>    externalTrafficPolicy Local: <a> for what comes from this node and its pods, <b> for others
    ranges_<h>       loadBalancerSourceRanges
    service_reject   no endpoints at all: a reset, or port unreachable
    service_drop     Local, and none is here; or what could not be understood

So a new connection pays for one lookup, and one more when it is for a service, however many there are. The chains of
`pick` belong to no service: most services are elements of two maps and nothing else.

All of it comes before policy, which sees the backend's address and port and the client's own address. That is kept
wherever the answer comes back by this node of itself: from a pod of this node, and to one. A pod that reached itself is
the exception, for it would answer itself directly.

The bit TRANSLATED of the packet's mark tells the postrouting hook what was redirected here; it is gone behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.frame import FROM_POD, POD_SOURCES4, POD_SOURCES6, TO_POD, hook
from services.node_dataplane.nft.names import service_chain
from services.node_dataplane.nft.sets import (
    ADDRESSES4,
    ADDRESSES6,
    BACKENDS4,
    BACKENDS6,
    SERVICES4,
    SERVICES6,
    SetSpec,
    sticky,
)
from services.node_dataplane.service_proxy.core import Target
from services.node_dataplane.service_proxy.endpoints import Backend

TRANSLATED = 0x04000000
"""A bit of packet marks; kube-proxy's are 0x4000 and 0x8000, that of host endpoints 0x08000000."""

MAPS: dict[int, str] = {4: "services4", 16: "services6"}
BACKENDS: dict[int, str] = {4: "backends4", 16: "backends6"}
ADDRESSES: dict[int, str] = {4: "service_addresses4", 16: "service_addresses6"}
"""All three by bytes of an address."""
REJECT, DROP = "service_reject", "service_drop"

SETS: dict[str, SetSpec] = {
    MAPS[4]: SetSpec(SERVICES4, "services"),
    MAPS[16]: SetSpec(SERVICES6, "services"),
    BACKENDS[4]: SetSpec(BACKENDS4, "where they lead"),
    BACKENDS[16]: SetSpec(BACKENDS6, "where they lead"),
    ADDRESSES[4]: SetSpec(ADDRESSES4, "cluster addresses"),
    ADDRESSES[16]: SetSpec(ADDRESSES6, "cluster addresses"),
}

KEPT = 16
"""Services with up to so many backends find their chain there: when a backend comes or goes, elements alone change."""

_IP = {4: "ip", 16: "ip6"}
_MARK = f"meta mark set meta mark | 0x{TRANSLATED:08x}"
_UNMARK = f"meta mark set meta mark & 0x{TRANSLATED ^ 0xFFFFFFFF:08x}"
_AFTER_DNAT = "-99"
"""Behind floating addresses, which are a pod's."""


def base_chains() -> dict[str, Chain]:
    return {
        REJECT: Chain(("meta l4proto 6 reject with tcp reset", "reject with icmpx type port-unreachable")),
        DROP: Chain(("counter drop",)),
        "services_in": Chain(_dispatch(), hook("nat", "prerouting", _AFTER_DNAT)),
        "services_own": Chain(_dispatch(), hook("nat", "output", _AFTER_DNAT)),
        "services_out": Chain(_MASQUERADE, hook("nat", "postrouting", "srcnat - 2")),
    }


def kept_chains() -> dict[str, Chain]:
    return dict(_pick(size, count, 0) for size in _IP for count in range(1, KEPT + 1))


def _dispatch() -> tuple[str, ...]:
    """What is for the address of a service, but for none of its ports, would be sent to wherever the routes lead."""
    return (
        *(f"{_key(size)} vmap @{MAPS[size]}" for size in _IP),
        *(f"{ip} daddr @{ADDRESSES[size]} goto {REJECT}" for size, ip in _IP.items()),
    )


_MASQUERADE = (
    f"meta mark & 0x{TRANSLATED:08x} == 0x00000000 return",
    _UNMARK,
    f"oifgroup . ip saddr @{POD_SOURCES4} masquerade fully-random",  # Back to the pod that it came from.
    f"oifgroup . ip6 saddr @{POD_SOURCES6} masquerade fully-random",
    f"{FROM_POD} return",
    f"{TO_POD} return",
    'oifname "lo" return',
    "masquerade fully-random",
)


@dataclass
class Rendered:
    """What a frontend leads to, and what that consists of."""

    chain: str = DROP
    indexed: bool = False
    """Its backends are elements of the map."""
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, SetSpec] = field(default_factory=dict)


def render(size: int, protocol: int, target: Target) -> Rendered:
    """For a frontend with an address of `size` bytes."""
    made = Rendered()
    if target.closed or target.sources == ():
        return made
    made.indexed = bool(target.pool.backends) and not target.affinity_s
    made.chain = _leading(made, size, protocol, target) if target.pool.backends else REJECT
    if target.sources is not None:
        inner, sources = made.chain, ", ".join(target.sources)
        made.chain = service_chain("ranges", f"{sources} {inner}")
        made.chains[made.chain] = Chain((f"{_IP[size]} saddr {{ {sources} }} goto {inner}", f"goto {DROP}"))
    return made


def _leading(made: Rendered, size: int, protocol: int, target: Target) -> str:
    """The chain for whoever may use it."""
    inside = DROP if target.scope == "local" else _choice(made, size, protocol, target, "cluster")
    outside = inside if target.scope == "cluster" else _choice(made, size, protocol, target, "local")
    if target.scope != "split" or inside == outside:
        return outside
    name = f"split_{inside}_{outside}"
    made.chains[name] = Chain((f"{FROM_POD} goto {inside}", f"fib saddr type local goto {inside}", f"goto {outside}"))
    return name


def _key(size: int) -> str:
    return f"{_IP[size]} daddr . meta l4proto . th dport"


def _choice(made: Rendered, size: int, protocol: int, target: Target, scope: Literal["cluster", "local"]) -> str:
    """The chain that chooses among the backends of the cluster, or of this node."""
    pool = target.pool
    backends = pool.cluster if scope == "cluster" else pool.here
    if not backends:
        return DROP
    if not target.affinity_s:
        name, chain = _pick(size, len(backends), pool.skip if scope == "cluster" else 0)
        made.chains[name] = chain
        return name
    name = f"{service_chain('affine', f'{size} {protocol} {target.port} {target.affinity_s}')}_{scope}"
    made.chains[name] = _affine(made, size, protocol, target, backends)
    return name


def _pick(size: int, count: int, skip: int) -> tuple[str, Chain]:
    """A packet that was led here a moment before one of the backends went may miss: it gets the first one."""
    drawn = f"{_MARK} dnat {_IP[size]} to {_key(size)} . numgen random mod"
    offset = f" offset {skip}" if skip else ""
    lines = [f"{drawn} {count}{offset} map @{BACKENDS[size]}"]
    if count > 1 or skip:
        lines.append(f"{drawn} 1 map @{BACKENDS[size]}")
    return f"pick{4 if size == 4 else 6}_{count}" + (f"_{skip}" if skip else ""), Chain((*lines, f"goto {DROP}"))


def _affine(made: Rendered, size: int, protocol: int, target: Target, backends: Sequence[Backend]) -> Chain:
    ip = _IP[size]
    known, chains = [], []
    for backend in backends:
        what = f"{size} {protocol} {target.port} {target.affinity_s} {backend.address.hex()} {backend.port}"
        chain, clients = service_chain("stuck", what), service_chain("sticky", what)
        made.sets[clients] = SetSpec(sticky(size, target.affinity_s), target.port)
        address = ip_address(backend.address)
        there = f"{address}:{backend.port}" if size == 4 else f"[{address}]:{backend.port}"
        made.chains[chain] = Chain(
            (f"update @{clients} {{ {ip} saddr }}", f"{_MARK} meta l4proto {protocol} dnat {ip} to {there}"),
            comment=target.port,
        )
        known.append(f"{ip} saddr @{clients} goto {chain}")
        chains.append(chain)
    if len(chains) == 1:
        return Chain((f"goto {chains[0]}",), comment=target.port)
    drawn = ", ".join(f"{number} : goto {chain}" for number, chain in enumerate(chains))
    return Chain((*known, f"numgen random mod {len(chains)} vmap {{ {drawn} }}"), comment=target.port)


def rows(backends: Sequence[Backend]) -> Mapping[int, str]:
    """Index -> value, of the map of backends."""
    return {index: f"{ip_address(backend.address)} . {backend.port}" for index, backend in enumerate(backends)}
