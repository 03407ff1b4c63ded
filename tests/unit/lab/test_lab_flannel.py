"""Flannel's layout as `ip` commands, and what a scenario says about it."""

from __future__ import annotations

import pytest

from bus_schemas.ids import PodKey
from tortie.lab import scenario
from tortie.lab.errors import CannotDo, ScenarioFault
from tortie.lab.flannel import Flannel, link_name
from tortie.lab.scenario import Kill, Revive

NODES = {"n1": ("10.0.0.1/24", "fd00:10::1/64"), "n2": ("10.0.0.2/24", "fd00:10::2/64"), "n3": ("10.0.0.3/24",)}
HEAD = "name: x\nnodes: {n1: {address: 10.0.0.5/24}}\n"


def test_every_node_knows_the_way_to_every_other_one() -> None:
    flannel = Flannel(NODES)
    assert [str(net) for net in flannel.subnets["n2"]] == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    lines = flannel.interior("n1").splitlines()
    assert "addr add 10.244.0.1/24 dev cni0" in lines
    assert "addr add 10.244.0.0/32 dev flannel.1" in lines
    assert "route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink" in lines
    assert "route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink" in lines
    macs = {line.split()[4] for line in lines if line.startswith("neigh")}
    entries = flannel.forwarding("n1").splitlines()
    assert {line.split()[2] for line in entries} == macs
    assert len(entries) == 3, "n2 over both families, n3 over one"
    assert [line for line in entries if line.endswith("dev flannel.1 dst 10.0.0.3 self permanent")]


def test_a_pod_gets_the_next_addresses_of_its_node_or_those_it_asks_for() -> None:
    flannel = Flannel(NODES)
    assert flannel.give("n1", "a") == ("10.244.0.2", "fd00:10:244::2")
    assert flannel.give("n1", "b") == ("10.244.0.3", "fd00:10:244::3")
    assert flannel.give("n3", "c", ["10.244.2.9"]) == ("10.244.2.9",)
    with pytest.raises(CannotDo, match="not in"):
        flannel.give("n3", "d", ["10.244.1.9"])
    with pytest.raises(CannotDo, match="another pod"):
        flannel.give("n3", "d", ["10.244.2.9"])
    assert len(link_name("tl-x-default..a")) == 12


def test_a_scenario_on_flannels_network() -> None:
    text = HEAD + "network: flannel\npods: {default/a: {node: n1, addresses: [10.244.0.9]}}\n"
    read = scenario.read(text + "steps: [{do: x, kill: [agent-n1]}, {do: y, revive: [agent-n1]}]")
    assert read.network == "flannel"
    assert read.pods[PodKey("default", "a")].addresses == ("10.244.0.9",)
    assert [step.actions for step in read.steps] == [(Kill(("agent-n1",)),), (Revive(("agent-n1",)),)]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "network: weave\n",
        HEAD + "pods: {default/a: {node: n1, addresses: [10.244.0.9]}}\n",
        "name: x\nnetwork: flannel\nnodes: {n1: {address: 10.0.0.5/24, external: {routes: {10.9.0.0/16: n1}}}}\n",
    ],
)
def test_what_does_not_go_together(text: str) -> None:
    with pytest.raises(ScenarioFault):
        scenario.read(text)
