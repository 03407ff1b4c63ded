"""What two fields have to do with each other, where CEL would be too dear or is not needed: schemas cost nothing."""

from __future__ import annotations

from collections.abc import Mapping

from bus_schemas.resources.bgp import FilterOperation
from bus_schemas.resources.calico_policy import CalicoRule, GlobalNetworkPolicySpec
from bus_schemas.resources.metadata import LabelSelectorRequirement
from bus_schemas.resources.network_policy import NetworkPolicyPeer, NetworkPolicyPort
from tortie.crds.values import PORT_PROTOCOL, Schema


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
