"""The map of the system: every stream and subject, its key, its message, who writes it and who reads it.

    DESIRED   desired.<kind>.<namespace or _>.<name>     what people asked for
    BLOCKS    ipam.block|affinity|handle|candidate...    which addresses are whose
    ENDPOINTS endpoint.<node>.<namespace>.<name>         which pods are plugged in where
              holding.<node>                             what else the node holds
              wireguard.<node>                           the public keys of its tunnels
              address.<node>                             where the node itself is reached, as its agent found
    POLICY    policy.group|rules|direction|attach|host|status...   what policy means, compiled
    ROUTES    route.<cidr>                               who reaches what
              bgp.<node>, bgp.mesh.<node>                which BGP sessions a node has, and who is in the full mesh
              pack.<family>.<part>                       all keys of a large family at once, as a cache
    STATUS    status.<component>.<instance>, lease.<service>, hits.<node>   who lives, who leads, what policies decided
              sessions.<node>, facts.<node>              how BGP sessions stand, what a node found out about itself
                                                         (all of them with time to live)
    EVENTS    event.<domain>.<what>.<node>               what happened

Everything lies under `tortie.v1.`. State streams keep the last message of every subject; an empty payload is a
tombstone that expires after an hour. A stored message is at once republished under `tortie.live.v1.` with its sequence
in the headers: that is the live feed (see `chassis.feed`), JetStream itself serves the snapshot and heals gaps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar
from zlib import crc32

from bus_schemas import (
    bgp,
    endpoints,
    events,
    ipam,
    node_addresses,
    node_facts,
    packs,
    policy,
    routes,
    sessions,
    status,
)
from bus_schemas.codec import Message
from bus_schemas.ids import MalformedToken, escape, unescape
from bus_schemas.resources import KINDS, Resource

PREFIX = "tortie.v1."
LIVE_PREFIX = "tortie.live.v1."
TOMBSTONE_TTL_S = 3600


class Stream(StrEnum):
    DESIRED = "TORTIE_DESIRED"
    BLOCKS = "TORTIE_BLOCKS"
    ENDPOINTS = "TORTIE_ENDPOINTS"
    POLICY = "TORTIE_POLICY"
    ROUTES = "TORTIE_ROUTES"
    STATUS = "TORTIE_STATUS"
    EVENTS = "TORTIE_EVENTS"


@dataclass(frozen=True)
class StreamSpec:
    """What a stream must be configured as. `chassis.streams` creates it and checks what the server really did."""

    stream: Stream
    subjects: tuple[str, ...]
    """Filters without the prefix."""
    last_per_subject: bool = True
    max_age_s: float = 0.0
    max_bytes: int = -1


STREAMS: dict[Stream, StreamSpec] = {
    spec.stream: spec
    for spec in (
        StreamSpec(Stream.DESIRED, ("desired.>",)),
        StreamSpec(Stream.BLOCKS, ("ipam.>",)),
        StreamSpec(Stream.ENDPOINTS, ("endpoint.>", "holding.>", "wireguard.>", "address.>")),
        StreamSpec(Stream.POLICY, ("policy.>",)),
        StreamSpec(Stream.ROUTES, ("route.>", "bgp.>", "pack.>")),
        StreamSpec(Stream.STATUS, ("status.>", "lease.>", "hits.>", "sessions.>", "facts.>")),
        StreamSpec(
            Stream.EVENTS,
            ("event.>",),
            last_per_subject=False,
            max_age_s=7 * 86400,
            max_bytes=256 * 1024 * 1024,
        ),
    )
}

V = TypeVar("V", bound=Message)
Key = tuple[str, ...]


@dataclass(frozen=True)
class Family(Generic[V]):
    """All subjects of one shape: fixed words, then the tokens of the key.

    `BLOCK.subject("10.244.0.0/26")` is `tortie.v1.ipam.block.10=2E244=2E0=2E0=2F26`.
    """

    name: str
    stream: Stream
    words: tuple[str, ...]
    key: tuple[str, ...]
    """Names of the key's tokens, in order."""
    message: type[V] = field(compare=False)
    writer: str = ""
    readers: tuple[str, ...] = ()

    def subject(self, *key: str) -> str:
        """The full subject of one key (plain, unescaped tokens)."""
        assert len(key) == len(self.key), f"{self.name} has the key {self.key}, not {key}"
        return PREFIX + ".".join((*self.words, *map(escape, key)))

    def filter(self, *leading: str) -> str:
        """The subject filter of every key that begins with `leading` tokens."""
        tokens = [*self.words, *map(escape, leading), *("*" for _ in self.key[len(leading) :])]
        return PREFIX + ".".join(tokens)

    def parse(self, subject: str) -> Key | None:
        """The key in a subject of this family; None when it is not of this family."""
        tokens = subject.removeprefix(PREFIX).split(".")
        n = len(self.words)
        if len(tokens) != n + len(self.key) or tuple(tokens[:n]) != self.words:
            return None
        try:
            return tuple(map(unescape, tokens[n:]))
        except MalformedToken:
            return None


