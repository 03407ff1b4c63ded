"""Tiers of their own: where they stand, what they leave, and what a change of one costs."""

from __future__ import annotations

import pytest

from bus_schemas.resources import GlobalNetworkPolicy, Tier
from bus_schemas.subjects import Fact
from tests.support.policy_changes import Compiler, absent, plugged, stored, tiers
from tests.support.policy_worlds import namespace


def policy(name: str, tier: str, selector: str = "app == 'web'", order: float | None = None) -> Fact:
    return stored(
        GlobalNetworkPolicy,
        name,
        {"tier": tier, "order": order, "selector": selector, "ingress": [{"action": "Pass"}]},
    )


def tier(name: str, order: float | None = None, default: str = "Deny") -> Fact:
    return stored(Tier, name, {"order": order, "defaultAction": default})


def run(*facts: Fact) -> Compiler:
    return Compiler(
        namespace("red"),
        *plugged("red/web", "10.0.0.1", app="web"),
        *plugged("red/db", "10.0.0.2", app="db"),
        *facts,
    )


def order(compiler: Compiler, pod: str = "red/web") -> list[str]:
    return [name for name, _, _ in tiers(compiler.pods[pod].ingress)]


def test_tiers_stand_in_order_those_that_do_not_exist_last() -> None:
    names = ("zoo", "first", "later", "none", "kube-admin", "default", "kube-baseline", "ark")
    compiler = run(
        *(policy(f"p-{name}", name) for name in names),
        tier("first", 1),
        tier("later", 2_000_000, "Pass"),
        tier("none", None),
    )
    assert order(compiler) == ["first", "kube-admin", "default", "later", "kube-baseline", "none", "ark", "zoo"]
    defaults = {name: default for name, _, default in tiers(compiler.pods["red/web"].ingress)}
    assert {name for name, default in defaults.items() if default == "pass"} == {"kube-admin", "later", "kube-baseline"}


def test_a_tier_of_equal_order_stands_by_name() -> None:
    assert order(run(policy("p", "b"), policy("q", "a"), tier("a", 5), tier("b", 5))) == ["a", "b"]


def test_policies_stand_by_order_then_name_within_their_tier() -> None:
    compiler = run(policy("c", "a", order=1), policy("b", "a"), policy("a", "a"), policy("d", "a", order=0.5))
    ((_, rules, _),) = tiers(compiler.pods["red/web"].ingress)
    assert [rule.rpartition("/")[2] for rule in rules] == ["d", "c", "a", "b"]


@pytest.mark.parametrize("name", ["default", "kube-admin", "kube-baseline"])
def test_what_always_exists_does_not_change(name: str) -> None:
    compiler = run(policy("p", name))
    assert compiler.change(tier(name, 3, "Deny"), tier(name, 3, "Pass")) == set()
    assert compiler.change(absent(Tier, name)) == set()


def test_a_tier_that_moves_touches_only_those_that_it_governs() -> None:
    compiler = run(policy("p", "a"), policy("q", "b"), policy("r", "b", "app == 'db'"), tier("a", 1), tier("b", 2))
    assert order(compiler) == ["a", "b"]
    assert compiler.change(tier("a", 3)) == {"pod red/web"}
    assert order(compiler) == ["b", "a"]
    assert compiler.change(tier("a", 4)) == set(), "moved, but past nobody"
    assert compiler.change(tier("b", 2, "Pass")) == {"pod red/web", "pod red/db"}
    assert compiler.change(absent(Tier, "b")) == {"pod red/web", "pod red/db"}
    assert order(compiler) == ["a", "b"]
    assert compiler.change(absent(Tier, "a")) == set(), "both are undefined: by name, and deny"


def test_a_tier_without_policies_changes_nothing() -> None:
    compiler = run(policy("p", "a"))
    assert compiler.change(tier("other", 1)) == set()
    assert compiler.change(absent(Tier, "other")) == set()
    assert compiler.change(absent(Tier, "never-was")) == set()


def test_an_order_that_is_no_number_is_last() -> None:
    assert order(run(policy("p", "a"), policy("q", "b"), tier("a", float("nan")), tier("b", 1e300))) == ["b", "a"]


def test_a_policy_moves_between_tiers() -> None:
    compiler = run(policy("p", "a"), tier("a", 1), tier("b", 2))
    assert compiler.change(policy("p", "b")) == {"pod red/web"}
    assert order(compiler) == ["b"]
    assert compiler.change(tier("a", 9)) == set()
    assert compiler.change(tier("b", 9, "Pass")) == {"pod red/web"}
