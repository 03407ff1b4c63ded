"""What is known of this machine without bus and api: what its agent wrote down, or what is found now.

Read by `tortie node explain`. Nothing is changed, and no root is needed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from bus_schemas.node_facts import NodeFacts
from services.node_dataplane import interfaces
from services.node_dataplane.autodetection import Reach
from services.node_dataplane.core import NodeCore
from services.node_dataplane.facts import node_facts
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.reach import Reaches
from services.node_dataplane.settings import Settings

Json = dict[str, Any]


def written(path: Path) -> Json | None:
    """What the agent wrote; None where there is nothing that can be read."""
    try:
        facts = msgspec.json.decode(path.read_bytes(), type=NodeFacts)
    except (OSError, msgspec.MsgspecError):
        return None
    return _plain(facts, f"its agent, in {path}")


def detected(settings: Settings) -> Json:
    """By the settings alone: what the Node resource and the pools say is not known here. Raises OSError."""
    asked = settings.asked()
    core = NodeCore(settings.node_name, asked)

    def reached(family: int, reach: Reach) -> None:
        core.set_reach(family, reach)

    kernel = NetlinkSocket(NETLINK_ROUTE)
    try:
        core.set_interfaces(interfaces.observe(kernel).uplinks)
        reaches = Reaches(asked, reached)
        reaches.resolve()
        reaches.look()
    finally:
        kernel.close()
    now = time.time()
    core.flush(now)
    place = core.whereabouts
    facts = node_facts(settings.node_name, place.findings, place.underlay, core.mtu, (), settings.addressing)
    by = "detection now; what the Node resource, pools and FelixConfiguration say is not known here"
    return _plain(msgspec.structs.replace(facts, time=now), by)


def _plain(facts: NodeFacts, by: str) -> Json:
    plain: Json = msgspec.to_builtins(facts)
    plain.pop("type", None)
    return {"addresses": [], "offload": [], "configured": {}, **plain, "from": by}
