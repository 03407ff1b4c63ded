"""Which resources of Kubernetes a path of the api is about, and which paths only the bus can answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from bus_schemas.resources import Namespace, Pod, Profile, Resource, ServiceAccount
from services.api.kinds import kinds_named
from services.kube_bridge.sources import SOURCES, Source

ONLY_THE_BUS = {
    "ipam": "who has which address",
    "status": "which components are alive",
    "events": "what happened",
    "hits": "what policies decided",
    "bgp": "how BGP sessions stand",
}
"""By the first word of a path: what it tells."""
_OF_A_NODE = {"bgp": ONLY_THE_BUS["bgp"], "facts": "what a node found out about itself"}
_MADE_OF: dict[type[Resource], tuple[type[Resource], ...]] = {Profile: (Profile, Namespace, ServiceAccount)}
"""Kinds of which some are made of others."""
_OF_EVERYTHING = frozenset({"apply", "validate", "delete", "explain"})
EVERYTHING = frozenset(SOURCES)


def only_the_bus(path: str) -> str:
    """What the path asks for, if just the bus knows it; empty: Kubernetes does."""
    words = _words(path)
    if len(words) == 3 and words[0] == "nodes":
        return _OF_A_NODE.get(words[2], "")
    return ONLY_THE_BUS.get(words[0], "") if words else ""


def sources(method: str, path: str) -> frozenset[Source]:
    """What must be read of Kubernetes to answer."""
    words = _words(path)
    if not words:
        return frozenset()
    if method != "GET" or words[0] in _OF_EVERYTHING:
        return EVERYTHING
    if words[0] == "namespaces" and len(words) > 2:
        words = words[2:]
    kinds = (Pod,) if words[0] == "endpoints" else kinds_named(words[0])
    return _of(kind for named in kinds for kind in _MADE_OF.get(named, (named,)))


def _of(kinds: Iterable[type[Resource]]) -> frozenset[Source]:
    wanted = set(kinds)
    return frozenset(source for source in SOURCES if source.resource in wanted)


def _words(path: str) -> list[str]:
    """Behind `/v1/`."""
    return [unquote(word) for word in path.partition("?")[0].strip("/").split("/")][1:]
