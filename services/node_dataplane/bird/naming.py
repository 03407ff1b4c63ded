"""Names of what our BIRD runs: the same input gives the same names, so that a change of one thing leaves the others."""

from __future__ import annotations

from hashlib import sha1
from typing import Literal

from bus_schemas.bgp import Origin, Session

Way = Literal["import", "export"]

_PREFIX = {Origin.MESH: "Mesh", Origin.GLOBAL: "Global", Origin.NODE: "Node", Origin.LOCAL: "Local_Workload"}
"""As Calico's users know them."""


def protocol_of(session: Session) -> str:
    """`Mesh_10_0_0_16`, `Node_fd00__1_port_180`."""
    address = session.neighbour.replace(".", "_").replace(":", "_")
    port = f"_port_{session.port}" if session.port else ""
    return f"{_PREFIX[session.origin]}_{address}{port}"


def filter_function(name: str, way: Way, family: int) -> str:
    """The name of a BGPFilter may be longer than a symbol of BIRD (64 bytes)."""
    return f"filter_{sha1(name.encode(), usedforsecurity=False).hexdigest()[:16]}_{way}{family}"
