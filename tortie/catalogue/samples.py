"""One real message of every family: what the services' own cores make of a small cluster, or what they would say in it.

world.MANIFESTS --read--> DESIRED --policy_compiler, route_distribution--> POLICY, ROUTES
records of the same pods and nodes, written out here                    --> BLOCKS, ENDPOINTS, STATUS
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any
from zlib import compress

from msgspec import msgpack
from msgspec.structs import replace

from bus_schemas import ipam, policy, routes, status
from bus_schemas.bgp import Origin
from bus_schemas.codec import Message, encode
from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import BlockCidr, HandleId, NodeName, RulesId
from bus_schemas.ipam import tunnel_handle
from bus_schemas.manifests import Accepted, read
from bus_schemas.node_addresses import NodeAddresses, OwnAddress
from bus_schemas.node_facts import AddressFact, CandidateFact, MtuFact, MtuTerm, NodeFacts, OffloadFact
from bus_schemas.packs import Pack
from bus_schemas.resources import NetworkPolicy
from bus_schemas.sessions import Sessions, SessionState
from bus_schemas.subjects import (
    AFFINITY,
    ATTACHMENT,
    BGP,
    BGP_MESH,
    BLOCK,
    CANDIDATE,
    DESIRED,
    DIRECTION,
    ENDPOINT,
    EPOCH,
    EVENT,
    FAMILIES,
    GROUP,
    HANDLE,
    HITS,
    HOLDING,
    HOST_ATTACHMENT,
    LEASE,
    NODE_ADDRESSES,
    NODE_FACTS,
    PACK,
    POLICY_STATUS,
    ROUTE,
    RULES,
    SERVICE_ADDRESSES,
    SESSIONS,
    STATUS,
    WIREGUARD_KEYS,
    Fact,
    Family,
    Key,
)
from services.policy_compiler.core import Changes
from services.policy_compiler.core import Core as PolicyCore
from services.route_distribution.bgp import BgpCore
from services.route_distribution.core import Core as RouteCore
from tortie.catalogue.event_samples import EVENTS
from tortie.catalogue.world import MANIFESTS

NOON = 1767268800.0
"""2026-01-01 12:00 UTC."""
NODE1, NODE2 = NodeName("node1"), NodeName("node2")
CIDR1, CIDR2 = BlockCidr("10.244.76.128/26"), BlockCidr("10.244.174.64/26")
DB, API = HandleId("pods.4f1c8e07d2b3"), HandleId("pods.9d20aa51c6e4")

Sample = tuple[Family[Any], Key, Message]


@cache
def samples() -> dict[str, Sample]:
    """By the family's name, one of each."""
    found: dict[str, Sample] = {}
    for family, key, message in (*_desired(), *_written(), *_compiled(), *_routed(), _pack()):
        found.setdefault(family.name, (family, key, message))
    missing = [family.name for family in FAMILIES if family.name not in found]
    assert not missing, f"no sample of {', '.join(missing)}"
    return found


@cache
def _desired() -> tuple[Sample, ...]:
    made = []
    for outcome in read(MANIFESTS):
        assert isinstance(outcome, Accepted), outcome
        resource = outcome.resource
        made.append((DESIRED[type(resource)], resource.key, resource))
    return tuple(made)


