"""What can go wrong between the bridge and the API server: nothing is lost, and nothing is taken away by mistake.

Faults come on command, so these run on the stand-in alone; against a real API server they skip.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.resources import IPPool, KubernetesNetworkPolicy, Pod, Tier
from services.kube_bridge.cursor import Standing
from services.kube_bridge.service import CLUSTER, LEASE
from services.kube_bridge.standings import ABSENT, FORBIDDEN, KEPT, UNREACHABLE
from tests.support.kube_bridge import Mirrored, Replica, eventually, mirrored
from tests.support.kube_cluster import KubeCluster, calico, cluster, pod, policy
from tests.support.kube_server import KubeServer
from tests.support.nats import Nats

POOLS = "/apis/projectcalico.org/v3/ippools"


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with cluster(tmp_path) as made:
        made.stand_in  # noqa: B018 - skips where there is none
        yield made


class World:
    """A namespace with the pods `a` and `b`, mirrored by one bridge that leads."""

    def __init__(self, kube: KubeCluster, seen: Mirrored, replica: Replica, shop: str) -> None:
        self.kube, self.seen, self.replica, self.shop = kube, seen, replica, shop
        self.server: KubeServer = kube.stand_in

    @property
    def pods(self) -> set[str]:
        return self.seen.of(Pod, self.shop)

    def standing(self, name: str) -> Standing:
        assert self.replica.bridge is not None
        return next(f for f in self.replica.bridge.followers if f.source.name == name).cursor.standing

    def streams(self, name: str) -> bool:
        assert self.replica.bridge is not None
        return next(f for f in self.replica.bridge.followers if f.source.name == name).cursor.streams

    async def swap_pods(self) -> None:
        """`a` goes, `c` comes."""
        self.server.store.delete("/api/v1/pods", self.shop, "a")
        await self.kube.create(pod(self.shop, "c"))


@asynccontextmanager
async def world(nats: Nats, kube: KubeCluster, **settings: Any) -> AsyncIterator[World]:
    async with mirrored(nats) as (seen, _, tasks):
        shop = await kube.namespace("shop")
        await kube.create(pod(shop, "a"))
        await kube.create(pod(shop, "b"))
        replica = Replica(nats, kube, tasks, "one", **settings)
        await eventually(lambda: replica.idle and seen.of(Pod, shop) == {"a", "b"})
        yield World(kube, seen, replica, shop)
        await replica.stop()


async def test_a_watch_cut_off_in_the_middle_of_an_event_is_resumed(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        lists = at.server.requests["LIST", "pods"]
        at.server.cut("pods")
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})
        assert at.server.requests["LIST", "pods"] == lists
        plural, query = [asked for asked in at.server.queries if asked[0] == "pods"][-1]
        assert (plural, "sendInitialEvents" in query) == ("pods", False)
        assert query["resourceVersion"]


async def test_a_watch_that_the_server_ends_is_resumed_from_the_last_bookmark(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        await kube.create(policy(at.shop, "elsewhere", {"podSelector": {}}))
        version = at.server.store.version  # newer than anything that happened to pods
        last = lambda: next(f for f in at.replica.bridge.followers if f.source.name == "pods").cursor.version  # noqa: E731
        await eventually(lambda: int(last()) >= version)
        at.server.end("pods")
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})
        assert int([query for plural, query in at.server.queries if plural == "pods"][-1]["resourceVersion"]) >= version


@pytest.mark.parametrize("how", ["event", "answer"])
async def test_what_is_too_old_is_listed_again(nats: Nats, kube: KubeCluster, how: str) -> None:
    async with world(nats, kube) as at:
        at.server.refuse("WATCH pods", 503, "ServiceUnavailable")
        if how == "event":
            at.server.error("pods", 410, "too old resource version: 1 (2)")
        else:
            at.server.cut("pods")
        await at.swap_pods()
        at.server.store.compact()
        at.server.allow("WATCH pods")
        await eventually(lambda: at.pods == {"b", "c"})
        await eventually(lambda: at.standing("pods") is Standing.FOLLOWING)


async def test_a_server_that_was_set_back_is_listed_again(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        at.server.refuse("WATCH pods", 503, "ServiceUnavailable")
        at.server.cut("pods")
        await at.swap_pods()
        at.server.store.version = 50
        at.server.store.history.clear()
        at.server.allow("WATCH pods")
        await eventually(lambda: at.pods == {"b", "c"})


async def test_the_server_is_away_and_back_with_things_deleted(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        await at.server.stop()
        await eventually(lambda: UNREACHABLE in at.replica.health.causes)
        assert "cannot follow" in at.replica.health.causes[UNREACHABLE]
        assert at.pods == {"a", "b"}
        at.server.store.delete("/api/v1/pods", at.shop, "a")
        at.server.store.delete("/api/v1/pods", at.shop, "b")
        at.server.store.compact()
        assert at.pods == {"a", "b"}
        await at.server.start()
        await eventually(lambda: at.pods == set())  # an empty list that is true
        await eventually(lambda: at.replica.health.ready)


async def test_without_streamed_lists(nats: Nats, kube: KubeCluster) -> None:
    kube.stand_in.streams_lists = False
    async with world(nats, kube, kube_page=1) as at:
        assert at.server.requests["LIST", "pods"] >= 2
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})
        at.server.error("pods", 410, "too old resource version: 1 (2)")
        at.server.store.compact()
        await kube.create(pod(at.shop, "d"))
        await eventually(lambda: at.pods == {"b", "c", "d"})


async def test_half_a_list_is_no_list(nats: Nats, kube: KubeCluster) -> None:
    kube.stand_in.streams_lists = False
    async with world(nats, kube, kube_page=1) as at:
        at.server.fail_page = 1
        lists = at.server.requests["LIST", "pods"]
        at.server.store.compact()
        at.server.error("pods", 410, "too old resource version: 1 (2)")
        await kube.create(pod(at.shop, "c"))
        await eventually(lambda: at.pods == {"a", "b", "c"})
        assert at.server.requests["LIST", "pods"] >= lists + 4  # two that failed, three that did not
        assert not [key for key in at.seen.removed if key[0] == "pod"]


async def test_an_empty_list_is_not_believed(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        at.server.empty_streams = True
        watches = at.server.requests["WATCH", "pods"]
        at.server.error("pods", 410, "too old resource version: 1 (2)")
        at.server.store.compact()
        await eventually(lambda: at.server.requests["WATCH", "pods"] >= watches + 3)
        assert at.pods == {"a", "b"}
        at.server.empty_streams = False
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})


async def test_a_kind_that_may_not_be_read_any_more_is_kept(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        at.server.refuse("pods")
        at.server.cut("pods")
        await eventually(lambda: FORBIDDEN in at.replica.health.causes)
        assert "may not read pods" in at.replica.health.causes[FORBIDDEN]
        assert "grant get, list and watch" in at.replica.health.causes[FORBIDDEN]
        await kube.create(policy(at.shop, "web", {"podSelector": {}}))  # the others go on
        await eventually(lambda: at.seen.get(KubernetesNetworkPolicy, at.shop, "web"))
        assert at.pods == {"a", "b"}
        at.server.allow("pods")
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})
        await eventually(lambda: at.replica.health.ready)


async def test_a_bridge_that_may_not_read_a_kind_takes_nothing_of_it_away(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        await at.replica.stop()
        at.server.refuse("pods")
        at.server.store.delete("/api/v1/pods", at.shop, "a")
        async with mirrored(nats) as (seen, _, tasks):
            second = Replica(nats, kube, tasks, "two")
            await eventually(lambda: second.idle)
            await kube.create(policy(at.shop, "web", {"podSelector": {}}))
            await eventually(lambda: seen.get(KubernetesNetworkPolicy, at.shop, "web"))
            assert seen.of(Pod, at.shop) == {"a", "b"}
            at.server.allow("pods")
            await eventually(lambda: seen.of(Pod, at.shop) == {"b"})
            await second.stop()


async def test_a_lease_that_cannot_be_held_is_a_cause(nats: Nats, kube: KubeCluster) -> None:
    kube.stand_in.refuse("POST leases")
    async with mirrored(nats) as (seen, _, tasks):
        await kube.namespace("shop")
        replica = Replica(nats, kube, tasks, "one")
        await eventually(lambda: "grant get, create and update" in replica.health.causes.get(LEASE, ""))
        assert not replica.leads
        assert seen.objects == {}
        kube.stand_in.allow("POST leases")
        await eventually(lambda: replica.idle and replica.health.ready)
        await replica.stop()


async def test_crds_that_come_and_go(nats: Nats, kube: KubeCluster) -> None:
    store = kube.stand_in.store
    absent = {path: store.resources.pop(path) for path in list(store.resources) if path.endswith("/ippools")}
    async with world(nats, kube) as at:
        await eventually(lambda: "ippools.projectcalico.org" in at.replica.health.notes.get(ABSENT, ""))
        assert at.replica.health.ready
        store.resources |= absent
        await kube.create(calico("IPPool", "one", {"cidr": "10.64.0.0/16"}))
        await eventually(lambda: at.seen.get(IPPool, "", "one"))
        await eventually(lambda: ABSENT not in at.replica.health.notes)
        gone = store.resources.pop(POOLS)  # the resource vanishes without a word about its objects
        at.server.cut("ippools")
        await eventually(lambda: "1 ippools.projectcalico.org stay" in at.replica.health.notes.get(KEPT, ""))
        assert at.seen.get(IPPool, "", "one")
        store.resources[POOLS] = gone
        await kube.delete(calico("IPPool", "one", {}))
        await eventually(lambda: at.seen.get(IPPool, "", "one") is None)
        await kube.create(calico("Tier", "security", {"order": 5}))
        await eventually(lambda: at.seen.get(Tier, "", "security"))
        store.drop_crd("/apis/projectcalico.org/v3/tiers")  # as Kubernetes does it: the objects first
        await eventually(lambda: at.seen.get(Tier, "", "security") is None)


async def test_another_cluster_behind_the_same_address(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube) as at:
        namespaces = at.server.store.resource("/api/v1/namespaces").objects
        ours = namespaces["", "kube-system"]
        namespaces["", "kube-system"] = {**ours, "metadata": {**ours["metadata"], "uid": "another"}}
        pods = at.server.store.resource("/api/v1/pods")
        hidden, pods.objects = pods.objects, {}
        at.server.store.compact()
        at.server.cut()
        await eventually(lambda: "is the cluster another, not" in at.replica.health.causes.get(UNREACHABLE, ""))
        assert at.pods == {"a", "b"}
        namespaces["", "kube-system"], pods.objects = ours, hidden
        await eventually(lambda: at.replica.health.ready)
        assert at.pods == {"a", "b"}


async def test_a_bus_that_is_another_clusters(nats: Nats, kube: KubeCluster, tmp_path: Path) -> None:
    async with world(nats, kube) as at:
        await at.replica.stop()
        async with KubeServer() as other:
            elsewhere = KubeCluster(kube.client, other.kubeconfig(tmp_path / "other"), other)
            async with mirrored(nats) as (seen, _, tasks):
                stranger = Replica(nats, elsewhere, tasks, "stranger")
                await eventually(lambda: "nothing is written" in stranger.health.causes.get(CLUSTER, ""))
                assert not stranger.leads
                assert seen.of(Pod, at.shop) == {"a", "b"}
                await stranger.stop()
                heir = Replica(nats, elsewhere, tasks, "heir", kube_adopt=other.store.cluster)
                await eventually(lambda: seen.of(Pod) == set() and heir.idle)
                await heir.stop()


async def test_a_connection_that_says_nothing_more(nats: Nats, kube: KubeCluster) -> None:
    async with world(nats, kube, kube_stall_s=1.0) as at:
        at.server.deaf = True
        await at.swap_pods()
        watches = at.server.requests["WATCH", "pods"]
        await eventually(lambda: at.server.requests["WATCH", "pods"] > watches)
        at.server.deaf = False
        await eventually(lambda: at.pods == {"b", "c"})


@pytest.mark.parametrize(("code", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (503, "Unavailable")])
async def test_an_overloaded_server_is_asked_again_later(nats: Nats, kube: KubeCluster, code: int, reason: str) -> None:
    async with world(nats, kube) as at:
        at.server.refuse("pods", code, reason, retry_after=1)
        at.server.cut("pods")
        await at.swap_pods()
        await eventually(lambda: at.standing("pods") is Standing.FAILING)
        assert str(code) in at.replica.health.causes[UNREACHABLE]
        at.server.allow("pods")
        await eventually(lambda: at.pods == {"b", "c"})
        await eventually(lambda: at.replica.health.ready)


@pytest.mark.parametrize(
    "event",
    [("EXPLODED", {"metadata": {}}), ("MODIFIED", {"metadata": {}}), ("MODIFIED", "text"), ("BOOKMARK", 7)],
    ids=["unknown type", "no name", "no object", "no bookmark"],
)
async def test_events_that_make_no_sense(nats: Nats, kube: KubeCluster, event: tuple[str, Any]) -> None:
    async with world(nats, kube) as at:
        at.server.say("pods", *event)
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})
        await eventually(lambda: at.replica.health.ready)


async def test_a_server_that_does_not_end_a_streamed_list(
    nats: Nats, kube: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kube_bridge.following.LIST_IDLE_S", 0.5)
    kube.stand_in.ends_streamed_lists = False
    kube.stand_in.bookmark_s = 3600
    async with world(nats, kube) as at:
        assert not at.streams("pods")
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})


async def test_an_object_that_is_nested_too_deeply(nats: Nats, kube: KubeCluster) -> None:
    """It stands in the way of its kind alone, and takes nothing away."""
    deep: Any = 1
    for _ in range(900):  # as deep as this process can write it
        deep = {"a": deep}
    async with world(nats, kube) as at:
        await kube.create(calico("Tier", "security", {"order": 5}))
        await eventually(lambda: at.seen.get(Tier, "", "security"))
        at.server.say("tiers", "MODIFIED", {"metadata": {"name": "deep"}, "spec": deep})
        await at.swap_pods()
        await eventually(lambda: at.pods == {"b", "c"})
        assert at.seen.get(Tier, "", "security")
        await eventually(lambda: at.replica.health.ready)
