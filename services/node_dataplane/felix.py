"""Which FelixConfiguration decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bus_schemas.ids import NodeName
from bus_schemas.resources import FelixConfiguration


def setting(configurations: Mapping[str, FelixConfiguration], node: NodeName, field: str) -> object:
    """A FelixConfiguration field by precedence: `node.<name>`, then `default`; None when neither sets it."""
    for name in (f"node.{node}", "default"):
        configuration = configurations.get(name)
        if configuration is not None:
            value: object = getattr(configuration.spec, field)
            if value is not None:
                return value
    return None
