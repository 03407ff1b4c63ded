"""What our filters decide, of a speaker's record.

    from a peer    BGPFilters in order --> accept
    to a peer      priority -> preference --> BGPFilters in order --> ours:
                   device? --> communities --> pool not exported? --> own block? --> pool? --> reject
    to the kernel  what the agent programmes itself? --> preference -> metric --> accept
    from it        what the agent programmed? --> reject, else accept

A block is announced whole, and nothing inside it but what is more urgent than a pod's route (a lower metric) and
addresses borrowed by the node. Inside one AS nothing is announced that itself is reached by a tunnel.
"""

from __future__ import annotations

from typing import Literal

from bus_schemas.bgp import Filter, Session, Speaker
from bus_schemas.resources.bgp import FilterOperation, FilterRule
from services.node_dataplane.bird.language import (
    LARGEST,
    Accept,
    AddCommunity,
    AllOf,
    AnyOf,
    Blackhole,
    By,
    Call,
    Carries,
    Compared,
    Condition,
    Defined,
    From,
    Function,
    If,
    Inside,
    Internal,
    Is,
    Not,
    PathBegins,
    Prepend,
    Reject,
    Set,
    SetComplement,
    Statement,
)
from services.node_dataplane.bird.naming import Way, filter_function
from services.node_dataplane.netlink.rtnl import PROTOCOL as ROUTE_PROTOCOL

POD_DEVICES = "tor*"
TUNNELS = ("*.tortie", "tunl0")
"""Devices by which one node reaches another's pods in a tunnel."""

_CALICO_DEVICES = (
    ("vxlan.calico", "vxlan.tortie"),
    ("vxlan-v6.calico", "vxlan6.tortie"),
    (".calico", ".tortie"),
    ("wireguard.cali", "wg.tortie"),
)
"""How what Calico's users write in a filter is called here."""


def priority(family: int) -> str:
    return f"priority{family}"


def announce(family: int) -> str:
    return f"announce{family}"


def program(family: int) -> str:
    return f"program{family}"


def learn(family: int) -> str:
    return f"learn{family}"


def functions(speaker: Speaker, family: int) -> tuple[Function, ...]:
    """Everything that the filters of one family call, in an order in which each is there before it is called."""
    return (
        *(_of_filter(one, way, family) for one in speaker.filters for way in _WAYS if one.rules.rules(way, family)),
        Function(priority(family), _priority(speaker, family)),
        Function(announce(family), _announce(speaker, family), of_sessions=True),
        Function(program(family), _program(speaker, family)),
        Function(learn(family), _learn()),
    )


_WAYS: tuple[Way, ...] = ("import", "export")


def import_filter(speaker: Speaker, session: Session) -> tuple[Statement, ...]:
    return (*_asked(speaker, session, "import"), Accept())


def export_filter(speaker: Speaker, session: Session) -> tuple[Statement, ...]:
    family, internal = session.family, is_internal(speaker, session)
    return (
        Call(priority(family)),
        *_asked(speaker, session, "export"),
        Call(announce(family), internal),
        Reject(),
    )


def is_internal(speaker: Speaker, session: Session) -> bool:
    return session.remote_as == speaker.local_as(session.options)


def _asked(speaker: Speaker, session: Session, way: Way) -> tuple[Statement, ...]:
    """The session's BGPFilters that have a word in it. One that does not exist is passed over, as in Calico."""
    known = {one.name: one for one in speaker.filters}
    return tuple(
        Call(filter_function(name, way, session.family), is_internal(speaker, session))
        for name in session.options.filters
        if name in known and known[name].rules.rules(way, session.family)
    )


# --- ours


def _priority(speaker: Speaker, family: int) -> tuple[Statement, ...]:
    """What has no preference yet has the one of its metric, or of a pod's route."""
    normal = speaker.priority4 if family == 4 else speaker.priority6
    return (
        If(
            Not(Defined("bgp_local_pref")),
            (
                If(
                    Defined("krt_metric"),
                    (SetComplement("bgp_local_pref", "krt_metric"),),
                    (Set("bgp_local_pref", LARGEST - normal),),
                ),
            ),
        ),
    )


def _announce(speaker: Speaker, family: int) -> tuple[Statement, ...]:
    normal = speaker.priority4 if family == 4 else speaker.priority6
    urgent = Compared("bgp_local_pref", ">", LARGEST - normal)
    by_tunnel = AnyOf(tuple(By(pattern) for pattern in TUNNELS))
    own = _of_family((*speaker.singles, *speaker.services), family)
    pools = [pool for pool in speaker.pools if _family(pool.cidr) == family]
    return (
        If(AllOf((Internal(), by_tunnel)), (Reject(),)),
        *_communities(speaker, family),
        *(If(Inside(pool.cidr), (Reject(),)) for pool in pools if not pool.exported),
        *(If(AllOf((Is(cidr), From("RTS_STATIC"))), (Accept(),)) for cidr in own),
        *(
            If(Inside(cidr), (If(AnyOf((Is(cidr), urgent)), (Accept(),)), Reject()))
            for cidr in _of_family(speaker.blocks, family)
        ),
        *(If(Inside(pool.cidr), (Accept(),)) for pool in pools if pool.exported),
        Reject(),
    )


