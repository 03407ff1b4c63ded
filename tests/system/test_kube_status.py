"""What the bridge writes back: conditions of nodes, pools and policies, addresses of Services, Events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.ipam import ServiceAddresses
from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import GlobalNetworkPolicy, IPPool, KubernetesNetworkPolicy, Pod
from bus_schemas.status import Status
from bus_schemas.subjects import POLICY_STATUS, SERVICE_ADDRESSES, STATUS
from chassis.bus import Bus
from services.kube_bridge.service import INVALID
from tests.support.kube_bridge import PATIENCE_S, Mirrored, Replica, eventually, mirrored
from tests.support.kube_cluster import KubeCluster, calico, cluster, node, pod, policy
from tests.support.nats import Nats
from tests.support.waiting import within

V3 = "projectcalico.org/v3"
RULES = {"selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Allow"}]}
WRONG = {"selector": "all(", "types": ["Ingress"], "ingress": [{"action": "Allow"}]}


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with cluster(tmp_path) as made:
        yield made


@asynccontextmanager
async def bridge(nats: Nats, kube: KubeCluster) -> AsyncIterator[tuple[Mirrored, Bus, Replica]]:
    async with mirrored(nats) as (seen, bus, tasks):
        replica = Replica(nats, kube, tasks, "one")
        await eventually(lambda: replica.idle)
        yield seen, bus, replica
        await replica.stop()


async def conditions(kube: KubeCluster, api_version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    """By type."""
    found = await kube.get(api_version, kind, namespace, name)
    return {condition["type"]: condition for condition in found.get("status", {}).get("conditions", ())}


async def told(kube: KubeCluster, namespace: str, name: str, reason: str) -> str:
    """The note of the Event about an object; empty: there is none."""
    notes = [
        event["note"]
        for event in await kube.events(namespace)
        if event["regarding"]["name"] == name and event["reason"] == reason
    ]
    assert len(notes) <= 1, notes
    return notes[0] if notes else ""


async def test_the_condition_of_a_node(nats: Nats, kube: KubeCluster) -> None:
    name = kube.name("node1")
    await kube.create(node(name))

    async def says(status: str, reason: str) -> bool:
        found = (await conditions(kube, "v1", "Node", name)).get("NetworkUnavailable", {})
        return (found.get("status"), found.get("reason")) == (status, reason)

    def sign(ready: bool, *causes: str) -> Status:
        return Status(
            component="node_dataplane", instance=name, node=NodeName(name), started=0, ready=ready, causes=causes
        )

    key = ("node_dataplane", name)
    async with bridge(nats, kube) as (_, bus, _replica):
        await bus.put(STATUS, key, sign(True))
        await within(lambda: says("False", "TortieIsUp"), "the network is available", PATIENCE_S)
        await kube.patch(node(name), {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, status=True)
        await within(
            lambda: says("False", "TortieIsUp"), "somebody else's write takes it away, and it is back", PATIENCE_S
        )
        await bus.put(STATUS, key, sign(False, "policy: the table cannot be written"))
        await within(lambda: says("True", "TortieIsNotReady"), "it is not", PATIENCE_S)
        found = await conditions(kube, "v1", "Node", name)
        assert found["NetworkUnavailable"]["message"] == "policy: the table cannot be written"
        assert found["Ready"]["status"] == "True"
        await bus.put(STATUS, key, sign(True))
        await within(lambda: says("False", "TortieIsUp"), "it is again", PATIENCE_S)
        await bus.delete(STATUS, key)
        await within(lambda: says("True", "TortieIsDown"), "the agent is gone", PATIENCE_S)


async def test_pools(nats: Nats, kube: KubeCluster) -> None:
    await kube.needs(V3, "IPPool")
    first, second = kube.name("a"), kube.name("b")
    async with bridge(nats, kube) as (seen, _, replica):
        await kube.create(calico("IPPool", first, {"cidr": "10.64.0.0/16"}))

        async def fine() -> bool:
            found = await conditions(kube, V3, "IPPool", first)
            return all(found.get(type_, {}).get("status") == "True" for type_ in ("Accepted", "Allocatable"))

        await within(fine, "the pool is accepted", PATIENCE_S)
        await kube.create(calico("IPPool", second, {"cidr": "10.64.128.0/17"}))

        async def refused() -> bool:
            found = await conditions(kube, V3, "IPPool", second)
            return found.get("Accepted", {}).get("status") == "False"

        await within(refused, "one that overlaps is not", PATIENCE_S)
        found = await conditions(kube, V3, "IPPool", second)
        assert "overlaps the pool" in found["Accepted"]["message"]
        assert seen.of(IPPool) >= {first}
        assert second not in seen.of(IPPool)
        assert f"IPPool/{second}" in replica.health.notes[INVALID]
        await within(lambda: told(kube, "default", second, "Invalid"), "and an Event says so", PATIENCE_S)
        await eventually(lambda: any(e.domain == "kube" and e.what == "invalid" for e in seen.events))
        await kube.delete(calico("IPPool", first, {}))
        await eventually(lambda: second in seen.of(IPPool))

        async def mended() -> bool:
            found = await conditions(kube, V3, "IPPool", second)
            return found["Accepted"]["status"] == "True"

        await within(mended, "it counts once the other is gone", PATIENCE_S)
        await eventually(lambda: INVALID not in replica.health.notes or kube.real)


async def test_what_cannot_be_read_stays_what_it_was(nats: Nats, kube: KubeCluster) -> None:
    kube.stand_in  # noqa: B018 - a real server validates by the CRD and takes no such object
    shop = await kube.namespace("shop")
    made = calico("GlobalNetworkPolicy", "p", RULES)
    async with bridge(nats, kube) as (seen, _, replica):
        await kube.create(made)
        await eventually(lambda: seen.get(GlobalNetworkPolicy, "", "p"))
        good = seen.get(GlobalNetworkPolicy, "", "p")
        await kube.patch(made, {"spec": WRONG})
        await eventually(lambda: "GlobalNetworkPolicy/p" in replica.health.notes.get(INVALID, ""))
        assert "what it was before stays in force" in replica.health.notes[INVALID]

        async def refused() -> bool:
            return (await conditions(kube, V3, "GlobalNetworkPolicy", "p"))["Accepted"]["status"] == "False"

        await within(refused, "the condition says so", PATIENCE_S)
        assert (await conditions(kube, V3, "GlobalNetworkPolicy", "p"))["Programmed"]["reason"] == "NotAccepted"
        await kube.create(pod(shop, "later"))
        await eventually(lambda: seen.get(Pod, shop, "later"))
        assert seen.get(GlobalNetworkPolicy, "", "p") == good
    async with bridge(nats, kube) as (seen, _, replica):  # one that has never seen a better one asks the bus
        await kube.create(pod(shop, "last"))
        await eventually(lambda: seen.get(Pod, shop, "last"))
        assert seen.get(GlobalNetworkPolicy, "", "p") == good
        assert "what it was before stays in force" in replica.health.notes[INVALID]
        await kube.patch(made, {"spec": {**RULES, "order": 3}})
        await eventually(lambda: seen.get(GlobalNetworkPolicy, "", "p").spec.order == 3)
        await eventually(lambda: INVALID not in replica.health.notes)


async def test_a_network_policy_that_cannot_be_read_is_closed(nats: Nats, kube: KubeCluster) -> None:
    kube.stand_in  # noqa: B018 - a real server takes no such object
    shop = await kube.namespace("shop")
    selector = {"matchLabels": {"app": "web"}}
    spec = {"podSelector": selector, "ingress": [{"from": [{"galaxySelector": {}}]}]}
    async with bridge(nats, kube) as (seen, _, replica):
        await kube.create(policy(shop, "new", spec))
        await eventually(lambda: seen.get(KubernetesNetworkPolicy, shop, "new"))
        stands = seen.get(KubernetesNetworkPolicy, shop, "new").spec
        assert stands.pod_selector.match_labels == {"app": "web"}
        assert (stands.ingress, stands.policy_types) == ((), ("Ingress",))
        note = await within(lambda: told(kube, shop, "new", "Invalid"), "an Event says so", PATIENCE_S)
        assert "galaxySelector" in note
        assert "what it isolates is closed" in note
        await kube.delete(policy(shop, "new", {}))
        await eventually(lambda: seen.get(KubernetesNetworkPolicy, shop, "new") is None)
        await eventually(lambda: INVALID not in replica.health.notes)


async def test_what_could_not_be_compiled(nats: Nats, kube: KubeCluster) -> None:
    await kube.needs(V3, "GlobalNetworkPolicy")
    shop, name = await kube.namespace("shop"), kube.name("p")
    async with bridge(nats, kube) as (seen, bus, _):
        await kube.create(calico("GlobalNetworkPolicy", name, RULES))
        await kube.create(policy(shop, "web", {"podSelector": {}}))
        await eventually(lambda: seen.get(GlobalNetworkPolicy, "", name))
        await eventually(lambda: seen.get(KubernetesNetworkPolicy, shop, "web"))

        async def programmed(status: str) -> bool:
            found = await conditions(kube, V3, "GlobalNetworkPolicy", name)
            return found.get("Programmed", {}).get("status") == status

        await within(lambda: programmed("True"), "nothing is wrong with it", PATIENCE_S)
        fault = PolicyStatus(policy="p", faults=("spec.ingress[0]: no such thing",))
        await bus.put(POLICY_STATUS, ("globalnetworkpolicy", "", name), fault)
        await bus.put(POLICY_STATUS, (KubernetesNetworkPolicy.TOKEN, shop, "web"), fault)
        await within(lambda: programmed("False"), "the compiler's fault is told", PATIENCE_S)
        found = await conditions(kube, V3, "GlobalNetworkPolicy", name)
        assert found["Programmed"]["message"] == "spec.ingress[0]: no such thing"
        await within(
            lambda: told(kube, shop, "web", "NotCompiled"), "a NetworkPolicy has no status, but an Event", PATIENCE_S
        )
        await bus.delete(POLICY_STATUS, ("globalnetworkpolicy", "", name))
        await within(lambda: programmed("True"), "and taken back", PATIENCE_S)


async def test_the_addresses_of_a_service(nats: Nats, kube: KubeCluster) -> None:
    shop = await kube.namespace("shop")
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    await kube.create(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": shop, "name": "web"}, "spec": spec}
    )

    async def addresses() -> list[str]:
        status = (await kube.get("v1", "Service", shop, "web")).get("status", {})
        return [ingress["ip"] for ingress in status.get("loadBalancer", {}).get("ingress", ())]

    async with bridge(nats, kube) as (_, bus, _replica):
        given = ServiceAddresses(namespace=shop, service="web", addresses=("203.0.113.9",))
        await bus.put(SERVICE_ADDRESSES, (shop, "web"), given)

        async def shown() -> bool:
            return await addresses() == ["203.0.113.9"]

        async def taken_back() -> bool:
            return await addresses() == []

        await within(shown, "the address is in the status", PATIENCE_S)
        await bus.delete(SERVICE_ADDRESSES, (shop, "web"))
        await within(taken_back, "and taken back", PATIENCE_S)


async def test_status_is_written_on_change_only_and_a_conflict_is_tried_again(nats: Nats, kube: KubeCluster) -> None:
    server = kube.stand_in
    written = ("PATCH", "ippools/status")
    async with bridge(nats, kube):
        server.refuse("PATCH ippools/status", 409, "Conflict")
        await kube.create(calico("IPPool", "a", {"cidr": "10.64.0.0/16"}))
        await eventually(lambda: server.requests[written] >= 2)
        server.allow("PATCH ippools/status")

        async def fine() -> bool:
            return "Accepted" in await conditions(kube, V3, "IPPool", "a")

        await within(fine, "it is written in the end", PATIENCE_S)
        before = server.requests[written]
        shop = await kube.namespace("shop")
        await kube.patch(calico("IPPool", "a", {}), {"metadata": {"labels": {"a": "b"}}})
        await kube.create(calico("IPPool", "b", {"cidr": "10.65.0.0/16"}))

        async def other() -> bool:
            return "Accepted" in await conditions(kube, V3, "IPPool", "b")

        await within(other, "the next one, which comes after", PATIENCE_S)
        assert server.requests[written] == before + 1
        assert shop


async def test_a_cluster_that_lets_nothing_be_written(nats: Nats, kube: KubeCluster) -> None:
    server = kube.stand_in
    server.refuse("PATCH ippools/status")
    async with bridge(nats, kube) as (seen, _, replica):
        await kube.create(calico("IPPool", "a", {"cidr": "10.64.0.0/16"}))
        await eventually(
            lambda: "ippools.projectcalico.org/status" in replica.health.notes.get("status not written", "")
        )
        assert seen.get(IPPool, "", "a")
        assert replica.health.ready