class Fact(NamedTuple):
    """One key's current value, or its absence: what every core is fed with."""

    family: Family[Any]
    key: Key
    value: Any
    """A `family.message`, or None: the key does not exist."""
    sequence: int = 0
    """The stream's sequence of the value, for compare-and-swap; 0 with an absent key that never was."""


DESIRED: dict[type[Resource], Family[Any]] = {
    kind: Family(
        f"desired {token}",
        Stream.DESIRED,
        ("desired", token),
        ("namespace", "name"),
        kind,
        writer="api or kube_bridge",
        readers=("ipam", "route_distribution", "policy_compiler", "node_dataplane", "api"),
    )
    for token, kind in KINDS.items()
}
"""By resource class. The namespace of a cluster-wide resource is empty."""

BLOCK = Family("block", Stream.BLOCKS, ("ipam", "block"), ("cidr",), ipam.Block, "ipam", ("route_distribution", "api"))
AFFINITY = Family("affinity", Stream.BLOCKS, ("ipam", "affinity"), ("node", "cidr"), ipam.Affinity, "ipam", ("api",))
HANDLE = Family("handle", Stream.BLOCKS, ("ipam", "handle"), ("handle",), ipam.Handle, "ipam", ("api",))
EPOCH = Family("epoch", Stream.BLOCKS, ("ipam", "epoch"), (), ipam.Epoch, "ipam", ("node_dataplane", "api"))
CANDIDATE = Family("candidate", Stream.BLOCKS, ("ipam", "candidate"), ("handle",), ipam.Candidate, "ipam", ("api",))
SERVICE_ADDRESSES = Family(
    "service addresses",
    Stream.BLOCKS,
    ("ipam", "service"),
    ("namespace", "service"),
    ipam.ServiceAddresses,
    "ipam",
    ("route_distribution", "node_dataplane", "api", "kube_bridge"),
)
HOLDING = Family(
    "holding",
    Stream.ENDPOINTS,
    ("holding",),
    ("node",),
    ipam.Holding,
    "node_dataplane of that node",
    ("ipam", "api"),
)
ENDPOINT = Family(
    "endpoint",
    Stream.ENDPOINTS,
    ("endpoint",),
    ("node", "namespace", "name"),
    endpoints.Endpoint,
    "node_dataplane of that node",
    ("policy_compiler", "api"),
)
GROUP = Family(
    "group",
    Stream.POLICY,
    ("policy", "group"),
    ("group", "segment"),
    policy.Group,
    "policy_compiler",
    ("node_dataplane",),
)
RULES = Family(
    "rules",
    Stream.POLICY,
    ("policy", "rules"),
    ("rules",),
    policy.Rules,
    "policy_compiler",
    ("node_dataplane",),
)
DIRECTION = Family(
    "direction",
    Stream.POLICY,
    ("policy", "direction"),
    ("direction",),
    policy.SharedDirection,
    "policy_compiler",
    ("node_dataplane", "api"),
)
ATTACHMENT = Family(
    "attachment",
    Stream.POLICY,
    ("policy", "attach"),
    ("node", "namespace", "name"),
    policy.Attachment,
    "policy_compiler",
    ("node_dataplane of that node",),
)
HOST_ATTACHMENT = Family(
    "host attachment",
    Stream.POLICY,
    ("policy", "host"),
    ("node", "name"),
    policy.HostAttachment,
    "policy_compiler",
    ("node_dataplane of that node",),
)
POLICY_STATUS = Family(
    "policy status",
    Stream.POLICY,
    ("policy", "status"),
    ("kind", "namespace", "name"),
    policy.PolicyStatus,
    "policy_compiler",
    ("api", "kube_bridge"),
)
ROUTE = Family(
    "route",
    Stream.ROUTES,
    ("route",),
    ("cidr",),
    routes.Route,
    "route_distribution",
    ("node_dataplane", "api"),
)
BGP = Family(
    "bgp",
    Stream.ROUTES,
    ("bgp",),
    ("node",),
    bgp.Speaker,
    "route_distribution",
    ("node_dataplane of that node", "api"),
)
BGP_MESH = Family(
    "bgp mesh",
    Stream.ROUTES,
    ("bgp", "mesh"),
    ("node",),
    bgp.MeshMember,
    "route_distribution",
    ("node_dataplane", "api"),
)
PACK = Family(
    "pack",
    Stream.ROUTES,
    ("pack",),
    ("family", "part"),
    packs.Pack,
    "route_distribution",
    ("node_dataplane",),
)
WIREGUARD_KEYS = Family(
    "wireguard keys",
    Stream.ENDPOINTS,
    ("wireguard",),
    ("node",),
    routes.WireguardKeys,
    "node_dataplane of that node",
    ("route_distribution",),
)
NODE_ADDRESSES = Family(
    "node addresses",
    Stream.ENDPOINTS,
    ("address",),
    ("node",),
    node_addresses.NodeAddresses,
    "node_dataplane of that node",
    ("route_distribution", "policy_compiler", "node_dataplane", "api"),
)
STATUS = Family(
    "status",
    Stream.STATUS,
    ("status",),
    ("component", "instance"),
    status.Status,
    "everyone",
    ("api", "kube_bridge"),
)
HITS = Family("hits", Stream.STATUS, ("hits",), ("node",), policy.Hits, "node_dataplane of that node", ("api",))
SESSIONS = Family(
    "sessions", Stream.STATUS, ("sessions",), ("node",), sessions.Sessions, "node_dataplane of that node", ("api",)
)
NODE_FACTS = Family(
    "node facts", Stream.STATUS, ("facts",), ("node",), node_facts.NodeFacts, "node_dataplane of that node", ("api",)
)
LEASE = Family("lease", Stream.STATUS, ("lease",), ("service",), status.Lease, "the replicas of a service", ())
EVENT = Family(
    "event",
    Stream.EVENTS,
    ("event",),
    ("domain", "what", "node"),
    events.Event,
    "everyone",
    ("subscribers", "api"),
)

