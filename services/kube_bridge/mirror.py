"""One object of Kubernetes -> one resource of the bus, or what is wrong with it. Pure.

    bytes --views--> plain values --manifests.read_object--> Accepted | Rejected --> Seen

The validation is that of `tortie apply`. What is mirrored carries the mark of its cluster, an annotation: so that
nobody takes away what others wrote, and a bridge to another cluster finds out where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from bus_schemas.manifests import Accepted, read_object
from bus_schemas.manifests.envelope import STORED_METADATA, STORED_PREFIX
from bus_schemas.resources import KubernetesNetworkPolicy, Resource
from bus_schemas.resources.metadata import MIRRORED_FROM
from services.kube_bridge.errors import KubeError
from services.kube_bridge.sources import CALICO_STORED, Source
from services.kube_bridge.views import VIEWS, Condition, Head, MetaHead, ObjectMeta

MARK = MIRRORED_FROM
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NETWORK_DOMAINS = ("projectcalico.org", "tortie.io")
"""Whose annotations count on the core kinds; other programs' come and go by the minute."""
_TYPES = ("Ingress", "Egress")

Name = tuple[str, str]
"""(namespace, name) in Kubernetes."""


class Seen(NamedTuple):
    """One object as it was last seen."""

    source: Source
    name: Name
    key: tuple[str, str]
    """Of its subject. Another than `name` where Calico stores an object under a prefixed name."""
    uid: str
    version: str
    """metadata.resourceVersion"""
    generation: int
    resource: Resource | None
    """None: it cannot be read; `faults` say why."""
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    stand_in: Resource | None = None
    """What may stand for an object that cannot be read, if there was never a better one."""
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[str, ...] = ()
    """status.loadBalancer.ingress of a Service."""


class Reader:
    """Reads the objects of one source."""

    def __init__(self, source: Source, cluster: str) -> None:
        """`cluster`: the mark."""
        self._source = source
        self._cluster = cluster
        self._view = VIEWS.get(source.resource)
        self._whole: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._view or dict[str, Any])
        looks_at_status = source.reports or source.plural in ("nodes", "services")
        self._head: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Head if looks_at_status else MetaHead)

    def head(self, raw: bytes | msgspec.Raw) -> ObjectMeta:
        """Raises KubeError: it is no object at all."""
        meta: ObjectMeta = self._read_head(raw).metadata
        return meta

    def _read_head(self, raw: bytes | msgspec.Raw) -> Any:
        try:
            head = self._head.decode(raw)
        except RecursionError as error:
            raise KubeError(f"{self._source.name}: an object that is nested too deeply to be read") from error
        except msgspec.DecodeError as error:
            try:
                return msgspec.json.decode(raw, type=MetaHead)  # a status that makes no sense is nobody's to mirror
            except msgspec.DecodeError:
                raise KubeError(f"{self._source.name}: an object that is none: {error}") from error
        return head

    def read(self, raw: bytes | msgspec.Raw) -> Seen:
        """Raises KubeError only where not even the name can be read."""
        head = self._read_head(raw)
        meta: ObjectMeta = head.metadata
        status = getattr(head, "status", None)
        resource: Resource | None = None
        faults: tuple[str, ...] = ()
        warnings: tuple[str, ...] = ()
        stand_in: Resource | None = None
        try:
            document = self._document(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            faults = (str(error),)
        else:
            outcome = read_object(document)
            if isinstance(outcome, Accepted):
                resource, warnings = self._marked(outcome.resource), outcome.warnings
            else:
                faults = tuple(map(str, outcome.faults))
                stand_in = self._closed(document)
        balancer = status.loadBalancer if status is not None else None
        name = (meta.namespace, meta.name)
        key = resource.key if resource is not None else _key(self._source, meta)
        return Seen(
            self._source,
            name,
            name if key == name else key,
            meta.uid,
            meta.resourceVersion,
            meta.generation,
            resource,
            faults,
            warnings,
            stand_in,
            tuple(status.conditions or ()) if status is not None else (),
            tuple(at.ip for at in balancer.ingress or () if at.ip) if balancer is not None else (),
        )

    def _document(self, raw: bytes | msgspec.Raw) -> dict[str, Any]:
        """What the readers of manifests take."""
        decoded = self._whole.decode(raw)
        document: dict[str, Any] = msgspec.to_builtins(decoded) if self._view is not None else decoded
        document["apiVersion"], document["kind"] = self._source.api_version, self._source.kind
        metadata = document.get("metadata")
        annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
        if isinstance(metadata, dict) and isinstance(annotations, dict):
            metadata["annotations"] = {k: v for k, v in annotations.items() if self._counts(k)}
        return document

    def _counts(self, annotation: str) -> bool:
        if self._view is None:
            return annotation not in (LAST_APPLIED, MARK)
        return annotation.partition("/")[0].endswith(NETWORK_DOMAINS) and annotation != MARK

    def _marked(self, resource: Resource) -> Resource:
        metadata = resource.metadata
        annotations = {**metadata.annotations, MARK: self._cluster}
        return msgspec.structs.replace(resource, metadata=msgspec.structs.replace(metadata, annotations=annotations))

    def _closed(self, document: Mapping[str, Any]) -> Resource | None:
        """A NetworkPolicy whose rules are not understood, without them: what it isolates stays isolated. Kubernetes
        asks that a peer that is not understood matches nothing."""
        if self._source.resource is not KubernetesNetworkPolicy or not isinstance(document.get("spec"), dict):
            return None
        spec: dict[str, Any] = document["spec"]
        types = [name for name in spec.get("policyTypes") or () if name in _TYPES]
        types = types or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        selectors: tuple[Any, ...] = (spec.get("podSelector"), {})
        for selector in selectors:
            outcome = read_object({**document, "spec": {"podSelector": selector, "policyTypes": types}})
            if isinstance(outcome, Accepted):
                return self._marked(outcome.resource)
        return None


def _key(source: Source, meta: ObjectMeta) -> tuple[str, str]:
    """The key that an object which cannot be read would have."""
    name = meta.name
    if source.group == CALICO_STORED:
        stored = _stored_name((meta.annotations or {}).get(STORED_METADATA, ""))
        if stored:
            name = stored
        elif "polic" in source.plural:
            name = name.removeprefix(STORED_PREFIX)
    return (meta.namespace, name)


def _stored_name(text: str) -> str:
    try:
        stored = msgspec.json.decode(text.encode()) if text else None
    except (msgspec.DecodeError, UnicodeEncodeError):
        return ""
    name = stored.get("name") if isinstance(stored, dict) else None
    return name if isinstance(name, str) else ""


def marked_by(resource: Resource) -> str:
    """The cluster that it was mirrored from; empty: somebody else wrote it."""
    return resource.metadata.annotations.get(MARK, "")
