"""Whether an object has the fields and types that Kubernetes' own description of its API gives them, as the models of
kubernetes_asyncio, generated of it, have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubernetes_asyncio.client import models

_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "object": (object,),
}


def misfits(value: Any, type_: str, path: str = "") -> Iterator[str]:
    """`type_`: the name of a model, or `list[...]`, `dict(str, ...)`, `str` and so on."""
    if found := re.fullmatch(r"list\[(.+)\]", type_):
        for i, item in enumerate(value):
            yield from misfits(item, found[1], f"{path}[{i}]")
    elif found := re.fullmatch(r"dict\(str, (.+)\)", type_):
        for key, inner in value.items():
            yield from misfits(inner, found[1], f"{path}.{key}")
    elif type_ in _PLAIN:
        if not isinstance(value, _PLAIN[type_]):
            yield f"{path}: {value!r} is no {type_}"
    elif not isinstance(value, dict):
        # a JSONSchemaPropsOrBool and its like are objects here
        yield f"{path}: {value!r} is no {type_}"
    else:
        model = getattr(models, type_)
        names = {wire: name for name, wire in model.attribute_map.items()}
        for key, inner in value.items():
            if key not in names:
                yield f"{path}: {type_} has no {key}"
            else:
                yield from misfits(inner, model.openapi_types[names[key]], f"{path}.{key}")
