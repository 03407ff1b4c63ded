from __future__ import annotations

import pytest

from bus_schemas.resources import GlobalNetworkPolicy, IPPool, KubernetesNetworkPolicy, NetworkPolicy, Node
from services.api.kinds import kinds_named, unknown_kind


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("ippool", {IPPool}),
        ("IPPools", {IPPool}),
        ("pool", {IPPool}),
        ("no", {Node}),
        ("GlobalNetworkPolicy", {GlobalNetworkPolicy}),
        ("NetworkPolicy", {NetworkPolicy, KubernetesNetworkPolicy}),
        ("networkpolicies", {NetworkPolicy, KubernetesNetworkPolicy}),
        ("knp", {KubernetesNetworkPolicy}),
        ("networkpolicies.networking.k8s.io", {KubernetesNetworkPolicy}),
        ("networkpolicies.projectcalico.org", {NetworkPolicy}),
        ("deployment", set()),
    ],
)
def test_words(word: str, kinds: set[type]) -> None:
    assert set(kinds_named(word)) == kinds


def test_an_unknown_word_gets_the_list() -> None:
    assert "ippools" in unknown_kind("deployment")
