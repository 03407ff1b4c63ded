"""What an API server does with our definitions of Calico's kinds: defaults, refusals, changes.

On the stand-in, or on the real API server that TORTIE_KUBECONFIG names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.kube_bridge.errors import Refused
from tests.support.kube_cluster import KubeCluster, cluster

GROUPS = ("projectcalico.org/v3", "crd.projectcalico.org/v1")


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with cluster(tmp_path) as made:
        yield made


def pool(kube: KubeCluster, group: str, **spec: Any) -> dict[str, Any]:
    name = kube.name(group.partition(".")[0])
    return {"apiVersion": group, "kind": "IPPool", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("group", GROUPS)
async def test_what_is_not_said_has_the_default(kube: KubeCluster, group: str) -> None:
    made = await kube.create(pool(kube, group, cidr="10.244.0.0/16"))
    assert (made["spec"]["assignmentMode"], made["spec"]["ipipMode"]) == ("Automatic", "Never")


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("spec.ipipMode", {"cidr": "10.244.0.0/16", "ipipMode": "Sometimes"}),
    ("spec", {"cidr": "10.244.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}),
    ("spec.cidr", {"cidr": "169.254.0.0/16"}),
    ("spec.blockSize", {"cidr": "10.244.0.0/16", "blockSize": 129}),
]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(("place", "spec"), WRONG)
async def test_what_cannot_be_is_refused_and_the_place_named(
    kube: KubeCluster, group: str, place: str, spec: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as refusal:
        await kube.create(pool(kube, group, **spec))
    assert refusal.value.status == 422
    assert place in refusal.value.message


@pytest.mark.parametrize("group", GROUPS)
async def test_the_block_size_of_a_pool_stays(kube: KubeCluster, group: str) -> None:
    made = pool(kube, group, cidr="10.244.0.0/16", blockSize=26)
    await kube.create(made)
    with pytest.raises(Refused) as refusal:
        await kube.patch(made, {"spec": {"blockSize": 28}})
    assert refusal.value.status == 422
    await kube.patch(made, {"spec": {"natOutgoing": True}})
