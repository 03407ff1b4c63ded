"""Whom a policy speaks of: a selector, perhaps within one namespace, known by its canonical text.

Nearly every selector of a cluster is one of few (`app == "web"`) within one of many namespaces. A Selection keeps the
two apart: the few are parsed and turned into predicates once, and the namespace is one comparison and the best key of
the index. Its canonical text, and so its identity, is that of the selector written out in full.

Not every selector is about endpoints: `nodes: os == "linux"` is another selection than `os == "linux"`, with other
candidates (see `members`).
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha224
from typing import Literal, final

from bus_schemas.ids import GroupId
from bus_schemas.selectors import Selector, equals
from services.policy_compiler.labels import NAMESPACE, Labels

Realm = Literal["endpoints", "nodes", "services"]
"""Among whom a selection finds its members: workloads, host endpoints and network sets; nodes; endpoint slices."""

SERVICE = "service"
"""The only label of an endpoint slice: `<namespace>/<name>` of its Service."""


@final
class Selection:
    """Two selections with one canonical text are equal, however they were written."""

    __slots__ = ("canonical", "namespace", "realm", "selector", "uid")

    namespace: str
    """Only members of this namespace; empty: of any, or of none."""
    selector: Selector
    """What else members must match."""
    realm: Realm
    canonical: str
    uid: GroupId

    def __init__(self, namespace: str, selector: Selector, realm: Realm = "endpoints") -> None:
        self.namespace = namespace
        self.selector = selector
        self.realm = realm
        if realm != "endpoints":
            self.canonical = f"{realm}: {selector.canonical}"
        elif not namespace:
            self.canonical = selector.canonical
        elif selector.is_all:
            self.canonical = _in_namespace(namespace)
        else:
            self.canonical = f"({_in_namespace(namespace)} && {selector.canonical})"
        self.uid = identity(self.canonical)

    def matches(self, labels: Labels) -> bool:
        """`labels` are a pod's effective labels."""
        return (not self.namespace or labels.get(NAMESPACE) == self.namespace) and self.selector.matches(labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self.uid == other.uid

    def __hash__(self) -> int:
        return hash(self.uid)

    def __repr__(self) -> str:
        return f"Selection({self.canonical!r})"


def nodes(selector: Selector) -> Selection:
    return Selection("", selector, "nodes")


def service(namespace: str, name: str) -> Selection:
    return Selection("", equals(SERVICE, f"{namespace}/{name}"), "services")


def identity(canonical: str) -> GroupId:
    """`selectors.Selector.uid` of a canonical text, without making a selector of it."""
    digest = sha224(f"s:{canonical}".encode()).digest()
    return GroupId("s:" + urlsafe_b64encode(digest).rstrip(b"=").decode())


def _in_namespace(namespace: str) -> str:
    if '"' in namespace:
        return equals(NAMESPACE, namespace).canonical
    return f'{NAMESPACE} == "{namespace}"'
