"""What two fields of an object have to do with each other.

Most of it is CEL (`x-kubernetes-validations`), with a message that says what to do. Where a rule would have to look at
the items of a list in a list (the networks and ports of up to 2,048 rules, of 256 and 50 items each) its estimated cost
would be beyond what a server allows; these are schemas under `anyOf`, which cost nothing.

CEL is written for the checker of server v1.30: lists of literals are of one type, no string function touches a number
or text (its estimate ignores `maxLength` there), and Kubernetes' own libraries are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import inspect as types

from bus_schemas.manifests.bgp_configuration import FOR_ALL, WITH_MESH
from bus_schemas.manifests.policy_scopes import DERIVED_PROFILES
from bus_schemas.manifests.pools import BLOCK_SIZES, DEFAULT_BLOCK_SIZE
from bus_schemas.resources import BGPConfiguration, IPAMConfiguration, Profile, Tier
from bus_schemas.resources.bgp import BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, FilterOperation, FilterRule
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    EntityRule,
    GlobalNetworkPolicySpec,
    IcmpFields,
    NetworkPolicySpec,
    StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicySpec,
)
from bus_schemas.resources.metadata import LabelSelectorRequirement
from bus_schemas.resources.network_policy import (
    NetworkPolicyPeer,
    NetworkPolicyPort,
    StagedKubernetesNetworkPolicySpec,
)
from bus_schemas.resources.policy_scopes import FIXED_TIERS, HostEndpointSpec, ProfileSpec
from bus_schemas.resources.pools import IPAM_CONFIGURATION, IPPoolSpec
from tortie.crds.values import PORT_PROTOCOL, Schema


class Rule(NamedTuple):
    """A rule of CEL. `self` is the value it stands at; with `oldSelf` it is about changes alone."""

    rule: str
    message: str
    field: str = ""
    """The name of the field that the server points at; empty: the value itself."""

    def schema(self) -> Schema:
        place = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.rule, "message": self.message, **place}


# --- parts of rules


def _text(name: str) -> str:
    """The field is there and not empty."""
    return f"(has(self.{name}) && self.{name} != '')"


def _no_text(name: str) -> str:
    return f"(!has(self.{name}) || self.{name} == '')"


def _empty(name: str) -> str:
    """A list that is not there or has nothing in it."""
    return f"(!has(self.{name}) || size(self.{name}) == 0)"


def _not_true(name: str) -> str:
    return f"(!has(self.{name}) || !self.{name})"


def _all(*parts: str) -> str:
    return " && ".join(parts)


def _is_empty(struct: type, name: str) -> str:
    """A field of a Struct says nothing, whatever its type is."""
    read = types.type_info(struct)
    assert isinstance(read, types.StructType)
    field = next(field for field in read.fields if field.encode_name == name)
    match field.type:
        case types.StrType():
            return _no_text(name)
        case types.BoolType():
            return _not_true(name)
        case types.VarTupleType():
            return _empty(name)
        case types.StructType(cls=inner):
            names = msgspec.structs.fields(inner)
            said = " && ".join(f"!has(self.{name}.{part.encode_name})" for part in names)
            return f"(!has(self.{name}) || ({said}))"
    return f"!has(self.{name})"


# --- pools


def _block_size(of: str) -> str:
    """The prefix length of a pool's blocks, given or by default."""
    default = f"({of}.cidr.contains(':') ? {DEFAULT_BLOCK_SIZE[6]} : {DEFAULT_BLOCK_SIZE[4]})"
    return f"(has({of}.blockSize) && {of}.blockSize != 0 ? {of}.blockSize : {default})"


def _prefix(of: str) -> str:
    return f"int({of}.cidr.split('/')[1])"


def _in(family: int) -> str:
    sizes = BLOCK_SIZES[family]
    return f"(self.blockSize >= {sizes.start} && self.blockSize <= {sizes.stop - 1})"


_TUNNELS = "(has(self.ipipMode) && self.ipipMode in ['CrossSubnet', 'Always'])"
_VXLAN = "(has(self.vxlanMode) && self.vxlanMode in ['CrossSubnet', 'Always'])"
_LOAD_BALANCER = "(has(self.allowedUses) && 'LoadBalancer' in self.allowedUses)"

