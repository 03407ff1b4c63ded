from __future__ import annotations

from pathlib import Path

import pytest

from bus_schemas.ids import PodKey
from tests.support.lab import scenario_files
from tortie.lab import scenario
from tortie.lab.errors import ScenarioFault
from tortie.lab.scenario import Apply, Delete, Label, Place, Reference, Stop, Traffic

HEAD = "name: x\nnodes: {n1: {address: 10.0.0.5/24}}\npods: {default/a: {node: n1, listen: [tcp/80]}}\n"


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: path.stem)
def test_every_scenario_is_understood(path: Path) -> None:
    read = scenario.read(path.read_text())
    assert read.steps
    assert all(step.expect != scenario.Expect() for step in read.steps)


def test_actions_keep_the_order_of_the_file() -> None:
    one = scenario.read(HEAD + "steps: [{do: x, delete: [Kind/n], label: {pod/default/a: {l: null}}, apply: text}]")
    other = scenario.read(HEAD + "steps: [{do: x, apply: text, stop: [default/a], delete: [Kind/n]}]")
    assert [type(action) for action in one.steps[0].actions] == [Delete, Label, Apply]
    assert [type(action) for action in other.steps[0].actions] == [Apply, Stop, Delete]


def test_a_label_that_is_null_goes() -> None:
    read = scenario.read(HEAD + "steps: [{do: x, label: {namespace/default: {purpose: null, team: a}}}]")
    assert read.steps[0].actions == (Label({Reference("namespace", "", "default"): {"purpose": None, "team": "a"}}),)


def test_on_is_a_key_and_not_a_truth_value() -> None:
    wire = "{on: n1, traffic: default/a -> ip:203.0.113.7, seen: plain}"
    read = scenario.read(HEAD + f"steps: [{{do: x, expect: {{wire: [{wire}]}}}}]")
    assert read.steps[0].expect.wire[0].on == "n1"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a/x -> b/y tcp/80", Traffic(Place("pod", "a/x"), Place("pod", "b/y"), "tcp", 80)),
        ("a/x -> b/y", Traffic(Place("pod", "a/x"), Place("pod", "b/y"))),
        ("a/x -> b/y icmp", Traffic(Place("pod", "a/x"), Place("pod", "b/y"))),
        ("node:n1 -> ip:203.0.113.7 udp/53", Traffic(Place("node", "n1"), Place("ip", "203.0.113.7"), "udp", 53)),
        ("a/x -> ip:2001:db8::1", Traffic(Place("pod", "a/x"), Place("ip", "2001:db8::1"))),
    ],
)
def test_traffic(text: str, meaning: Traffic) -> None:
    assert scenario.traffic(text) == meaning


@pytest.mark.parametrize("text", ["", "a/x", "a/x -> b", "a/x -> b/y tcp", "a/x -> b/y tcp/0", "a/x -> b/y http/80"])
def test_traffic_that_is_none(text: str) -> None:
    with pytest.raises(ScenarioFault):
        scenario.traffic(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nodes: [", "not YAML"),
        ("name: x", "nodes"),
        ("name: x\nnodes: {}", "at least one"),
        ("name: x\nnodes: {n1: {addres: 10.0.0.5/24}}", "addres"),
        ("name: x\nnodes: {n1: {address: 10.0.0.5/24}}\npods: {a: {node: n1}}", "<namespace>/<name>"),
        ("name: x\nnodes: {n1: {address: 10.0.0.5/24}}\npods: {d/a: {node: n2}}", "pods.d/a.node"),
        (HEAD.replace("tcp/80", "tcp"), "a port is written"),
        (HEAD + "steps: [{do: it, expect: {allow: [default/a -> default/b]}}]", "step 1 (it)"),
        (HEAD + "steps: [{do: it, expect: {routes: {n9: [{dst: default}]}}}]", "'n9'"),
        (HEAD + "steps: [{do: it, delete: [Pool]}]", "Kind/namespace/name"),
        (HEAD + "steps: [{do: it, expect: {alow: []}}]", "alow"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ScenarioFault, match=r"^file\.yaml: ") as fault:
        scenario.read(text, "file.yaml")
    assert told in str(fault.value)


def test_pods_that_start_later_may_be_spoken_of() -> None:
    start = "{do: x, start: {edge/p: {node: n1}}, expect: {allow: [edge/p -> default/a tcp/80]}}"
    read = scenario.read(HEAD + f"steps: [{start}]")
    (action,) = read.steps[0].actions
    assert isinstance(action, scenario.Start)
    assert list(action.pods) == [PodKey("edge", "p")]
