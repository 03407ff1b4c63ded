"""Staged policies: previews beside what is enforced, and what their coming and going costs."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.policy import CUT_ANNOTATION
from bus_schemas.resources import (
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
)
from bus_schemas.subjects import Fact
from tests.support.policy_changes import Compiler, absent, plugged, preview, stored, tiers
from tests.support.policy_worlds import namespace

WEB, DB = "app == 'web'", "app == 'db'"


def enforced(name: str, selector: str = WEB, **spec: Any) -> Fact:
    return stored(GlobalNetworkPolicy, name, {"selector": selector, "ingress": [], **spec})


def staged(name: str, selector: str = WEB, **spec: Any) -> Fact:
    return stored(StagedGlobalNetworkPolicy, name, {"selector": selector, "ingress": [], **spec})


def withdrawn(name: str) -> Fact:
    return stored(StagedGlobalNetworkPolicy, name, {"stagedAction": "Delete"})


def run(*facts: Fact) -> Compiler:
    pods = [*plugged("red/web", "10.0.0.1", app="web"), *plugged("red/db", "10.0.0.2", app="db")]
    return Compiler(namespace("red"), *pods, *facts)


def names(found: list[tuple[str, list[str], str]] | None) -> list[str] | None:
    """`staged/p` or `p`, in order."""
    if found is None:
        return None
    return [rule.replace("globalnetworkpolicy", "").strip("/") for _, rules, _ in found for rule in rules]


def previewed(compiler: Compiler, pod: str = "red/web") -> list[str] | None:
    return names(preview(compiler.pods[pod].ingress))


def in_force(compiler: Compiler, pod: str = "red/web") -> list[str] | None:
    return names(tiers(compiler.pods[pod].ingress))


def test_without_staged_policies_there_is_no_preview() -> None:
    compiler = run(enforced("p"))
    assert compiler.pods["red/web"].ingress.preview is None


def test_a_new_policy_stands_in_the_preview_at_its_order() -> None:
    compiler = run(enforced("a", order=1), enforced("c", order=3))
    assert compiler.change(staged("b", order=2)) == {"rules stagedglobalnetworkpolicy/b", "pod red/web"}
    assert in_force(compiler) == ["a", "c"]
    assert previewed(compiler) == ["a", "staged/b", "c"]
    assert compiler.pods["red/web"].egress.preview is None
    assert compiler.pods["red/db"].ingress.preview is None
    assert compiler.change(absent(StagedGlobalNetworkPolicy, "b")) == {
        "-rules stagedglobalnetworkpolicy/b",
        "pod red/web",
    }


def test_a_tier_of_staged_policies_alone_is_not_there() -> None:
    compiler = run(staged("p", tier="kube-admin"))
    assert tiers(compiler.pods["red/web"].ingress) == []
    assert preview(compiler.pods["red/web"].ingress) == [("kube-admin", ["stagedglobalnetworkpolicy/p"], "pass")]


def test_a_policy_of_that_name_is_replaced_wherever_it_stood() -> None:
    compiler = run(enforced("p", order=1), enforced("q", order=2), staged("p", order=3))
    assert in_force(compiler) == ["p", "q"]
    assert previewed(compiler) == ["q", "staged/p"]


def test_a_replacement_with_another_subject() -> None:
    compiler = run(enforced("p"), staged("p", DB))
    assert (in_force(compiler), previewed(compiler)) == (["p"], [])
    assert (in_force(compiler, "red/db"), previewed(compiler, "red/db")) == ([], ["staged/p"])
    assert compiler.change(staged("p", WEB)) == {"pod red/web", "pod red/db"}
    assert previewed(compiler) == ["staged/p"]


def test_a_replacement_of_another_direction() -> None:
    compiler = run(enforced("p"), staged("p", types=["Egress"]))
    web = compiler.pods["red/web"]
    assert preview(web.ingress) == []
    assert names(preview(web.egress)) == ["staged/p"]


def test_a_policy_that_would_be_deleted() -> None:
    compiler = run(enforced("p"), enforced("q"))
    assert compiler.change(withdrawn("p")) == {"pod red/web"}, "a deletion has no rules"
    assert (in_force(compiler), previewed(compiler)) == (["p", "q"], ["q"])
    assert compiler.change(absent(StagedGlobalNetworkPolicy, "p")) == {"pod red/web"}
    assert previewed(compiler) is None


def test_the_deletion_of_what_is_not_there() -> None:
    compiler = run(enforced("q"))
    assert compiler.change(withdrawn("p")) == set()
    assert compiler.change(enforced("p")) == {"rules globalnetworkpolicy/p", "pod red/web"}
    assert previewed(compiler) == ["q"]
    assert compiler.change(absent(GlobalNetworkPolicy, "p")) == {"-rules globalnetworkpolicy/p", "pod red/web"}
    assert previewed(compiler) is None


def test_from_deletion_to_replacement_and_back() -> None:
    compiler = run(enforced("p"), withdrawn("p"))
    assert previewed(compiler) == []
    assert compiler.change(staged("p")) == {"rules stagedglobalnetworkpolicy/p", "pod red/web"}
    assert previewed(compiler) == ["staged/p"]
    assert compiler.change(withdrawn("p")) == {"-rules stagedglobalnetworkpolicy/p", "pod red/web"}
    assert previewed(compiler) == []


@pytest.mark.parametrize("action", ["Learn", "Ignore"])
def test_what_is_not_tried(action: str) -> None:
    compiler = run(enforced("p"))
    assert compiler.change(staged("p", stagedAction=action)) == set()


def test_other_rules_of_a_staged_policy_touch_no_attachment() -> None:
    compiler = run(staged("p"))
    assert compiler.change(staged("p", ingress=[{"action": "Allow"}])) == {"rules stagedglobalnetworkpolicy/p"}


@pytest.mark.parametrize(
    ("kind", "staging", "spec"),
    [
        (NetworkPolicy, StagedNetworkPolicy, {"ingress": []}),
        (KubernetesNetworkPolicy, StagedKubernetesNetworkPolicy, {"podSelector": {}}),
    ],
)
def test_each_kind_stages_its_own(kind: type[Any], staging: type[Any], spec: dict[str, Any]) -> None:
    compiler = run(*(stored(k, "red/p", spec) for k in (NetworkPolicy, KubernetesNetworkPolicy, staging)))
    ((_, rules, default),) = preview(compiler.pods["red/web"].ingress) or []
    left = ({NetworkPolicy, KubernetesNetworkPolicy} - {kind}).pop()
    assert set(rules) == {f"{staging.TOKEN}/red/p", f"{left.TOKEN}/red/p"}
    assert default == "deny"


def test_equal_orders_are_decided_as_if_it_were_in_force() -> None:
    compiler = run(enforced("a"), enforced("b"), enforced("c"), staged("b"))
    assert previewed(compiler) == ["a", "staged/b", "c"]


def test_a_staged_policy_that_cannot_be_compiled_is_named() -> None:
    compiler = run(enforced("p"))
    assert "status stagedglobalnetworkpolicy/p" in compiler.change(staged("p", "app =="))


def test_connections_are_cut_by_annotation() -> None:
    def annotated(value: str) -> Fact:
        return stored(GlobalNetworkPolicy, "p", {"selector": WEB}, annotations={CUT_ANNOTATION: value})

    compiler = run(enforced("p"))
    assert not compiler.rules["globalnetworkpolicy/p"].cut
    assert not compiler.rules["globalnetworkpolicy/p"].keep
    assert compiler.change(annotated("cut")) == {"rules globalnetworkpolicy/p"}
    assert compiler.rules["globalnetworkpolicy/p"].cut
    assert compiler.change(annotated("keep")) == {"rules globalnetworkpolicy/p"}
    assert not compiler.rules["globalnetworkpolicy/p"].cut
    assert compiler.rules["globalnetworkpolicy/p"].keep