FAMILIES: tuple[Family[Any], ...] = (
    *DESIRED.values(),
    BLOCK,
    AFFINITY,
    HANDLE,
    EPOCH,
    CANDIDATE,
    SERVICE_ADDRESSES,
    HOLDING,
    ENDPOINT,
    GROUP,
    RULES,
    DIRECTION,
    ATTACHMENT,
    HOST_ATTACHMENT,
    POLICY_STATUS,
    ROUTE,
    WIREGUARD_KEYS,
    NODE_ADDRESSES,
    BGP,
    BGP_MESH,
    PACK,
    STATUS,
    HITS,
    SESSIONS,
    NODE_FACTS,
    LEASE,
    EVENT,
)


@dataclass(frozen=True)
class Rpc:
    """A request to a NATS micro service in a queue group; the only calls between services."""

    service: str
    name: str
    request: Any = field(compare=False)
    reply: Any = field(compare=False)
    """The union of possible answers."""
    by: str = field(compare=False, default="")
    """A field of the request: those that say the same there go to the same replica, as long as it is there. Empty:
    any request goes to any replica."""

    @property
    def subject(self) -> str:
        return f"{PREFIX}rpc.{self.service}.{self.name}"

    def part(self, number: int) -> str:
        """The subject of a part of the requests."""
        return f"{self.subject}.{number}"

    def part_of(self, message: Message) -> int | None:
        """Of a request, one of RPC_PARTS; None: it belongs to none."""
        word = getattr(message, self.by, None) if self.by else None
        return crc32(word.encode()) % RPC_PARTS if word else None


RPC_PARTS = 64
ASSIGN = Rpc("ipam", "assign", ipam.AssignRequest, ipam.AssignReply, by="node")
RELEASE = Rpc("ipam", "release", ipam.ReleaseRequest, ipam.ReleaseReply, by="node")
RPCS: tuple[Rpc, ...] = (ASSIGN, RELEASE)


def live(subject: str) -> str:
    """Where a stored subject (or filter) is republished."""
    assert subject.startswith(PREFIX)
    return LIVE_PREFIX + subject.removeprefix(PREFIX)


def stored(live_subject: str) -> str:
    """The inverse of `live`."""
    assert live_subject.startswith(LIVE_PREFIX)
    return PREFIX + live_subject.removeprefix(LIVE_PREFIX)


def family_of(subject: str, among: Iterable[Family[Any]] = FAMILIES) -> tuple[Family[Any], Key] | None:
    """The family and key of a stored subject."""
    for family in among:
        key = family.parse(subject)
        if key is not None:
            return family, key
    return None
