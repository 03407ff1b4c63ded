"""Rules about Calico's policies, what they stand in, and their staged twins."""

from __future__ import annotations

import msgspec

from bus_schemas.resources.calico_policy import EntityRule
from tortie.crds.cel import Rule, all_of, empty, is_empty, not_true

_ICMP = "(has(self.protocol) && (self.protocol in ['ICMP', 'ICMPv6', '1', '58'] || self.protocol in [1, 58]))"

RULE = (
    Rule("!has(self.http)", "matching of HTTP requests is not supported: the rule would match every connection"),
    *(
        Rule(
            f"!has(self.{name}) || !has(self.{name}.type) || {_ICMP}",
            "needs the protocol ICMP or ICMPv6",
            name,
        )
        for name in ("icmp", "notICMP")
    ),
    *(
        Rule(
            f"!has(self.ipVersion) || !has(self.{name}) || !(self.{name} == '{protocol}' && self.ipVersion == {other})",
            f"is {protocol}, which IPv{other} does not carry",
            name,
        )
        for name in ("protocol", "notProtocol")
        for protocol, other in (("ICMP", 6), ("ICMPv6", 4))
    ),
)

_BESIDE_SERVICES = ("nets", "notNets", "selector", "notSelector", "namespaceSelector")

ENTITY = (
    Rule(
        "!has(self.services) || (!has(self.serviceAccounts) && "
        + " && ".join(is_empty(EntityRule, name) for name in _BESIDE_SERVICES)
        + ")",
        "cannot be used together with nets, selectors or serviceAccounts: a service says it all",
        "services",
    ),
)

INGRESS = (
    Rule(
        "!has(self.destination) || !has(self.destination.services)",
        "services can only be used in the source of an ingress rule",
        "destination",
    ),
)
EGRESS = (
    Rule(
        "!has(self.source) || !has(self.source.services)",
        "services can only be used in the destination of an egress rule",
        "source",
    ),
    Rule(
        "!has(self.destination) || !has(self.destination.services) || ("
        + " && ".join(
            f"(!has(self.destination.{name}) || size(self.destination.{name}) == 0)" for name in ("ports", "notPorts")
        )
        + ")",
        "ports cannot be used together with services, which bring their own",
        "destination",
    ),
)

GLOBAL = (
    Rule(f"{not_true('preDNAT')} || {not_true('doNotTrack')}", "cannot be used together with doNotTrack", "preDNAT"),
    Rule(
        f"({not_true('preDNAT')} && {not_true('doNotTrack')}) || (has(self.applyOnForward) && self.applyOnForward)",
        "must be true with preDNAT or doNotTrack, which concern forwarded packets too",
        "applyOnForward",
    ),
    Rule(
        f"{not_true('preDNAT')} || {empty('egress')}",
        "cannot be used with preDNAT: only what arrives is not translated yet",
        "egress",
    ),
    Rule(
        f"{not_true('preDNAT')} || !has(self.types) || !('Egress' in self.types)",
        "cannot be Egress with preDNAT: only what arrives is not translated yet",
        "types",
    ),
)


def staged(struct: type, *more: str) -> Rule:
    """`Delete` speaks of the policy of that name and tier: nothing else may be said."""
    names = [field.encode_name for field in msgspec.structs.fields(struct)]
    said = [is_empty(struct, name) for name in names if name not in ("stagedAction", "tier")]
    return Rule(
        f"!has(self.stagedAction) || self.stagedAction != 'Delete' || ({all_of(*said, *map(empty, more))})",
        "nothing but tier can be given where stagedAction is Delete",
        "stagedAction",
    )
