"""The judges of the definitions see what is wrong: a judge that lets everything pass proves nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support import cel_costs, structural_schema
from tests.support.crd_server import definitions
from tests.support.kubernetes_types import misfits

Schema = dict[str, Any]


def with_spec(changes: Schema) -> dict[str, Any]:
    """The definition of Tier with more in the schema of its spec."""
    definition = copy.deepcopy(definitions()["projectcalico.org/v3", "Tier"])
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for key, value in changes.items():
        spec[key] = {**spec[key], **value} if isinstance(value, dict) and key in spec else value
    return definition


def field(schema: Schema) -> Schema:
    return {"properties": {"extra": schema}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (field({}), "a type is needed"),
        (field({"type": "array"}), "items are needed"),
        (field({"type": "object"}), "loses everything"),
        (field({"$ref": "#/x", "type": "string"}), "$ref is not known"),
        (field({"type": "array", "items": {"type": "string"}, "uniqueItems": True}), "uniqueItems is not known"),
        (field({"x-kubernetes-int-or-string": True}), "says so under anyOf"),
        (field({"x-kubernetes-int-or-string": True, "type": "string"}), "has no type"),
        (field({"type": "string", "anyOf": [{"type": "string"}]}), "type must not stand under"),
        (field({"type": "string", "not": {"description": "x"}}), "description must not stand under"),
        (field({"type": "string", "pattern": "^(?!x)$"}), "is not RE2"),
        (field({"type": "string", "format": "cidrs"}), "is not checked by servers"),
        (field({"type": "string", "enum": ["a"], "default": "b"}), "is not valid"),
        (field({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}), "plain values"),
        (field({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}), "keys of a map"),
        (field({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}), "properties and"),
        ({"anyOf": [{"required": ["absent"]}]}, "absent is required but no field"),
        ({"allOf": [{"not": {"properties": {"absent": {"minLength": 1}}}}]}, "absent is no field"),
        ({"x-kubernetes-validations": [{"rule": "true", "message": "x", "fieldPath": ".absent"}]}, "is no field"),
        ({"x-kubernetes-validations": [{"rule": "true", "message": ""}]}, "message"),
    ],
)
def test_what_is_not_structural(changes: Schema, said: str) -> None:
    found = structural_schema.faults(with_spec(changes))
    assert any(said in fault for fault in found), found


def test_metadata_can_only_say_what_a_name_is_like() -> None:
    definition = with_spec({})
    metadata = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["metadata"]
    metadata["properties"]["labels"] = {"type": "object", "additionalProperties": {"type": "string"}}
    assert structural_schema.faults(definition) == ["metadata: only name and generateName can be restricted"]


def test_fields_that_the_api_does_not_have() -> None:
    definition = with_spec(field({"type": "string", "maxlength": 1}))
    definition["spec"]["preserve"] = False
    found = list(misfits(definition, "V1CustomResourceDefinition"))
    assert [fault.rpartition(": ")[2] for fault in found] == [
        "V1JSONSchemaProps has no maxlength",
        "V1CustomResourceDefinitionSpec has no preserve",
    ]


def cost(rule: str, schema: Schema) -> int:
    found = cel_costs.estimates(
        with_spec({**field(schema), "x-kubernetes-validations": [{"rule": rule, "message": "x"}]})
    )
    return next(one.cost for one in found if one.rule == rule)


WORDS: Schema = {"type": "array", "items": {"type": "string", "maxLength": 63}, "maxItems": 25}


def test_costs() -> None:
    """`self.all(x, x.contains('gpu'))` over 25 words of 63 is about 750 units on a server: 0.4 * 63 + 4.6 a word."""
    assert cost("self.extra.all(x, x.contains('gpu'))", WORDS) == pytest.approx(750, rel=0.05)
    unbounded = {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}
    assert cost("self.extra.all(x, x.all(y, y == 5))", unbounded) > cel_costs.MAX_RULE
    assert cost("self.extra.all(x, x == 5)", {"type": "array", "items": {"type": "integer"}}) < cel_costs.MAX_RULE


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("self.extra.exists(x, x in ['a', 1])", "several types"),
        ("self.absent == 'a'", "no field absent"),
        ("self.extra.exists(x, x == 1)", "a string is compared with 0"),
        ("self.order == 1", "a number is compared with 0"),
        ("1 in self.extra", "a string is compared with 0"),
        ("cidr(self.extra[0]).ip().family() == 4", "undeclared|no cost"),
    ],
)
def test_rules_that_a_server_would_not_compile(rule: str, said: str) -> None:
    with pytest.raises((cel_costs.Unfit, RuntimeError), match=said):
        cost(rule, WORDS)
