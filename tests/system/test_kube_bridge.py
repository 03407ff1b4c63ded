"""The bridge between a Kubernetes cluster and the bus: what is mirrored, what is taken away, and who does it.

On the stand-in, or on the real API server that TORTIE_KUBECONFIG names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_schemas.resources import (
    EndpointSlice,
    GlobalNetworkPolicy,
    IPPool,
    KubernetesNetworkPolicy,
    Metadata,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Service,
    ServiceAccount,
    Tier,
)
from bus_schemas.subjects import DESIRED
from services.kube_bridge.mirror import MARK
from services.kube_bridge.service import LEASE
from tests.support.kube_bridge import Replica, eventually, mirrored
from tests.support.kube_cluster import KubeCluster, calico, cluster, node, node_status, pod, policy, running
from tests.support.nats import Nats


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


async def test_what_changes_without_meaning_anything_is_not_written(nats: Nats, kube: KubeCluster) -> None:
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop")
        web, other = pod(shop, "web"), pod(shop, "other")
        await kube.create(web)
        replica = Replica(nats, kube, tasks, "one")
        await eventually(lambda: seen.get(Pod, shop, "web") and replica.idle)
        before = seen.writes
        await kube.patch(web, {"metadata": {"annotations": {"example.com/seen": "now"}}})
        await kube.create(other)  # whoever sees this has seen the annotation, too
        await eventually(lambda: seen.get(Pod, shop, "other"))
        assert seen.writes == before + 1 or kube.real
        await replica.stop()


async def test_pods_of_the_host_and_nodes(nats: Nats, kube: KubeCluster) -> None:
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop")
        name = kube.name("node1")
        one = node(name, **{"projectcalico.org/IPv4Address": "192.0.2.7/24", "projectcalico.org/ASNumber": "64600"})
        await kube.create(one)
        await kube.patch(one, node_status("192.0.2.7"), status=True)
        await kube.create(pod(shop, "proxy", node=name, hostNetwork=True))
        replica = Replica(nats, kube, tasks, "one")
        await eventually(lambda: seen.get(Pod, shop, "proxy"))
        assert seen.get(Pod, shop, "proxy").spec.host_network
        assert seen.get(Pod, shop, "proxy").spec.node_name == name
        mirrored_node = seen.get(Node, "", name)
        assert mirrored_node.address(4) == "192.0.2.7/24"
        assert mirrored_node.spec.bgp.as_number == 64600
        assert mirrored_node.spec.pod_cidrs == ("10.99.0.0/24",)
        assert [address.address for address in mirrored_node.spec.addresses] == ["192.0.2.7"]
        await replica.stop()


async def test_services_slices_accounts_and_policies(nats: Nats, kube: KubeCluster) -> None:
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop")
        meta = {"namespace": shop, "name": "web"}
        await kube.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        spec = {"selector": {"app": "web"}, "ports": ports}
        await kube.create({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        labels = {"kubernetes.io/service-name": "web"}
        await kube.create(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.9.8.7"], "conditions": {"ready": True}}],
                "ports": ports,
            }
        )
        await kube.create(policy(shop, "web", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}))
        replica = Replica(nats, kube, tasks, "one")
        await eventually(lambda: seen.get(KubernetesNetworkPolicy, shop, "web"))
        await eventually(lambda: seen.get(EndpointSlice, shop, "web"))
        assert seen.get(EndpointSlice, shop, "web").service == "web"
        assert seen.get(EndpointSlice, shop, "web").spec.endpoints[0].addresses == ("10.9.8.7",)
        assert seen.get(Service, shop, "web").spec.selector == {"app": "web"}
        assert seen.get(ServiceAccount, shop, "web")
        await replica.stop()


async def test_calicos_kinds_in_both_groups(nats: Nats, kube: KubeCluster) -> None:
    await kube.needs("projectcalico.org/v3", "IPPool")
    await kube.needs("crd.projectcalico.org/v1", "GlobalNetworkPolicy")
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop")
        pool, deny = kube.name("pool"), kube.name("deny")
        rules = {"selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Deny"}]}
        await kube.create(calico("IPPool", pool, {"cidr": "10.64.0.0/16", "natOutgoing": True}))
        await kube.create(calico("NetworkPolicy", "web", rules, namespace=shop))
        await kube.create(calico("GlobalNetworkPolicy", f"default.{deny}", rules, stored=True))
        replica = Replica(nats, kube, tasks, "one")
        await eventually(lambda: seen.get(IPPool, "", pool) and seen.get(GlobalNetworkPolicy, "", deny))
        await eventually(lambda: seen.get(NetworkPolicy, shop, "web"))
        assert seen.get(IPPool, "", pool).spec.nat_outgoing
        again = calico("GlobalNetworkPolicy", deny, {**rules, "order": 7})
        await kube.create(again)
        await eventually(lambda: seen.get(GlobalNetworkPolicy, "", deny).spec.order == 7)  # the public group counts
        await kube.delete(again)
        await eventually(lambda: seen.get(GlobalNetworkPolicy, "", deny).spec.order is None)  # and the other is there
        await replica.stop()


async def test_what_was_deleted_meanwhile_is_gone_and_what_others_wrote_is_not(nats: Nats, kube: KubeCluster) -> None:
    async with mirrored(nats) as (seen, bus, tasks):
        shop = await kube.namespace("shop")
        kept, gone = pod(shop, "kept"), pod(shop, "gone")
        await kube.create(kept)
        await kube.create(gone)
        await kube.create(policy(shop, "only", {"podSelector": {}}))
        foreign = Tier(metadata=Metadata(name=kube.name("by-hand")))
        await bus.put(DESIRED[Tier], foreign.key, foreign)
        first = Replica(nats, kube, tasks, "one")
        await eventually(lambda: seen.of(Pod, shop) == {"kept", "gone"} and first.idle)
        await eventually(lambda: seen.get(KubernetesNetworkPolicy, shop, "only"))
        await first.stop()
        await kube.delete(gone)
        await kube.delete(policy(shop, "only", {}))
        second = Replica(nats, kube, tasks, "two")
        await eventually(lambda: seen.of(Pod, shop) == {"kept"})
        await eventually(lambda: seen.get(KubernetesNetworkPolicy, shop, "only") is None)
        assert seen.get(Tier, "", foreign.metadata.name) == foreign
        await second.stop()


async def test_the_other_bridge_takes_over_and_nothing_is_missed(nats: Nats, kube: KubeCluster) -> None:
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop")
        gone = pod(shop, "gone")
        await kube.create(gone)
        first = Replica(nats, kube, tasks, "one")
        await eventually(lambda: first.idle and seen.get(Pod, shop, "gone"))
        second = Replica(nats, kube, tasks, "two")
        await eventually(lambda: "held by one_" in second.health.notes.get(LEASE, ""))
        assert second.health.ready
        assert not second.leads
        before = set(seen.removed)
        await first.kill()
        await kube.create(pod(shop, "new"))
        await kube.delete(gone)
        await eventually(lambda: seen.of(Pod, shop) == {"new"})
        assert second.leads
        assert set(seen.removed) - before == {("pod", shop, "gone")}
        third = Replica(nats, kube, tasks, "one")  # it comes back, and stands by
        await eventually(lambda: "held by two_" in third.health.notes.get(LEASE, ""))
        await second.stop()  # in order: the lease is given back
        await eventually(lambda: third.leads)
        await kube.create(pod(shop, "newer"))
        await eventually(lambda: seen.of(Pod, shop) == {"new", "newer"})
        await third.stop()


async def test_a_wiped_bus_is_filled_again(nats: Nats, kube: KubeCluster) -> None:
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop")
        await kube.create(pod(shop, "web"))
        replica = Replica(nats, kube, tasks, "one")
        await eventually(lambda: replica.idle and seen.get(Pod, shop, "web"))
        seen.objects.clear()
        await nats.wipe()
        await eventually(lambda: seen.get(Pod, shop, "web") and seen.get(Namespace, "", shop))
        await replica.stop()
