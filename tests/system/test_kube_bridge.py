"""The bridge between a Kubernetes cluster and the bus: what is mirrored, and what is not taken away.

On the stand-in, or on the real API server that TORTIE_KUBECONFIG names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_schemas.resources import (
    Namespace,
    Pod,
)
from services.kube_bridge.mirror import MARK
from tests.support.kube_bridge import Replica, mirrored
from tests.support.kube_cluster import KubeCluster, cluster, pod, running
from tests.support.nats import Nats
from tests.support.waiting import eventually


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with cluster(tmp_path) as made:
        yield made


async def test_a_pod_through_its_life(nats: Nats, kube: KubeCluster) -> None:
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop", team="red")
        replica = Replica(nats, kube, tasks, "one")
        web = pod(shop, "web", labels={"app": "web"})
        await kube.create(web)
        await eventually(lambda: seen.get(Pod, shop, "web"))
        first = seen.get(Pod, shop, "web")
        assert (first.spec.node_name, first.status.pod_ips) == ("", ())
        assert first.metadata.labels == {"app": "web"}
        assert [port.name for port in first.ports] == ["http"]
        await kube.patch(web, running("10.1.2.3", "fd00::3"), status=True)
        await eventually(lambda: seen.get(Pod, shop, "web").status.pod_ips == ("10.1.2.3", "fd00::3"))
        await kube.patch(web, {"metadata": {"labels": {"app": "shop"}}})
        await eventually(lambda: seen.get(Pod, shop, "web").metadata.labels == {"app": "shop"})
        await kube.patch(web, running(phase="Succeeded"), status=True)
        await eventually(lambda: seen.get(Pod, shop, "web").status.phase == "Succeeded")
        await kube.delete(web)
        await eventually(lambda: seen.get(Pod, shop, "web") is None)
        assert seen.get(Namespace, "", shop).metadata.labels["team"] == "red"
        assert first.metadata.annotations[MARK] == seen.get(Namespace, "", "kube-system").metadata.uid
        await replica.stop()