def _communities(speaker: Speaker, family: int) -> tuple[Statement, ...]:
    """Every advertisement that holds the route adds its own."""
    return tuple(
        If(Inside(one.cidr), tuple(AddCommunity(value) for value in dict.fromkeys(one.communities)))
        for one in speaker.advertisements
        if _family(one.cidr) == family and one.communities
    )


def _program(speaker: Speaker, family: int) -> tuple[Statement, ...]:
    """Blackholes are the agent's, and whatever it programmes itself: routes into tunnels always, because a stock BIRD
    cannot, and the others unless BIRD is to."""
    plain = speaker.cluster_routes in ("Enabled", "EnabledNoEncapOnly")
    normal = speaker.priority4 if family == 4 else speaker.priority6
    return (
        If(AllOf((From("RTS_STATIC"), Blackhole())), (Reject(),)),
        *(
            If(Inside(pool.cidr), (Reject(),))
            for pool in speaker.pools
            if _family(pool.cidr) == family and (pool.encapsulation != "none" or not plain)
        ),
        If(
            From("RTS_BGP"),
            (
                If(
                    Defined("bgp_local_pref"),
                    (SetComplement("krt_metric", "bgp_local_pref"),),
                    (Set("krt_metric", normal),),
                ),
            ),
        ),
        Accept(),
    )


def _learn() -> tuple[Statement, ...]:
    ours = AnyOf((Compared("krt_source", "=", ROUTE_PROTOCOL), By(POD_DEVICES), *(By(name) for name in TUNNELS)))
    return (If(ours, (Reject(),)), Accept())


# --- BGPFilter


def _of_filter(one: Filter, way: Way, family: int) -> Function:
    return Function(
        filter_function(one.name, way, family),
        tuple(_rule(rule) for rule in one.rules.rules(way, family)),
        of_sessions=True,
    )


def _rule(rule: FilterRule) -> Statement:
    verdict: Statement = Accept() if rule.action == "Accept" else Reject()
    then = tuple(done for operation in rule.operations for done in _operation(operation))
    return If(AllOf(tuple(_conditions(rule))), (*then, verdict))


def _conditions(rule: FilterRule) -> list[Condition]:
    found: list[Condition] = []
    if rule.cidr:
        found.append(_destination(rule))
    if rule.source == "RemotePeers":
        found.append(From("RTS_BGP"))
    if rule.interface:
        patterns = dict.fromkeys((rule.interface, _ours(rule.interface)))
        found.append(AnyOf(tuple(By(pattern) for pattern in patterns)))
    if rule.peer_type is not None:
        found.append(Internal() if rule.peer_type == "iBGP" else Not(Internal()))
    if rule.communities is not None:
        found.append(AnyOf(tuple(Carries(value) for value in rule.communities.values)))
    if rule.as_path_prefix:
        found.append(PathBegins(rule.as_path_prefix))
    if rule.priority is not None:
        found.append(Compared("bgp_local_pref", "=", LARGEST - rule.priority))
    return found


def _destination(rule: FilterRule) -> Condition:
    length = rule.prefix_length
    low, high = (None, None) if length is None else (length.min, length.max)
    inside = Inside(rule.cidr, low, high)
    match rule.match_operator:
        case "Equal":
            return Is(rule.cidr) if length is None else AllOf((Is(rule.cidr), inside))
        case "NotEqual":
            return Not(Is(rule.cidr)) if length is None else AllOf((Not(Is(rule.cidr)), inside))
        case "NotIn":
            return Not(inside)
        case _:
            return inside


def _ours(pattern: str) -> str:
    for theirs, ours in _CALICO_DEVICES:
        if theirs in pattern:
            return pattern.replace(theirs, ours)
    return f"tor{pattern.removeprefix('cali')}" if pattern.startswith("cali") else pattern


def _operation(operation: FilterOperation) -> list[Statement]:
    if operation.add_community is not None:
        return [AddCommunity(operation.add_community.value)]
    if operation.prepend_as_path is not None:
        return [Prepend(number) for number in reversed(operation.prepend_as_path.prefix)]
    if operation.set_priority is not None:
        return [Set("bgp_local_pref", LARGEST - operation.set_priority.value)]
    return []


def _family(cidr: str) -> Literal[4, 6]:
    return 6 if ":" in cidr else 4


def _of_family(cidrs: tuple[str, ...], family: int) -> list[str]:
    return [cidr for cidr in cidrs if _family(cidr) == family]
