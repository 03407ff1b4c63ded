"""What exists in every cluster, whoever asks for it or not, and what may not be deleted.

The fixed tiers and the profile that allows everything are ordinary resources, so that they are seen, named and ordered
like all others; the api writes those that are missing. Every replica may: whoever comes second finds them there.
"""

from __future__ import annotations

from collections.abc import Iterable

from bus_schemas.resources import Metadata, Profile, Resource, Tier
from bus_schemas.resources.policy_scopes import ALLOW_ALL, DEFAULT_ALLOW, FIXED_TIERS

STANDING: tuple[Resource, ...] = (
    *(Tier(metadata=Metadata(name=name), spec=spec) for name, spec in FIXED_TIERS.items()),
    Profile(metadata=Metadata(name=DEFAULT_ALLOW), spec=ALLOW_ALL),
)

NAMED_POLICIES = 5
"""How many policies a refusal names."""


def why_kept(resource: Resource, staying: Iterable[Resource]) -> str:
    """Why the resource cannot be deleted while the others stay; empty when it can."""
    if any(type(standing) is type(resource) and standing.key == resource.key for standing in STANDING):
        return f"{resource.display} is part of every cluster and cannot be deleted"
    if isinstance(resource, Tier):
        inside = sorted(other.display for other in staying if _tier(other) == resource.metadata.name)
        if inside:
            more = f" and {len(inside) - NAMED_POLICIES} more" if len(inside) > NAMED_POLICIES else ""
            named = ", ".join(inside[:NAMED_POLICIES])
            return f"{resource.display} still holds {named}{more}: delete them or give them another tier first"
    return ""


def _tier(resource: Resource) -> str | None:
    """The tier that a policy names by its name."""
    if isinstance(resource, Tier):
        return None
    return getattr(getattr(resource, "spec", None), "tier", None)
