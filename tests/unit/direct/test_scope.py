"""What is read of Kubernetes for a path, and what is not asked of it at all."""

from __future__ import annotations

import pytest

from services.kube_bridge.sources import SOURCES
from tortie.direct import scope


def names(method: str, path: str) -> set[str]:
    return {source.name for source in scope.sources(method, path)}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/pods?namespace=a", {"pods"}),
        ("/v1/endpoints", {"pods"}),
        ("/v1/namespaces/shop/pods/web", {"pods"}),
        ("/v1/namespaces", {"namespaces"}),
        ("/v1/namespaces/shop", {"namespaces"}),
        ("/v1/ippools", {"ippools.projectcalico.org", "ippools.crd.projectcalico.org"}),
        ("/v1/ipamconfig/default", {"ipamconfigurations.projectcalico.org", "ipamconfigs.crd.projectcalico.org"}),
        (
            "/v1/profiles",
            {"profiles.projectcalico.org", "profiles.crd.projectcalico.org", "namespaces", "serviceaccounts"},
        ),
        ("/v1/nonsense", set()),
        ("/", set()),
    ],
)
def test_no_more_is_read_than_is_asked_for(path: str, expected: set[str]) -> None:
    assert names("GET", path) == expected


def test_a_word_of_two_kinds_means_both() -> None:
    assert {"networkpolicies.networking.k8s.io", "networkpolicies.projectcalico.org"} <= names(
        "GET", "/v1/networkpolicies"
    )


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/apply"), ("DELETE", "/v1/tiers/a"), ("GET", "/v1/explain")])
def test_decisions_need_everything(method: str, path: str) -> None:
    assert scope.sources(method, path) == frozenset(SOURCES)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/ipam", False),
        ("/v1/ipam/check", False),
        ("/v1/status", False),
        ("/v1/events?last=10", False),
        ("/v1/hits", False),
        ("/v1/nodes/node1/bgp", False),
        ("/v1/nodes/node1/facts", False),
        ("/v1/nodes/status", True),
        ("/v1/nodes", True),
        ("/v1/ippools", True),
        ("/", True),
    ],
)
def test_what_only_the_bus_knows(path: str, known: bool) -> None:
    assert (scope.only_the_bus(path) == "") is known
