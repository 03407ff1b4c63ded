"""Directions that name many rules: written once, by contents, while an attachment names them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bus_schemas.policy import Attachment, Direction
from bus_schemas.resources import GlobalNetworkPolicy, HostEndpoint, StagedGlobalNetworkPolicy
from bus_schemas.shared_directions import closed, direction_id, rules_named, unfold
from bus_schemas.subjects import Fact
from services.policy_compiler.core import Core
from services.policy_compiler.directions import LONGEST
from services.policy_compiler.references import names
from tests.support.policy_changes import Compiler, absent, plugged, stored
from tests.support.policy_worlds import namespace

FEW = 3
"""The most that stand in an attachment, in a small world."""


def policy(n: int, selector: str = "all()", **spec: object) -> Fact:
    given = {"selector": selector, "types": ["Ingress"], "ingress": [{"action": "Allow"}], **spec}
    return stored(GlobalNetworkPolicy, f"p{n}", given)


def policies(count: int, selector: str = "all()") -> Iterator[Fact]:
    return (policy(n, selector) for n in range(count))


def run(*facts: Fact, longest: int = FEW) -> Compiler:
    world = (namespace("red"), *plugged("red/web", "10.0.0.1", app="web"), *plugged("red/db", "10.0.0.2", app="db"))
    return Compiler(*world, *facts, core=Core(longest_direction=longest))


def whole(compiler: Compiler, pod: str) -> Attachment:
    return unfold(compiler.pods[pod], {id: shared.direction for id, shared in compiler.directions.items()})  # type: ignore[misc]


def named(compiler: Compiler, pod: str) -> list[str]:
    return [id.rpartition("/")[2] for id in rules_named(whole(compiler, pod).ingress)]


def test_nothing_is_shared_up_to_the_threshold() -> None:
    compiler = run(*policies(LONGEST), longest=LONGEST)
    assert not compiler.directions
    assert compiler.pods["red/web"] == whole(compiler, "red/web")
    compiler.change(policy(LONGEST))
    assert len(compiler.directions) == 1
    assert len(named(compiler, "red/web")) == LONGEST + 1


def test_above_it_the_attachments_only_name_it() -> None:
    compiler = run(*policies(FEW + 1))
    (id,) = compiler.directions
    assert compiler.directions[id].direction == whole(compiler, "red/web").ingress
    assert id == direction_id(compiler.directions[id].direction)
    for pod in ("red/web", "red/db"):
        assert compiler.pods[pod].ingress == Direction(shared=id), "and nothing else"  # type: ignore[arg-type]
        assert compiler.pods[pod].egress == Direction(default="allow"), "the other way is short"
        assert named(compiler, pod) == ["p0", "p1", "p2", "p3"]


def test_up_over_it_and_down_again() -> None:
    compiler = run(*policies(FEW))
    pods = dict(compiler.pods)
    assert not compiler.directions
    assert len(compiler.change(policy(FEW))) == 4, "rules, direction, two pods"
    (id,) = compiler.directions
    told = compiler.change(absent(GlobalNetworkPolicy, f"p{FEW}"))
    assert told == {f"-rules globalnetworkpolicy/p{FEW}", f"-direction {id}", "pod red/web", "pod red/db"}
    assert compiler.pods == pods


def test_one_more_policy_is_another_direction() -> None:
    compiler = run(*policies(FEW + 1))
    (before,) = compiler.directions
    told = compiler.change(policy(7))
    (after,) = compiler.directions
    assert told == {
        "rules globalnetworkpolicy/p7",
        f"direction {after}",
        f"-direction {before}",
        "pod red/web",
        "pod red/db",
    }


def test_other_rules_of_its_policies_change_neither_direction_nor_attachment() -> None:
    compiler = run(*policies(FEW + 1))
    assert compiler.change(policy(0, ingress=[{"action": "Deny"}])) == {"rules globalnetworkpolicy/p0"}


def test_what_different_selectors_lead_to_is_one_message_when_it_says_the_same() -> None:
    """The pods match different selections; what counts is the contents."""
    compiler = run(*policies(FEW), policy(FEW, "app in {'web', 'db'}"), *plugged("red/other", "10.0.0.3", app="other"))
    assert len(compiler.directions) == 1
    assert compiler.pods["red/other"].ingress.shared == ""
    told = compiler.change(policy(FEW, "has(app)"))
    assert told == {"pod red/other"}
    assert len(compiler.directions) == 1


def test_it_is_there_while_somebody_names_it() -> None:
    compiler = run(*policies(FEW + 1, "app == 'web'"))
    (id,) = compiler.directions
    one_more = plugged("red/web2", "10.0.0.3", app="web")
    assert compiler.change(*one_more) == {"pod red/web2"}
    gone = [fact._replace(value=None) for fact in one_more]
    assert compiler.change(*gone) == {"-pod red/web2"}
    away = plugged("red/web", "10.0.0.1", app="db")
    assert compiler.change(*away) == {"pod red/web", f"-direction {id}"}
    assert compiler.change(*plugged("red/web", "10.0.0.1", app="web")) == {"pod red/web", f"direction {id}"}


def test_many_policies_whose_direction_is_kept_between_flushes() -> None:
    """So many that what comes of them is remembered: what is remembered may not be what is gone."""
    compiler = run(*policies(LONGEST + 8, "app == 'web'"), longest=LONGEST)
    (id,) = compiler.directions
    assert compiler.change(*plugged("red/web", "10.0.0.1", app="none")) == {"pod red/web", f"-direction {id}"}
    assert compiler.change(*plugged("red/db", "10.0.0.2", app="web")) == {"pod red/db", f"direction {id}"}
    assert compiler.change(*plugged("red/web", "10.0.0.1", app="web")) == {"pod red/web"}
    assert compiler.core.sizes["directions"] == 1


def test_a_preview_counts_too() -> None:
    compiler = run(*policies(2))
    assert not compiler.directions
    staged = stored(StagedGlobalNetworkPolicy, "staged", {"selector": "all()", "types": ["Ingress"]})
    compiler.change(staged)
    assert len(compiler.directions) == 1
    assert whole(compiler, "red/web").ingress.preview is not None


@pytest.mark.parametrize("longest", [FEW, 0])
def test_host_endpoints_share_with_each_other_and_nothing_is_left_over(longest: int) -> None:
    def hep(name: str) -> Fact:
        spec = {"node": "n1", "interfaceName": name, "expectedIPs": ["192.0.2.1"]}
        return stored(HostEndpoint, name, spec, labels={"role": "edge"})

    compiler = run(hep("eth0"), hep("eth1"), *policies(FEW + 1, "role == 'edge'"), longest=longest)
    (id,) = compiler.directions
    assert [host.ingress for host in compiler.hosts.values()] == [Direction(shared=id)] * 2  # type: ignore[arg-type]
    assert compiler.change(absent(HostEndpoint, "eth0")) == {"-host n1/eth0"}
    assert f"-direction {id}" in compiler.change(absent(HostEndpoint, "eth1"))
    assert not compiler.directions
    assert compiler.core.sizes["directions"] == 0


def test_attachments_name_it_and_it_names_the_rules() -> None:
    """What the writers of several shards must know of each other's keys."""
    compiler = run(*policies(FEW + 1))
    (id,) = compiler.directions
    assert set(names(compiler.pods["red/web"])) == {id}
    assert set(names(compiler.directions[id])) == set(compiler.rules)


def test_what_is_not_known_is_closed() -> None:
    compiler = run(*policies(FEW + 1))
    attachment = compiler.pods["red/web"]
    assert unfold(attachment, {}).ingress == closed(attachment.ingress.shared)
    assert not set(rules_named(unfold(attachment, {}).ingress)) & compiler.rules.keys()
