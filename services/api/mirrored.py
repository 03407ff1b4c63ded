"""Objects about which Kubernetes has the word: kube_bridge mirrors them, and would undo what is written here. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bus_schemas.resources import Resource
from bus_schemas.resources.metadata import MIRRORED_FROM

BRIDGE = "kube_bridge"


def why_not_here(before: Resource | None, components: Iterable[str]) -> str:
    """Why the object cannot be changed or deleted here; empty when it can. `components`: who is alive. What a bridge
    that is gone for good left behind is free."""
    if before is None or not before.metadata.annotations.get(MIRRORED_FROM) or BRIDGE not in components:
        return ""
    return f"{before.display} is mirrored from Kubernetes: change it there, with kubectl"