@cache
def _written() -> tuple[Sample, ...]:
    def block(cidr: BlockCidr, node: NodeName, handle: HandleId) -> ipam.Block:
        allocations = (
            ipam.Allocation(ordinal=0, handle=tunnel_handle(node), sequence=1),
            ipam.Allocation(ordinal=1, handle=handle, sequence=7),
        )
        free = tuple(range(3, 64)) if node == NODE1 else (*range(3, 64), 2)
        cooling = (ipam.Cooling(ordinal=2, released=NOON - 1),) if node == NODE2 else ()
        return ipam.Block(
            cidr=cidr,
            pool="pods",
            node=node,
            sequence=7,
            allocations=allocations,
            free=free if node == NODE2 else (*free, 2),
            cooling=cooling,
            claimed=NOON - 3600,
        )

    def endpoint(node: NodeName, name: str, handle: HandleId, address: str, link: str) -> Endpoint:
        container = handle.partition(".")[2]
        return Endpoint(
            node=node,
            namespace="shop",
            name=name,
            container=container,
            handle=handle,
            link=link,
            addresses=(address,),
        )

    db = endpoint(NODE1, "db", DB, "10.244.76.129", "tor2d7243dcff6")
    api = endpoint(NODE2, "api", API, "10.244.174.65", "tor50d8cbfc60a")
    keys = routes.WireguardEnd(key="3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", port=51820)
    return (
        (BLOCK, (CIDR1,), block(CIDR1, NODE1, DB)),
        (BLOCK, (CIDR2,), block(CIDR2, NODE2, API)),
        (AFFINITY, (NODE1, CIDR1), ipam.Affinity(node=NODE1, cidr=CIDR1, state=ipam.AffinityState.CONFIRMED)),
        (
            HANDLE,
            (DB,),
            ipam.Handle(
                handle=DB,
                node=NODE1,
                namespace="shop",
                pod="db",
                addresses=("10.244.76.129",),
                sequences=(7,),
                assigned=NOON - 60,
            ),
        ),
        (EPOCH, (), ipam.Epoch(id="c0ffee5a", state="ready", began=NOON - 86400, first=True)),
        (
            CANDIDATE,
            ("pods.77aa00c1d2e3",),
            ipam.Candidate(
                handle=HandleId("pods.77aa00c1d2e3"),
                node=NODE2,
                namespace="shop",
                pod="old",
                addresses=("10.244.174.70",),
                sequences=(5,),
                reason="node node2 does not list it",
                since=NOON - 300,
                observations=2,
                due=NOON + 600,
            ),
        ),
        (
            SERVICE_ADDRESSES,
            ("shop", "web"),
            ipam.ServiceAddresses(namespace="shop", service="web", addresses=("203.0.113.10",)),
        ),
        (
            HOLDING,
            (NODE1,),
            ipam.Holding(
                node=NODE1,
                epoch="c0ffee5a",
                held=(ipam.Held(handle=tunnel_handle(NODE1), addresses=("10.244.76.128",), use="tunnel"),),
                blocks=(CIDR1,),
            ),
        ),
        (ENDPOINT, (NODE1, "shop", "db"), db),
        (ENDPOINT, (NODE2, "shop", "api"), api),
        (WIREGUARD_KEYS, (NODE1,), routes.WireguardKeys(node=NODE1, ipv4=keys)),
        (
            STATUS,
            ("node_dataplane", NODE1),
            status.Status(
                component="node_dataplane",
                instance=NODE1,
                node=NODE1,
                version="0.1.0",
                started=NOON - 3600,
                ready=True,
                detail={"cni_socket": "/run/tortie/cni.sock"},
            ),
        ),
        (
            NODE_ADDRESSES,
            (NODE1,),
            NodeAddresses(node=NODE1, ipv4=OwnAddress(address="10.0.0.15/24", since=NOON - 86400)),
        ),
        (NODE_FACTS, (NODE1,), _facts()),
        (LEASE, ("route_distribution",), status.Lease(service="route_distribution", holder="rd-0", until=NOON + 3)),
        (
            HITS,
            (NODE1,),
            policy.Hits(
                node=NODE1,
                since=NOON - 3600,
                time=NOON,
                hits=(policy.Hit(rules=RulesId("knetworkpolicy/shop/db"), way="ingress", allowed=120, denied=3),),
            ),
        ),
        (
            SESSIONS,
            (NODE1,),
            Sessions(
                node=NODE1,
                running=True,
                version="2.0.12",
                since=NOON - 3600,
                sessions=(
                    SessionState(
                        protocol="p_10_0_0_1",
                        neighbour="10.0.0.1",
                        remote_as=64600,
                        origin=Origin.NODE,
                        state="up",
                        since=NOON - 3500,
                        established=True,
                        info="Established",
                        imported=12,
                        exported=2,
                    ),
                ),
            ),
        ),
        (EVENT, ("policy", "denied", NODE1), EVENTS["policy.denied"]),
    )