_POOL = (
    Rule(
        f"!{_TUNNELS} || !{_VXLAN}",
        "cannot be used together with ipipMode: one of them must be Never",
        "vxlanMode",
    ),
    Rule(f"!{_TUNNELS} || !self.cidr.contains(':')", "IP in IP is not possible with IPv6", "ipipMode"),
    Rule(
        f"!has(self.blockSize) || self.blockSize == 0 || (self.cidr.contains(':') ? {_in(6)} : {_in(4)})",
        "must be from 20 to 32 with IPv4, from 116 to 128 with IPv6",
        "blockSize",
    ),
    Rule(
        f"(has(self.disabled) && self.disabled) || {_prefix('self')} <= {_block_size('self')}",
        "is smaller than one block of the pool (blockSize)",
        "cidr",
    ),
    Rule(
        f"!{_LOAD_BALANCER} || self.allowedUses.all(use, use == 'LoadBalancer')",
        "LoadBalancer cannot be combined with other uses",
        "allowedUses",
    ),
    Rule(
        f"!{_LOAD_BALANCER} || (!{_TUNNELS} && !{_VXLAN} && {_not_true('disableBGPExport')} && "
        "(!has(self.nodeSelector) || self.nodeSelector in ['', 'all()']))",
        "a LoadBalancer pool cannot have a tunnel mode, a nodeSelector or disableBGPExport",
        "allowedUses",
    ),
    Rule(
        "!has(self.allowedUses) || !('Tunnel' in self.allowedUses) || " + _no_text("namespaceSelector"),
        "cannot be used with the allowed use Tunnel: a tunnel has no namespace",
        "namespaceSelector",
    ),
    Rule(
        f"self.cidr.contains(':') == oldSelf.cidr.contains(':') && {_prefix('self')} <= {_prefix('oldSelf')}",
        "a pool can only grow, or be split: its blocks would be left without a pool",
        "cidr",
    ),
    Rule(
        f"{_block_size('self')} == {_block_size('oldSelf')}",
        "cannot be changed: make a new pool",
        "blockSize",
    ),
    Rule(
        f"{_LOAD_BALANCER} == {_LOAD_BALANCER.replace('self.', 'oldSelf.')}",
        "LoadBalancer cannot be added or removed: make a new pool",
        "allowedUses",
    ),
)

# --- BGP

_PEER = (
    Rule(f"{_no_text('node')} || {_no_text('nodeSelector')}", "cannot be given together with node", "nodeSelector"),
    Rule(f"{_no_text('peerSelector')} || {_no_text('peerIP')}", "cannot be given together with peerSelector", "peerIP"),
    Rule(
        f"{_no_text('peerSelector')} || !has(self.asNumber) || self.asNumber == 0",
        "cannot be given together with peerSelector",
        "asNumber",
    ),
    Rule(
        f"{_no_text('localWorkloadSelector')} || ({_no_text('peerIP')} && {_no_text('peerSelector')})",
        "cannot be given together with peerIP or peerSelector",
        "localWorkloadSelector",
    ),
    Rule(
        f"{_no_text('localWorkloadSelector')} || (has(self.asNumber) && self.asNumber != 0 && self.asNumber != '0')",
        "is required with a localWorkloadSelector",
        "asNumber",
    ),
    Rule(
        f"{_not_true('keepOriginalNextHop')} || !has(self.nextHopMode)",
        "is the older word for nextHopMode: only one of them can be given",
        "keepOriginalNextHop",
    ),
    Rule(
        f"{_no_text('reachableBy')} || {_text('peerIP')}",
        "needs a peerIP, the address that is reached by it",
        "reachableBy",
    ),
    Rule(
        f"{_no_text('reachableBy')} || {_no_text('peerIP')} || "
        "self.reachableBy.contains(':') == self.peerIP.matches(':.*:')",
        "must be of the family of the peerIP",
        "reachableBy",
    ),
)

_BGP = (
    Rule(
        f"{_empty('communities')} || !{_empty('prefixAdvertisements')}",
        "are not used by any of the prefixAdvertisements",
        "communities",
    ),
    *(
        Rule(
            f"!has(self.{name}) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled",
            "cannot be set when nodeToNodeMeshEnabled is false",
            name,
        )
        for name in WITH_MESH
    ),
)


def _for_all() -> str:
    """The fields of a whole cluster are not given."""
    return " && ".join(_is_empty(BGPConfigurationSpec, name) for name in FOR_ALL).replace("self.", "self.spec.")


_FILTER_RULE = (
    Rule("!has(self.cidr) || has(self.matchOperator)", "is required with a cidr", "matchOperator"),
    Rule("!has(self.matchOperator) || has(self.cidr)", "is required with a matchOperator", "cidr"),
    Rule("!has(self.prefixLength) || has(self.cidr)", "is required with a prefixLength", "cidr"),
    Rule(
        "!has(self.prefixLength) || !has(self.prefixLength.min) || !has(self.prefixLength.max) || "
        "self.prefixLength.min <= self.prefixLength.max",
        "min must not be more than max",
        "prefixLength",
    ),
    Rule(
        f"{_empty('operations')} || self.action == 'Accept'", "can only be given with the action Accept", "operations"
    ),
)


