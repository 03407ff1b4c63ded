"""What every resource has: Kubernetes object metadata, and label selectors (meta/v1)."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.codec import Message

MIRRORED_FROM = "tortie.io/cluster"
"""Annotation of what kube_bridge mirrors: the uid of its cluster (of the namespace kube-system)."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    name: str
    namespace: str = ""
    """Empty for cluster-wide kinds."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    uid: str = ""
    creation_timestamp: str = ""
    """RFC 3339, set by the api on creation."""


class Resource(Message, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base of the resources. On the bus it is tagged like any message; as a manifest it has apiVersion and kind."""

    API_VERSION: ClassVar[str]
    """What `tortie get -o yaml` prints."""
    KIND: ClassVar[str]
    TOKEN: ClassVar[str]
    """The kind's token in subjects and the singular name in the command line: unique among all kinds."""
    PLURAL: ClassVar[str]
    ALIASES: ClassVar[tuple[str, ...]] = ()
    NAMESPACED: ClassVar[bool]

    metadata: Metadata

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name), the key of the resource's subject."""
        return (self.metadata.namespace, self.metadata.name)

    @property
    def display(self) -> str:
        """`Kind/namespace/name` or `Kind/name`."""
        return "/".join(filter(None, (self.KIND, self.metadata.namespace, self.metadata.name)))


class LabelSelectorRequirement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """meta/v1 LabelSelector: empty matches everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()
