"""What an API server is sent."""

from __future__ import annotations

from typing import Any

from bus_schemas.manifests import Accepted, read_object
from bus_schemas.resources import Resource
from services.kube_bridge.mirror import LAST_APPLIED
from services.kube_bridge.sources import SOURCES, Source
from tortie.direct.writing import KUBERNETES_OWN, body


def source(name: str) -> Source:
    return next(source for source in SOURCES if source.name == name)


def resource(kind: str, spec: dict[str, Any], **metadata: Any) -> Resource:
    manifest = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}
    outcome = read_object(manifest)
    assert isinstance(outcome, Accepted)
    return outcome.resource


def test_a_new_object_is_no_more_than_what_was_written() -> None:
    made = body(source("tiers.projectcalico.org"), resource("Tier", {"order": 5}, name="a", labels={"x": "y"}), None)
    assert made["metadata"] == {"name": "a", "labels": {"x": "y"}}
    assert (made["apiVersion"], made["kind"], made["spec"]["order"]) == ("projectcalico.org/v3", "Tier", 5)


def test_the_stored_group_has_its_own_words() -> None:
    made = body(source("ipamconfigs.crd.projectcalico.org"), resource("IPAMConfiguration", {}, name="default"), None)
    assert (made["apiVersion"], made["kind"]) == ("crd.projectcalico.org/v1", "IPAMConfig")


def test_a_replacement_keeps_what_is_others() -> None:
    before = {
        "metadata": {
            "name": "a",
            "uid": "u",
            "resourceVersion": "7",
            "finalizers": ["f"],
            "ownerReferences": [{"name": "o"}],
            "managedFields": [{}],
            "labels": {"old": "1"},
            "annotations": {LAST_APPLIED: "{}", "old": "1"},
        },
        "spec": {"order": 1, "defaultAction": "Pass"},
        "status": {"conditions": []},
    }
    made = body(source("tiers.projectcalico.org"), resource("Tier", {"order": 5}, name="a"), before)
    assert made["metadata"] == {
        "name": "a",
        "uid": "u",
        "resourceVersion": "7",
        "finalizers": ["f"],
        "ownerReferences": [{"name": "o"}],
        "annotations": {LAST_APPLIED: "{}"},
    }
    assert made["spec"].get("defaultAction") != "Pass"
    assert made["status"] == {"conditions": []}


def test_pods_and_nodes_are_not_written() -> None:
    kinds = {kind.KIND for kind in KUBERNETES_OWN}
    assert {"Pod", "Node", "Namespace", "Service"} <= kinds
    assert "NetworkPolicy" not in kinds