def _of_family(family: int) -> tuple[Rule, ...]:
    colon = "self.cidr.contains(':')" if family == 6 else "!self.cidr.contains(':')"
    rules = [Rule(f"!has(self.cidr) || {colon}", f"must be an IPv{family} CIDR", "cidr")]
    if family == 4:
        ends = " && ".join(
            f"(!has(self.prefixLength.{end}) || self.prefixLength.{end} <= 32)" for end in ("min", "max")
        )
        rules.append(Rule(f"!has(self.prefixLength) || ({ends})", "must be from 0 to 32", "prefixLength"))
    return tuple(rules)


# --- policies

_ICMP = "(has(self.protocol) && (self.protocol in ['ICMP', 'ICMPv6', '1', '58'] || self.protocol in [1, 58]))"

_RULE = (
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

_ENTITY = (
    Rule(
        "!has(self.services) || (!has(self.serviceAccounts) && "
        + " && ".join(_is_empty(EntityRule, name) for name in _BESIDE_SERVICES)
        + ")",
        "cannot be used together with nets, selectors or serviceAccounts: a service says it all",
        "services",
    ),
)

_INGRESS = (
    Rule(
        "!has(self.destination) || !has(self.destination.services)",
        "services can only be used in the source of an ingress rule",
        "destination",
    ),
)
_EGRESS = (
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

_GLOBAL = (
    Rule(f"{_not_true('preDNAT')} || {_not_true('doNotTrack')}", "cannot be used together with doNotTrack", "preDNAT"),
    Rule(
        f"({_not_true('preDNAT')} && {_not_true('doNotTrack')}) || (has(self.applyOnForward) && self.applyOnForward)",
        "must be true with preDNAT or doNotTrack, which concern forwarded packets too",
        "applyOnForward",
    ),
    Rule(
        f"{_not_true('preDNAT')} || {_empty('egress')}",
        "cannot be used with preDNAT: only what arrives is not translated yet",
        "egress",
    ),
    Rule(
        f"{_not_true('preDNAT')} || !has(self.types) || !('Egress' in self.types)",
        "cannot be Egress with preDNAT: only what arrives is not translated yet",
        "types",
    ),
)


def _staged(struct: type, *more: str) -> Rule:
    """`Delete` speaks of the policy of that name and tier: nothing else may be said."""
    names = [field.encode_name for field in msgspec.structs.fields(struct)]
    said = [_is_empty(struct, name) for name in names if name not in ("stagedAction", "tier")]
    return Rule(
        f"!has(self.stagedAction) || self.stagedAction != 'Delete' || ({_all(*said, *map(_empty, more))})",
        "nothing but tier can be given where stagedAction is Delete",
        "stagedAction",
    )


RULES: Mapping[type, tuple[Rule, ...]] = {
    IPPoolSpec: _POOL,
    BGPPeerSpec: _PEER,
    BGPConfigurationSpec: _BGP,
    FilterRule: _FILTER_RULE,
    HostEndpointSpec: (
        Rule(
            f"{_text('interfaceName')} || !{_empty('expectedIPs')}",
            "is required where there are no expectedIPs to find the devices by",
            "interfaceName",
        ),
    ),
    IcmpFields: (Rule("!has(self.code) || has(self.type)", "needs a type", "code"),),
    CalicoRule: _RULE,
    EntityRule: _ENTITY,
    GlobalNetworkPolicySpec: _GLOBAL,
    StagedNetworkPolicySpec: (_staged(StagedNetworkPolicySpec, "performanceHints"),),
    StagedGlobalNetworkPolicySpec: (_staged(StagedGlobalNetworkPolicySpec, "performanceHints"),),
    StagedKubernetesNetworkPolicySpec: (_staged(StagedKubernetesNetworkPolicySpec),),
}
"""By Struct, wherever it stands; those of its bases too."""

ITEM_RULES: Mapping[tuple[type, str], tuple[Rule, ...]] = {
    (NetworkPolicySpec, "ingress"): _INGRESS,
    (NetworkPolicySpec, "egress"): _EGRESS,
    (ProfileSpec, "ingress"): _INGRESS,
    (ProfileSpec, "egress"): _EGRESS,
    (BGPFilterSpec, "exportV4"): _of_family(4),
    (BGPFilterSpec, "importV4"): _of_family(4),
    (BGPFilterSpec, "exportV6"): _of_family(6),
    (BGPFilterSpec, "importV6"): _of_family(6),
}
"""Of the items of one list."""


def _fixed(name: str) -> Rule:
    fixed = FIXED_TIERS[name]
    assert fixed.order is not None
    order, action = f"{fixed.order:.1f}", fixed.default_action
    return Rule(
        f"self.metadata.name != '{name}' || !has(self.spec) || "
        f"((!has(self.spec.order) || self.spec.order == {order}) && "
        f"(!has(self.spec.defaultAction) || self.spec.defaultAction == '{action}'))",
        f"the tier {name} has the order {fixed.order:.0f} and the default action {action}, and cannot have others",
        "spec",
    )


ROOT_RULES: Mapping[type, tuple[Rule, ...]] = {
    Tier: tuple(map(_fixed, FIXED_TIERS)),
    IPAMConfiguration: (
        Rule(
            f"self.metadata.name == '{IPAM_CONFIGURATION}'",
            f"must be called {IPAM_CONFIGURATION}: there is one for the whole cluster",
        ),
    ),
    BGPConfiguration: (
        Rule(
            f"!self.metadata.name.startsWith('node.') || !has(self.spec) || ({_for_all()})",
            f"{', '.join(FOR_ALL)} can be set for the whole cluster only, in the BGPConfiguration default",
            "spec",
        ),
    ),
    Profile: (
        Rule(
            " && ".join(f"!self.metadata.name.startsWith('{prefix}')" for prefix in DERIVED_PROFILES),
            "profiles of namespaces and service accounts are made of these, and cannot be written",
        ),
    ),
}
"""Of an object as a whole: `self.metadata.name` is all that a rule sees of the metadata."""


# --- schemas that cost nothing


def _ends(**lists: Schema) -> Schema:
    """Both ends of a rule have such lists."""
    return {end: {"properties": lists} for end in ("source", "destination")}


def _family(version: int) -> Schema:
    net = {"pattern": ":" if version == 6 else "^[^:]*$"}
    lists = {name: {"items": net} for name in ("nets", "notNets")}
    return {"properties": {**_ends(**lists), "ipVersion": {"enum": [version]}}}


def _ports(items: Schema) -> Schema:
    return _ends(ports=items, notPorts=items)


_NAMES: Schema = {"items": {"maximum": 0, "pattern": "^[0-9]*[A-Za-z_.-][A-Za-z0-9_.-]*$"}}
"""No number (`maximum`), no text that is one or a range of them (`pattern`)."""

ONE_OF_THESE: Mapping[type, tuple[Schema, ...]] = {
    CalicoRule: (
        {"anyOf": [_family(4), _family(6)]},
        {
            "anyOf": [
                {"required": ["protocol"], "properties": {"protocol": {"enum": PORT_PROTOCOL["enum"]}}},
                {"not": {"required": ["protocol"]}, "properties": _ports(_NAMES)},
                {"properties": _ports({"maxItems": 0})},
            ]
        },
    ),
    FilterOperation: ({"oneOf": [{"required": [name]} for name in ("addCommunity", "prependASPath", "setPriority")]},),
    NetworkPolicyPeer: (
        {
            "oneOf": [
                {"required": ["ipBlock"]},
                {"anyOf": [{"required": ["podSelector"]}, {"required": ["namespaceSelector"]}]},
            ]
        },
    ),
    NetworkPolicyPort: ({"anyOf": [{"not": {"required": ["endPort"]}}, {"required": ["port"]}]},),
    LabelSelectorRequirement: (
        {
            "oneOf": [
                {
                    "required": ["values"],
                    "properties": {"operator": {"enum": ["In", "NotIn"]}, "values": {"minItems": 1}},
                },
                {"properties": {"operator": {"enum": ["Exists", "DoesNotExist"]}, "values": {"maxItems": 0}}},
            ]
        },
    ),
}
"""Networks of one family, and of the rule's version; ports only with a protocol that has them, or names alone; exactly
one operation; an ipBlock or selectors; a range only with its first port; values where the operator wants them."""

_NAMED: Schema = {
    "properties": {"services": {"properties": {"namespace": {"minLength": 1}}, "required": ["namespace"]}}
}

ITEM_SCHEMAS: Mapping[tuple[type, str], Schema] = {
    (GlobalNetworkPolicySpec, "ingress"): {"properties": {"source": _NAMED}},
    (GlobalNetworkPolicySpec, "egress"): {"properties": {"destination": _NAMED}},
}
"""Services in a policy that is in no namespace itself have to name theirs."""
