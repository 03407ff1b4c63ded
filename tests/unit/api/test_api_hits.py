"""Figures of the nodes, summed and picked out."""

from __future__ import annotations

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.policy import Hit, Hits
from bus_schemas.resources import Metadata, NetworkPolicy, Resource, Tier
from services.api.hits import exists, hits, title

WEB, OTHER = "networkpolicy/default/web", "globalnetworkpolicy/web"


def message(node: str, *figures: Hit, since: float = 100.0) -> Hits:
    return Hits(node=NodeName(node), since=since, time=1000.0, hits=figures)


MESSAGES = [
    message("node2", Hit(rules=WEB, way="ingress", allowed=2, would_deny=1), since=50.0),
    message(
        "node1",
        Hit(rules=WEB, way="ingress", allowed=3, denied=4),
        Hit(rules=WEB, way="egress", passed=1),
        Hit(rules=OTHER, way="ingress", denied=9),
        Hit(rules="tier/default", way="ingress", denied=7),
    ),
]


def test_the_sum_of_all_nodes() -> None:
    rows = {(row["policy"], row["direction"]): row for row in hits(MESSAGES)}
    assert rows[WEB, "ingress"] == {
        "policy": WEB,
        "title": "NetworkPolicy/default/web",
        "namespace": "default",
        "name": "web",
        "direction": "ingress",
        "allowed": 5,
        "denied": 4,
        "passed": 0,
        "wouldAllow": 0,
        "wouldDeny": 1,
        "nodes": ["node1", "node2"],
        "since": 50.0,
    }
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"policy": "web"}, {OTHER, WEB}),
        ({"policy": WEB}, {WEB}),
        ({"policy": "networkpolicy/web"}, {WEB}),
        ({"policy": "profile"}, set()),
        ({"policy": "NetworkPolicy/default/web"}, {WEB}),
        ({"policy": "NetworkPolicy/other/web"}, set()),
        ({"policy": OTHER}, {OTHER}),
        ({"policy": "tier/default"}, {"tier/default"}),
        ({"namespace": "default"}, {WEB}),
        ({"node": "node2"}, {WEB}),
        ({"node": "node3"}, set()),
        ({"policy": "we"}, set()),
    ],
)
def test_some_of_it(asked: dict[str, str], found: set[str]) -> None:
    assert {row["policy"] for row in hits(MESSAGES, **asked)} == found


def test_titles() -> None:
    assert title("k8snetworkpolicy/default/web") == "NetworkPolicy/default/web"
    assert title("globalnetworkpolicy/web") == "GlobalNetworkPolicy/web"
    assert [title(each) for each in ("tier/default", "profile", "gone/x")] == ["tier/default", "profile", "gone/x"]


def test_a_policy_exists_before_it_decides_anything() -> None:
    def of(kind: type[Resource]) -> list[Resource]:
        policy = NetworkPolicy(metadata=Metadata(namespace="default", name="web"))
        tier = Tier(metadata=Metadata(name="early"))
        return [each for each in (policy, tier) if isinstance(each, kind)]

    for known in ("web", "networkpolicy/web", "NetworkPolicy/default/web", "tier/early", "profile"):
        assert exists(of, known, ""), known
    assert not exists(of, "web", "other")
    for unknown in ("other", "globalnetworkpolicy/web", "tier/late"):
        assert not exists(of, unknown, ""), unknown
