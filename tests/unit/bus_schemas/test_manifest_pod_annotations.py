"""Annotations about a pod's addresses."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.manifests import Accepted, Rejected, read_object
from bus_schemas.resources import Pod

PREFIX = "cni.projectcalico.org/"


def read(annotations: dict[str, str], **status: Any) -> Accepted | Rejected:
    metadata = {"name": "a", "namespace": "red", "annotations": {PREFIX + k: v for k, v in annotations.items()}}
    return read_object({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})


@pytest.mark.parametrize(
    ("annotations", "status", "addresses"),
    [
        ({"podIP": "10.0.0.1"}, {}, ("10.0.0.1",)),
        ({"podIP": "10.0.0.1/32", "podIPs": "10.0.0.1/32,fd00::1/128"}, {}, ("10.0.0.1", "fd00::1")),
        ({"podIP": "10.0.0.1"}, {"podIP": "10.0.0.2"}, ("10.0.0.2",)),
        ({"podIP": "nonsense"}, {"podIPs": [{"ip": "10.0.0.2"}]}, ("10.0.0.2",)),
        ({"podIP": ""}, {}, ()),
        ({"allowedSourcePrefixes": '["10.0.0.0/8", "fd00::/8"]'}, {}, ()),
    ],
)
def test_the_addresses_are_those_of_the_status_or_else_those_that_the_plugin_noted(
    annotations: dict[str, str], status: dict[str, Any], addresses: tuple[str, ...]
) -> None:
    outcome = read(annotations, **status)
    assert isinstance(outcome, Accepted), outcome
    assert isinstance(outcome.resource, Pod)
    assert outcome.resource.status.pod_ips == addresses


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("podIP", "nonsense"),
        ("podIPs", "10.0.0.1,10.0.0.300"),
        ("allowedSourcePrefixes", '[""]'),
        ("allowedSourcePrefixes", '["nonsense"]'),
        ("allowedSourcePrefixes", "[1]"),
        ("allowedSourcePrefixes", "10.0.0.0/8"),
        ("allowedSourcePrefixes", "[" * 100_000),
    ],
)
def test_a_pod_that_could_not_be_connected_is_refused(name: str, value: str) -> None:
    outcome = read({name: value})
    assert isinstance(outcome, Rejected)
    assert [fault.path for fault in outcome.faults] == [f"metadata.annotations.{PREFIX}{name}"]
