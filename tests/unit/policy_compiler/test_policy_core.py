"""What one change costs in messages, and how faults come and go."""

from __future__ import annotations

import msgspec

from bus_schemas.resources import NetworkPolicy
from bus_schemas.subjects import Fact
from services.api.standing import STANDING
from services.policy_compiler.core import Core
from services.policy_compiler.groups import SegmentKey
from services.policy_compiler.selection import identity
from tests.support.expanders import gone
from tests.support.policy_worlds import desired, endpoint, manifests, namespace, pod

NONE = {"host endpoints": 0, "network sets": 0, "directions": 0}
WEB = 'app == "web"'
POLICY = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: %s}
spec:
  selector: app == "db"
  ingress: [{action: %s, source: {selector: app == "web"}}]
"""


def run() -> Core:
    core = Core()
    core.apply(namespace("red"))
    for n, app in enumerate(("web", "db", "other")):
        core.apply(pod(f"red/{app}", {"app": app}))
        core.apply(endpoint(f"red/{app}", f"10.0.0.{n + 1}"))
    for fact in manifests(POLICY % ("one", "Allow")):
        core.apply(fact)
    core.flush()
    return core


def change(core: Core, *facts: Fact) -> tuple[set[str], set[str], set[str]]:
    """Groups, rules and attachments that change."""
    for fact in facts:
        core.apply(fact)
    changes = core.flush()
    return (
        {key.group for key in changes.groups},
        set(changes.rules),
        {key.name for key in changes.attachments},
    )


def test_first_flush_is_everything() -> None:
    core = Core()
    assert core.is_blank
    assert not core.flush()
    core = run()
    assert not core.is_blank
    assert core.sizes == {"endpoints": 3, "policies": 1, "selections": 2, "groups": 1, "attachments": 3} | NONE


def test_what_every_cluster_has_is_no_wish() -> None:
    """Else an emptied bus would look like the wish to have no policy any more, as soon as the api has started."""
    core = Core()
    for resource in STANDING:
        core.apply(desired(resource))
    assert core.is_blank
    assert not core.flush()
    assert core.is_blank


def test_a_fact_told_again_changes_nothing() -> None:
    core = run()
    assert change(core, pod("red/web", {"app": "web"}), *manifests(POLICY % ("one", "Allow"))) == (set(), set(), set())


def test_a_label_changes_one_group_and_no_attachment() -> None:
    assert change(run(), pod("red/other", {"app": "web"})) == ({identity(WEB)}, set(), set())


def test_a_label_that_nobody_asks_for_changes_nothing() -> None:
    assert change(run(), pod("red/other", {"app": "other", "x": "y"})) == (set(), set(), set())


def test_a_label_can_bring_an_endpoint_under_a_policy() -> None:
    assert change(run(), pod("red/other", {"app": "db"})) == (set(), set(), {"other"})


def test_other_rules_touch_no_attachment() -> None:
    rules = {"globalnetworkpolicy/one"}
    assert change(run(), *manifests(POLICY % ("one", "Deny"))) == (set(), rules, set())


def test_a_second_policy_shares_the_group() -> None:
    core = run()
    (second,) = manifests(POLICY % ("two", "Deny"))
    rules = {"globalnetworkpolicy/two"}
    assert change(core, second) == (set(), rules, {"db"})
    assert change(core, gone(second)) == (set(), rules, {"db"})


def test_replaced_in_one_flush_by_a_policy_of_another_name() -> None:
    core = run()
    (first,), (second,) = manifests(POLICY % ("one", "Allow")), manifests(POLICY % ("two", "Allow"))
    groups, rules, attachments = change(core, gone(first), second)
    assert groups == set()
    assert rules == {"globalnetworkpolicy/one", "globalnetworkpolicy/two"}
    assert attachments == {"db"}


def test_the_last_policy_takes_its_group_away() -> None:
    core = run()
    for fact in manifests(POLICY % ("one", "Allow")):
        core.apply(gone(fact))
    changes = core.flush()
    assert changes.groups == {SegmentKey(identity(WEB), 0): None}
    assert set(changes.rules.values()) == {None}


def test_a_new_address_changes_the_group_alone() -> None:
    assert change(run(), endpoint("red/web", "10.0.0.77")) == ({identity(WEB)}, set(), set())


def test_address_and_label_change_at_once() -> None:
    core = run()
    assert change(core, pod("red/other", {"app": "web"}), endpoint("red/other", "10.0.0.88"))[0] == {identity(WEB)}
    assert change(core, pod("red/other"), endpoint("red/other", "10.0.0.89"))[0] == {identity(WEB)}
    assert change(core, endpoint("red/other", "10.0.0.90")) == (set(), set(), set())


def test_an_order_changes_attachments_and_no_rules() -> None:
    (policy,) = manifests((POLICY % ("one", "Allow")).replace("spec:", "spec:\n  order: 7"))
    assert change(run(), policy) == (set(), set(), set()), "one policy alone stands the same wherever it stands"


def test_faults_come_and_go() -> None:
    core = run()

    def broken(selector: str) -> Fact:
        rule = {"action": "Allow", "source": {"selector": selector}}
        value = {
            "type": "networkpolicy/1",
            "metadata": {"name": "p", "namespace": "red"},
            "spec": {"ingress": [rule]},
        }
        return desired(msgspec.convert(value, NetworkPolicy))

    core.apply(broken("a =="))
    (raised,) = core.flush().raised
    assert raised.object == "networkpolicy/red/p"
    assert raised.message.startswith("spec.ingress[0].source.selector: ")
    assert core.faults == [raised]
    core.apply(broken("a =="))
    assert not core.flush()
    core.apply(broken("a"))
    changes = core.flush()
    assert changes.cleared == (raised,)
    assert len(changes.raised) == 1
    core.apply(gone(broken("a")))
    assert len(core.flush().cleared) == 1
    assert core.faults == []


def test_a_malformed_address_is_left_out_and_named() -> None:
    core = run()
    core.apply(endpoint("red/web", "10.0.0.1", "10.0.0.300"))
    changes = core.flush()
    assert [fault.object for fault in changes.raised] == ["Endpoint/node1/red/web"]
    assert not changes.groups
    core.apply(gone(endpoint("red/web")))
    assert len(core.flush().cleared) == 1
