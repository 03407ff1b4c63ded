from __future__ import annotations

import pytest

from tortie.lab import samples, topology
from tortie.lab.errors import ScenarioFault


@pytest.mark.parametrize("nodes", range(1, samples.MAX_NODES + 1))
def test_a_sample_of_any_size_is_a_network(nodes: int) -> None:
    sample = samples.cluster(nodes)
    assert len(sample.nodes) == nodes
    topology.plan("x", {name: spec.addresses for name, spec in sample.nodes.items()})


def test_three_nodes_lie_in_two_subnets() -> None:
    sample = samples.cluster(3)
    assert [spec.address for spec in sample.nodes.values()] == ["10.0.0.11/24", "10.0.0.12/24", "10.0.9.13/24"]
    assert {pod.node for pod in sample.pods.values()} == set(sample.nodes)


@pytest.mark.parametrize("nodes", [0, -1, 21])
def test_sizes_that_are_refused(nodes: int) -> None:
    with pytest.raises(ScenarioFault):
        samples.cluster(nodes)
