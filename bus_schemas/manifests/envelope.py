"""What is around every object: apiVersion and kind, and metadata with its checks.

crd.projectcalico.org/v1 is how Calico stores its v3 objects in Kubernetes. People apply such manifests too, so they are
read as what they stand for: the real metadata is in an annotation where Calico wrote it, and the names of policies
carry their tier as a prefix.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.names import annotation_map, dns_label, dns_subdomain, label_map
from bus_schemas.resources.metadata import Metadata

CORE = "v1"
DISCOVERY = "discovery.k8s.io/v1"
KUBERNETES_POLICY = "networking.k8s.io/v1"
CLUSTER_POLICY = "policy.networking.k8s.io/v1alpha2"
OLDER_CLUSTER_POLICY = "policy.networking.k8s.io/v1alpha1"
CALICO = "projectcalico.org/v3"
CALICO_STORED = "crd.projectcalico.org/v1"

STORED_METADATA = "projectcalico.org/metadata"
"""Annotation of a stored object: JSON of the metadata that the user gave."""
STORED_PREFIX = "default."
"""The tier in the name of a stored policy."""

_SYSTEM_FIELDS = (
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """How a kind wants its metadata read."""

    namespaced: bool
    name: Callable[[At], str] = dns_subdomain
    unknown: Unknown = Unknown.NEARLY_REFUSED
    stored: bool = False
    """It comes from crd.projectcalico.org/v1."""
    stored_prefix: str = ""


def metadata(document: Fields, envelope: Envelope) -> Metadata:
    fields = document.fields("metadata")
    raw: dict[str, Any] = fields.at.value
    if envelope.stored:
        fields = Fields(At(_unstored(fields, envelope.stored_prefix), fields.path, fields.at.report))
        raw = fields.at.value
    name = fields.required("name", envelope.name, "")
    namespace = _namespace(fields, envelope)
    labels = fields.maybe("labels", label_map) or {}
    annotations = fields.maybe("annotations", annotation_map) or {}
    uid = fields.string("uid")
    created = fields.string("creationTimestamp")
    fields.known(*_SYSTEM_FIELDS)
    if not name and raw.get("generateName"):
        fields.place("generateName").fault("is not supported: give the object a name")
    fields.close(envelope.unknown)
    return Metadata(
        name=name,
        namespace=namespace,
        labels=labels,
        annotations=annotations,
        uid=uid,
        creation_timestamp=created,
    )


def _namespace(fields: Fields, envelope: Envelope) -> str:
    at = fields.take("namespace")
    if at is None or at.value == "":
        return "default" if envelope.namespaced else ""
    if not envelope.namespaced:
        at.fault(f"must not be given: the object is cluster-wide, not in the namespace {said(at.value)}")
        return ""
    return dns_label(at)


def _unstored(fields: Fields, prefix: str) -> dict[str, Any]:
    """The metadata that a stored object stands for."""
    given: dict[str, Any] = dict(fields.at.value)
    name = given.get("name")
    annotations = given.get("annotations")
    stored: dict[str, Any] = {}
    if isinstance(annotations, dict) and STORED_METADATA in annotations:
        given["annotations"] = {key: value for key, value in annotations.items() if key != STORED_METADATA}
        place = fields.place(f"annotations[{STORED_METADATA}]")
        stored = _decoded(At(annotations[STORED_METADATA], place.path, place.report))
        for field in ("name", "labels", "annotations", "uid", "creationTimestamp"):
            if stored.get(field):
                given[field] = stored[field]
    if "name" not in stored and isinstance(name, str):
        given["name"] = name.removeprefix(prefix)
    return given


def _decoded(at: At) -> dict[str, Any]:
    text = at.string()
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError) as error:
        at.fault(f"must be the JSON of the object's metadata: {error}")
        return {}
    if not isinstance(decoded, dict):
        at.fault(f"must be the JSON of the object's metadata, not {said(decoded)}")
        return {}
    return decoded
