"""Selectors in manifests: Calico's language as text, and Kubernetes' label selectors."""

from __future__ import annotations

from typing import Literal

from bus_schemas import selectors
from bus_schemas.manifests.fields import At, Unknown, said
from bus_schemas.manifests.names import label_key, label_map, label_value
from bus_schemas.resources.metadata import LabelSelector, LabelSelectorRequirement

MAX_SELECTOR = 1024


def selector(at: At, *, alone: bool = False) -> str:
    """A Calico selector in the words of the manifest. With `alone` it may be `global()`, but only by itself."""
    text = at.string()
    if len(text) > MAX_SELECTOR:
        at.fault(f"must be at most {MAX_SELECTOR} characters")
        return ""
    try:
        parsed = selectors.parse(text)
    except selectors.SelectorError as error:
        at.fault(f"not a selector: {error.reason} at position {error.position} of {said(text)}")
        return ""
    if parsed.mentions_global:
        if not alone:
            at.fault("global() can only be used in a namespaceSelector")
        elif not isinstance(parsed.node, selectors.Global):
            at.fault("global() can only be used alone")
    return text


def namespace_selector(at: At) -> str:
    return selector(at, alone=True)


def label_selector(at: At) -> LabelSelector:
    """meta/v1 LabelSelector, as the API server validates it."""
    fields = at.fields()
    match_labels = fields.maybe("matchLabels", label_map) or {}
    requirements = tuple(_requirement(item) for item in fields.items("matchExpressions"))
    fields.close(Unknown.REFUSED)
    return LabelSelector(match_labels=match_labels, match_expressions=requirements)


_OPERATORS: tuple[Literal["In", "NotIn", "Exists", "DoesNotExist"], ...] = ("In", "NotIn", "Exists", "DoesNotExist")


def _requirement(at: At) -> LabelSelectorRequirement:
    fields = at.fields()
    key = fields.required("key", lambda key: label_key(key, key.string()), "")
    operator = fields.required("operator", lambda operator: operator.choice(_OPERATORS), _OPERATORS[0])
    values = tuple(label_value(item, item.string()) for item in fields.items("values"))
    if operator in ("In", "NotIn") and not values:
        fields.place("values").fault(f"must not be empty with the operator {operator}")
    if operator in ("Exists", "DoesNotExist") and values:
        fields.place("values").fault(f"must be empty with the operator {operator}")
    fields.close(Unknown.REFUSED)
    return LabelSelectorRequirement(key=key, operator=operator, values=values)
