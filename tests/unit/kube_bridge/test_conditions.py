"""What Kubernetes is told, and when there is nothing to tell."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import IPPool, Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.status import MODE, POLICY_ONLY, Status
from services.kube_bridge import conditions
from services.kube_bridge.agents import Agents
from services.kube_bridge.conditions import Agent
from services.kube_bridge.core import Trouble
from services.kube_bridge.mirror import Seen
from services.kube_bridge.views import Condition
from tests.support.kube_cluster import source_of

POOLS = source_of("projectcalico.org/v3", "IPPool")
NODES = source_of("v1", "Node")
NOW = "2026-01-02T03:04:05Z"
GRACE_S = 30.0


def pool(*, disabled: bool = False, said: tuple[Condition, ...] = ()) -> Seen:
    resource = IPPool(metadata=Metadata(name="a"), spec=IPPoolSpec(cidr="10.0.0.0/16", disabled=disabled))
    return Seen(POOLS, ("", "a"), ("", "a"), "u", "7", 3, resource, conditions=said)


def node(*said: Condition) -> Seen:
    return Seen(NODES, ("", "n1"), ("", "n1"), "u", "7", 1, None, conditions=said)


def written(patch: dict[str, Any] | None) -> tuple[Condition, ...]:
    assert patch is not None
    return tuple(msgspec.convert(one, Condition) for one in patch["status"]["conditions"])


def test_what_is_written_is_not_written_again() -> None:
    wanted = conditions.conditions(pool(), None, None, is_policy=False)
    patch = conditions.conditions_patch(pool(), wanted, NOW)
    said = written(patch)
    assert {one.type: one.status for one in said} == {"Accepted": "True", "Allocatable": "True"}
    assert all((one.lastTransitionTime, one.observedGeneration) == (NOW, 3) for one in said)
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7"}
    again = pool(said=said)
    assert (
        conditions.conditions_patch(again, conditions.conditions(again, None, None, is_policy=False), "later") is None
    )


def test_others_conditions_stay_and_times_move_with_the_status() -> None:
    foreign = Condition("Theirs", "True", "R", "m", 1, "then")
    said = (foreign, Condition("Accepted", "True", "Valid", "", 2, "then"))
    seen = pool(disabled=True, said=said)
    after = written(conditions.conditions_patch(seen, conditions.conditions(seen, None, None, is_policy=False), NOW))
    assert after[0] == foreign
    assert after[1] == Condition("Accepted", "True", "Valid", "", 3, "then")
    assert (after[2].type, after[2].status, after[2].reason, after[2].lastTransitionTime) == (
        "Allocatable",
        "False",
        "Disabled",
        NOW,
    )


def test_what_is_not_accepted_or_not_compiled() -> None:
    trouble = Trouble(POOLS, ("", "a"), "u", "invalid", ("spec: wrong",), "nothing of it is in force")
    said = conditions.conditions(pool(), trouble, None, is_policy=True)
    assert [(one.type, one.status, one.reason) for one in said] == [
        ("Accepted", "False", "Invalid"),
        ("Programmed", "False", "NotAccepted"),
        ("Allocatable", "False", "NotAccepted"),
    ]
    assert said[0].message == "spec: wrong (nothing of it is in force)"
    faults = PolicyStatus(policy="p", faults=("x" * 3000,))
    programmed = conditions.conditions(pool(), None, faults, is_policy=True)[1]
    assert (programmed.status, programmed.reason, len(programmed.message)) == ("False", "NotCompiled", 1024)


@pytest.mark.parametrize(
    ("agent", "now", "expected"),
    [
        (None, 100.0, None),
        (Agent(True, True, (), 100.0), 100.0, ("False", "TortieIsUp")),
        (Agent(True, False, ("bus: away",), 100.0), 110.0, None),
        (Agent(True, False, ("bus: away",), 100.0), 131.0, ("True", "TortieIsNotReady")),
        (Agent(False, False, (), 100.0), 129.0, None),
        (Agent(False, False, (), 100.0), 130.0, ("True", "TortieIsDown")),
    ],
)
def test_a_node(agent: Agent | None, now: float, expected: tuple[str, str] | None) -> None:
    patch = conditions.node_patch(node(), agent, now, NOW, GRACE_S)
    if expected is None:
        assert patch is None
        return
    (said,) = written(patch)
    assert (said.status, said.reason, said.lastHeartbeatTime) == (*expected, NOW)
    assert conditions.node_patch(node(said), agent, now, "later", GRACE_S) is None


def test_signs_of_life() -> None:
    def sign(ready: bool, *causes: str) -> Status:
        return Status(component="node_dataplane", instance="n1", started=0, ready=ready, causes=causes)

    agents = Agents()
    assert agents.hear(("ipam", "n1"), None, 0) is None
    assert agents.hear(("node_dataplane", "n1"), None, 0) is None  # never heard of: none of ours
    assert agents.hear(("node_dataplane", "n1"), sign(True), 1) == "n1"
    assert agents.hear(("node_dataplane", "n1"), sign(True), 6) is None
    assert agents.hear(("node_dataplane", "n1"), sign(False, "a"), 11) == "n1"
    assert agents.hear(("node_dataplane", "n1"), sign(False, "b"), 16) == "n1"
    assert agents.get("n1") == Agent(True, False, ("b",), 11)  # since it ceased to be ready
    assert agents.hear(("node_dataplane", "n1"), None, 40) == "n1"
    assert agents.unwell() == ["n1"]
    assert agents.hear(("node_dataplane", "n1"), sign(True), 50) == "n1"
    assert agents.unwell() == []


def test_an_agent_that_has_only_policy_says_nothing_about_the_network() -> None:
    said = Status(component="node_dataplane", instance="n1", started=0, ready=False, detail={MODE: POLICY_ONLY})
    agents = Agents()
    assert agents.hear(("node_dataplane", "n1"), said, 1) is None
    assert agents.hear(("node_dataplane", "n1"), None, 40) is None
    assert agents.get("n1") is None
    assert agents.unwell() == []