def _facts() -> NodeFacts:
    return NodeFacts(
        node=NODE1,
        time=NOON,
        addresses=(
            AddressFact(
                family=4,
                address="10.0.0.15/24",
                device="eth0",
                mtu=1500,
                since=NOON - 86400,
                method="first-found",
                source="the agent",
                candidates=(
                    CandidateFact(device="docker0", verdict="skipped", reason="a device of another program"),
                    CandidateFact(device="eth0", address="10.0.0.15/24", verdict="chosen", reason="the first found"),
                ),
            ),
        ),
        mtu=MtuFact(
            pods=1450, uplink="eth0", terms=(MtuTerm(what="vxlan.tortie", mtu=1450, how="1500 of eth0 less 50"),)
        ),
        offload=(
            OffloadFact(
                device="vxlan.tortie", on=True, wanted=True, reason="a trial packet arrived intact", evidence="measured"
            ),
        ),
        configured={"TORTIE_IP_AUTODETECTION_METHOD": "first-found"},
    )


def _pack() -> Sample:
    """Of the routes, as the leader writes it."""
    packed = [[family.subject(*key), 7, encode(route)] for family, key, route in _routed() if family is ROUTE]
    pack = Pack(
        created="2026-01-01T11:00:00Z",
        upto=7,
        part=0,
        parts=1,
        keys=len(packed),
        packed=compress(msgpack.encode(packed)),
    )
    return PACK, (ROUTE.name, "0"), pack


def _compiled() -> Iterator[Sample]:
    changes = _compile(PolicyCore())
    yield from ((RULES, (id_,), one) for id_, one in sorted(changes.rules.items()) if one and "shop/db" in one.policy)
    for segment, group in sorted(changes.groups.items()):
        if group is not None and group.v4:
            yield GROUP, (segment.group, str(segment.segment)), group
    yield from ((ATTACHMENT, tuple(key), one) for key, one in sorted(changes.attachments.items()) if one)
    yield from ((HOST_ATTACHMENT, tuple(key), one) for key, one in sorted(changes.hosts.items()) if one)
    shared = _compile(PolicyCore(longest_direction=3)).directions
    yield from ((DIRECTION, (id_,), one) for id_, one in sorted(shared.items()) if one)
    yield from _not_compiled()


def _compile(core: PolicyCore) -> Changes:
    for family, key, message in (*_desired(), *_written()):
        core.apply(Fact(family, key, message))
    return core.flush()


def _not_compiled() -> Iterator[Sample]:
    """What the compiler says of a policy that it cannot understand: one that another program wrote on the bus."""
    core = PolicyCore()
    for family, key, resource in _desired():
        if isinstance(resource, NetworkPolicy):
            broken = replace(resource, spec=replace(resource.spec, selector="app = db"))
            core.apply(Fact(family, key, broken))
    yield from ((POLICY_STATUS, tuple(key), one) for key, one in core.flush().statuses.items() if one)


def _routed() -> Iterator[Sample]:
    core, speakers = RouteCore(), BgpCore()
    for family, key, message in (*_desired(), *_written()):
        core.apply(Fact(family, key, message))
        speakers.apply(Fact(family, key, message))
    for cidr, route in sorted(core.flush().routes.items()):
        speakers.apply_route(cidr, route)
        if route is not None and route.vtep:
            yield ROUTE, (cidr,), route
    changes = speakers.flush()
    yield from ((BGP, (node,), speaker) for node, speaker in sorted(changes.speakers.items()) if speaker)
    yield from ((BGP_MESH, (node,), member) for node, member in sorted(changes.members.items()) if member)
