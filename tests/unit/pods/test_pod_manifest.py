"""The Pod resource, as Tortie's own reader takes it."""

from __future__ import annotations

import json

import pytest

from bus_schemas.ids import PodKey
from bus_schemas.manifests import Accepted, read
from tortie.pods import manifest
from tortie.pods.runtime import IP_ADDRS, STARTED_BY, Wanted


def test_it_is_taken() -> None:
    wanted = Wanted(
        key=PodKey("shop", "web"), labels={"app": "web"}, addresses=["10.0.0.9"], ports={"http": ("tcp", 80)}
    )
    document = manifest.pod(
        wanted.key,
        uid="u",
        node="node1",
        labels=wanted.labels,
        annotations=wanted.all_annotations,
        ports=wanted.ports,
    )
    (accepted,) = read(json.dumps(document))
    assert isinstance(accepted, Accepted)
    meta = accepted.resource.metadata
    assert (meta.namespace, meta.name, meta.labels) == ("shop", "web", {"app": "web"})
    assert meta.annotations[IP_ADDRS] == '["10.0.0.9"]'
    assert STARTED_BY in meta.annotations


@pytest.mark.parametrize("text", ["80", "tcp/", "tcp/0", "tcp/65536", "icmp/1", "tcp/http", ""])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError, match="a port is written tcp/<number>"):
        manifest.port(text)
