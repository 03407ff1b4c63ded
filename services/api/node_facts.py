"""What a node found out about itself, as its agent last told, as JSON values."""

from __future__ import annotations

from typing import Any

import msgspec

from bus_schemas.node_facts import NodeFacts
from services.api.bgp import known as has_bgp
from services.api.core import Core

Json = dict[str, Any]


def known(core: Core, node: str) -> bool:
    return node in core.node_facts or has_bgp(core, node)


def facts_of(core: Core, node: str) -> Json:
    """`facts` null: nothing is heard of its agent (for a minute)."""
    said = core.node_facts.get(node)
    alive = any(status.node == node for status in core.statuses.values())
    return {"node": node, "agent": alive, "facts": told(said) if said is not None else None}


def told(facts: NodeFacts) -> Json:
    plain: Json = msgspec.to_builtins(facts)
    plain.pop("type", None)
    return {"addresses": [], "offload": [], "configured": {}, **plain}
