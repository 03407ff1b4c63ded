"""Fields that readers check or pass over and Structs do not keep: they are no reason to lose or refuse an object."""

from __future__ import annotations

from collections.abc import Mapping

from bus_schemas.manifests import felix_parameters
from bus_schemas.manifests.calico_policy import HINTS
from bus_schemas.manifests.felix_parameters import PARAMETERS, Each, Pattern, Tables, Whole, Words
from bus_schemas.manifests.pools import PERSISTENCE
from bus_schemas.resources.bgp import BGPConfigurationSpec, SecretKeyRef
from bus_schemas.resources.calico_policy import CalicoRule, NetworkPolicySpec
from bus_schemas.resources.configuration import FelixConfigurationSpec
from bus_schemas.resources.pools import IPAMConfigurationSpec
from tortie.crds.values import NET, NET4, PORT_RANGE, Schema, any_case, between, each, form


def _checked(check: object) -> Schema | None:
    """The schema of a parameter that is only checked, where its check can say it."""
    match check:
        case Words(choices, any_case=True, may_be_empty=empty):
            return {"type": "string", **any_case(*choices, *[""] * empty)}
        case Words(choices):
            return {"type": "string", "enum": list(choices)}
        case Whole(low, high):
            return {"type": "integer", **between(low, high)}
        case Pattern(regex, _, longest, empty):
            return {
                "type": "string",
                **form(regex, *[""] * empty),
                **({} if longest is None else {"maxLength": longest}),
            }
        case Tables(low, high):
            ends = {end: {"type": "integer", **between(low, high)} for end in ("min", "max")}
            open_ = {"x-kubernetes-preserve-unknown-fields": True}
            return {"type": "object", "properties": ends, "required": ["min", "max"], **open_}
        case Each(inner, most) if (item := _checked(inner)) is not None:
            return {"type": "array", **each(item, most=most)}
    return _TEXTS.get(check)


_TEXTS: Mapping[object, Schema] = {
    felix_parameters.address4: {"type": "string", "format": "ipv4"},
    felix_parameters.address6: {"type": "string", "format": "ipv6"},
    felix_parameters.network4: {"type": "string", **NET4},
    felix_parameters.any_network: {"type": "string", **NET},
    felix_parameters.regular_expression: {"type": "string"},
    felix_parameters.port_range: {**PORT_RANGE, "anyOf": [{"type": "integer"}, {"type": "string"}]},
}


_NO_EFFECT = "Checked, but of no effect here."

PASSED: Mapping[type, Mapping[str, Schema]] = {
    IPAMConfigurationSpec: {
        "kubeVirtVMAddressPersistence": {"type": "string", "enum": list(PERSISTENCE), "description": _NO_EFFECT},
    },
    FelixConfigurationSpec: {
        name: {**schema, "description": _NO_EFFECT}
        for name, check in sorted(PARAMETERS.items())
        if (schema := _checked(check)) is not None
    },
    SecretKeyRef: {"optional": {"type": "boolean", "description": _NO_EFFECT}},
    NetworkPolicySpec: {
        "performanceHints": {
            "type": "array",
            "items": {"type": "string", "enum": list(HINTS)},
            "x-kubernetes-list-type": "set",
            "description": _NO_EFFECT,
        },
    },
    CalicoRule: {
        "metadata": {
            "type": "object",
            "properties": {"annotations": {"type": "object", "additionalProperties": {"type": "string"}}},
            "x-kubernetes-preserve-unknown-fields": True,
            "description": "Notes of people and programs; nothing here reads them.",
        },
    },
}
"""Fields that readers accept and Structs do not keep."""

OPEN: Mapping[type, str] = {
    FelixConfigurationSpec: "Calico's agent has some two hundred parameters, and each release more",
    BGPConfigurationSpec: "Calico's next release may know more, as in FelixConfiguration",
}
"""Where the reader passes over what it does not know, with a warning: the server keeps it, so that the warning can be
given (`x-kubernetes-preserve-unknown-fields`). Everywhere else an unknown field is a misspelt one."""
