"""What is sent to an API server so that an object becomes what was decided. Pure.

A replacement keeps what is others': uid, owners, finalizers, kubectl's own note, and the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus_schemas.manifests import to_manifest
from bus_schemas.resources import Resource
from services.kube_bridge.mirror import LAST_APPLIED
from services.kube_bridge.sources import CORE_SOURCES, Source

Object = dict[str, Any]

KUBERNETES_OWN = frozenset(source.resource for source in CORE_SOURCES if source.plural != "networkpolicies")
"""Pods, nodes, services ...: they have much that is not a network's, which a replacement would take away."""


def body(source: Source, resource: Resource, before: Mapping[str, Any] | None) -> Object:
    """`before`: the object as the server has it; None: there is none."""
    manifest = to_manifest(resource)
    wanted: Object = manifest["metadata"]
    metadata: Object = {"name": wanted["name"]}
    if resource.NAMESPACED:
        metadata["namespace"] = wanted["namespace"]
    annotations = dict(wanted.get("annotations") or {})
    if before is not None:
        kept = before["metadata"]
        metadata |= {name: value for name, value in kept.items() if name not in ("labels", "annotations")}
        metadata.pop("managedFields", None)
        note = (kept.get("annotations") or {}).get(LAST_APPLIED)
        if note is not None:
            annotations[LAST_APPLIED] = note
    if annotations:
        metadata["annotations"] = annotations
    if wanted.get("labels"):
        metadata["labels"] = wanted["labels"]
    made: Object = {"apiVersion": source.api_version, "kind": source.kind, "metadata": metadata}
    made |= {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind", "metadata")}
    if before is not None and "status" in before:
        made["status"] = before["status"]
    return made
