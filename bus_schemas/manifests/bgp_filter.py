"""Reading BGPFilter: ordered rules for each way and family."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from bus_schemas.manifests.addresses import network
from bus_schemas.manifests.bgp_configuration import MAX_PRIORITY
from bus_schemas.manifests.communities import community
from bus_schemas.manifests.devices import device_pattern
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown
from bus_schemas.manifests.numbers import as_number
from bus_schemas.resources.bgp import (
    AddCommunity,
    BGPFilter,
    BGPFilterSpec,
    FilterOperation,
    FilterRule,
    MatchedCommunities,
    PrefixLength,
    PrependASPath,
    SetPriority,
)

MAX_RULES = 1024
MAX_OPERATIONS = 10
MAX_PREPENDED = 10
MAX_AS_PATH = 10

_ACTIONS: tuple[Literal["Accept", "Reject"], ...] = ("Accept", "Reject")
_OPERATORS: tuple[Literal["Equal", "NotEqual", "In", "NotIn"], ...] = ("Equal", "NotEqual", "In", "NotIn")
_SOURCES: tuple[Literal["RemotePeers"], ...] = ("RemotePeers",)
_PEER_TYPES: tuple[Literal["eBGP", "iBGP"], ...] = ("eBGP", "iBGP")


def bgp_filter(document: Fields, *, stored: bool) -> BGPFilter:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    spec = BGPFilterSpec(
        export_v4=_rules(fields, "exportV4", 4),
        import_v4=_rules(fields, "importV4", 4),
        export_v6=_rules(fields, "exportV6", 6),
        import_v6=_rules(fields, "importV6", 6),
    )
    fields.close(Unknown.REFUSED)
    return BGPFilter(metadata=meta, spec=spec)


def _rules(fields: Fields, name: str, family: int) -> tuple[FilterRule, ...]:
    return tuple(_rule(at.fields(), family) for at in fields.items(name, most=MAX_RULES))


def _rule(fields: Fields, family: int) -> FilterRule:
    rule = FilterRule(
        action=fields.required("action", lambda at: at.choice(_ACTIONS), "Reject"),
        cidr=fields.read("cidr", _cidr(family), ""),
        match_operator=fields.maybe("matchOperator", lambda at: at.choice(_OPERATORS)),
        prefix_length=fields.maybe("prefixLength", lambda at: _prefix_length(at.fields(), family)),
        source=fields.maybe("source", lambda at: at.choice(_SOURCES)),
        interface=fields.read("interface", lambda at: "" if at.value == "" else device_pattern(at), ""),
        peer_type=fields.maybe("peerType", lambda at: at.choice(_PEER_TYPES)),
        communities=fields.maybe("communities", lambda at: _communities(at.fields())),
        as_path_prefix=tuple(as_number(at) for at in fields.items("asPathPrefix", most=MAX_AS_PATH)),
        priority=fields.integer("priority", 1, MAX_PRIORITY),
        operations=tuple(_operation(at.fields()) for at in fields.items("operations", most=MAX_OPERATIONS)),
    )
    if rule.cidr and rule.match_operator is None:
        fields.place("matchOperator").fault("is required with a cidr")
    if rule.match_operator is not None and not fields.has("cidr"):
        fields.place("cidr").fault("is required with a matchOperator")
    if rule.prefix_length is not None and not fields.has("cidr"):
        fields.place("cidr").fault("is required with a prefixLength")
    if rule.operations and rule.action != "Accept":
        fields.place("operations").fault("can only be given with the action Accept")
    fields.close(Unknown.REFUSED)
    return rule


def _cidr(family: int) -> Callable[[At], str]:
    def read(at: At) -> str:
        found: IPv4Network | IPv6Network | None = network(at)
        if found is not None and found.version != family:
            at.fault(f"must be an IPv{family} CIDR, not {found}")
        return "" if found is None else str(found)

    return read


def _prefix_length(fields: Fields, family: int) -> PrefixLength:
    width = 32 if family == 4 else 128
    read = PrefixLength(min=fields.integer("min", 0, width), max=fields.integer("max", 0, width))
    if read.min is not None and read.max is not None and read.min > read.max:
        fields.place("min").fault(f"must not be more than max ({read.max})")
    fields.close(Unknown.REFUSED)
    return read


def _communities(fields: Fields) -> MatchedCommunities:
    values = tuple(community(at) for at in fields.items("values", most=1))
    if not values:
        fields.place("values").fault("must hold one community")
    fields.close(Unknown.REFUSED)
    return MatchedCommunities(values=values)


def _operation(fields: Fields) -> FilterOperation:
    read = FilterOperation(
        add_community=fields.maybe("addCommunity", lambda at: _add_community(at.fields())),
        prepend_as_path=fields.maybe("prependASPath", lambda at: _prepend(at.fields())),
        set_priority=fields.maybe("setPriority", lambda at: _set_priority(at.fields())),
    )
    given = [op for op in (read.add_community, read.prepend_as_path, read.set_priority) if op is not None]
    if len(given) != 1:
        fields.at.fault(f"must be one of {', '.join(sorted(fields.taken))}")
    fields.close(Unknown.REFUSED)
    return read


def _add_community(fields: Fields) -> AddCommunity:
    read = AddCommunity(value=fields.required("value", community, ""))
    fields.close(Unknown.REFUSED)
    return read


def _prepend(fields: Fields) -> PrependASPath:
    prefix = tuple(as_number(at) for at in fields.items("prefix", most=MAX_PREPENDED))
    if not prefix:
        fields.place("prefix").fault("must name at least one AS")
    fields.close(Unknown.REFUSED)
    return PrependASPath(prefix=prefix)


def _set_priority(fields: Fields) -> SetPriority:
    read = SetPriority(value=fields.required("value", lambda at: at.integer(1, MAX_PRIORITY), 1))
    fields.close(Unknown.REFUSED)
    return read
