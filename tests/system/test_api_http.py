"""The api as a client meets it: real HTTP, a real nats-server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bus_schemas.events import Event
from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import IPPool, Node
from bus_schemas.subjects import DESIRED, EVENT, POLICY_STATUS
from chassis.errors import Unavailable
from tests.support.api import CALICO_POLICY, EVERYTHING, KUBERNETES_POLICY, NAMESPACE, NODE, POD, POOL, joined, resource
from tests.support.api_server import Api, running
from tests.support.nats import Nats
from tests.support.waiting import until


@pytest.fixture
async def api(nats: Nats, tmp_path: Path) -> AsyncIterator[Api]:
    async with running(nats.url, tmp_path) as started:
        yield started


# --- apply


async def test_apply_creates_then_leaves_alone_then_configures(api: Api) -> None:
    status, answer = await api.post("/v1/apply", joined(*EVERYTHING))
    assert status == 200
    assert [result["outcome"] for result in answer["results"]] == ["created"] * len(EVERYTHING)
    assert answer["results"][0]["object"] == "Pod/develop/web"

    _, answer = await api.post("/v1/apply", joined(*EVERYTHING))
    assert {result["outcome"] for result in answer["results"]} == {"unchanged"}

    _, answer = await api.post("/v1/apply", joined(NODE.replace("10.0.0.15", "10.0.0.16"), POOL))
    assert [result["outcome"] for result in answer["results"]] == ["configured", "unchanged"]
    assert (await api.bus.get(DESIRED[Node], ("", "node1"))).value.address(4) == "10.0.0.16/24"


async def test_apply_is_all_or_nothing(api: Api) -> None:
    wrong = POOL.replace("blockSize: 26", "blockSize: 99")
    status, answer = await api.post("/v1/apply", joined(NODE, wrong, CALICO_POLICY.replace("app ==", "app =")))
    assert status == 422
    faults = {(fault["document"], fault["object"], fault["path"]) for fault in answer["faults"]}
    assert faults == {
        (1, "IPPool/default-ipv4-ippool", "spec.blockSize"),
        (2, "NetworkPolicy/develop/allow-web", "spec.selector"),
    }
    assert all(fault["reason"] for fault in answer["faults"])
    assert (await api.get("/v1/nodes"))[1]["items"] == []


async def test_a_dry_run_says_and_writes_nothing(api: Api) -> None:
    for path in ("/v1/apply?dryRun=true", "/v1/validate"):
        status, answer = await api.post(path, NODE)
        assert (status, answer["dryRun"], answer["results"][0]["outcome"]) == (200, True, "created")
    assert (await api.get("/v1/nodes/node1"))[0] == 404


async def test_an_overlapping_pool_leaves_the_first_untouched(api: Api) -> None:
    await api.post("/v1/apply", POOL)
    status, answer = await api.post("/v1/apply", POOL.replace("default-ipv4-ippool", "other"))
    assert status == 422
    assert answer["faults"][0]["path"] == "spec.cidr"
    _, listed = await api.get("/v1/ippools")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["default-ipv4-ippool"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/apply", "", 400),
        ("POST", "/v1/apply", b"\xff\xfe", 400),
        ("POST", "/v1/apply", "x" * (1 << 20), 413),
        ("GET", "/v1/deployments", None, 404),
        ("GET", "/v1/nodes/absent", None, 404),
        ("DELETE", "/v1/nodes/absent", None, 404),
        ("GET", "/v1/a/b/c/d", None, 404),
        ("PATCH", "/v1/nodes/node1", None, 405),
        ("GET", "/v1/pods?labelSelector=a=(", None, 400),
        ("GET", "/v1/pods?watch=perhaps", None, 400),
        ("GET", "/v1/ipam?ip=nonsense", None, 400),
        ("GET", "/v1/events?since=yesterday", None, 400),
        ("GET", "/v1/events?last=-1", None, 400),
        ("GET", "/v1/events?last=all", None, 400),
        ("PUT", "/v1/nodes/node1", joined(NODE, POOL), 400),
        ("PUT", "/v1/nodes/other", NODE, 422),
    ],
)
async def test_every_error_is_json(api: Api, method: str, path: str, body: Any, status: int) -> None:
    seen, answer = await api.call(method, path, body)
    assert seen == status
    assert answer["error"]
    assert answer["faults"] == []


async def test_a_body_that_is_too_large_is_told_the_limit(api: Api) -> None:
    _, answer = await api.post("/v1/apply", "x" * (1 << 20))
    assert answer["error"] == (
        "the body is larger than 524288 bytes: send less at once, or raise TORTIE_API_MAX_BODY_BYTES"
    )


WRONG = {
    "overlapping pool": (
        POOL.replace("default-ipv4-ippool", "other").replace("10.244.0.0/16", "10.244.128.0/17"),
        "spec.cidr",
    ),
    "block size": (POOL.replace("blockSize: 26", "blockSize: 15"), "spec.blockSize"),
    "moved pool": (POOL.replace("10.244.0.0/16", "10.245.0.0/16"), "spec.cidr"),
    "shrunk pool": (POOL.replace("10.244.0.0/16", "10.244.0.0/20"), "spec.cidr"),
    "selector": (CALICO_POLICY.replace("app ==", "app ="), "spec.selector"),
    "misspelt field": (CALICO_POLICY.replace("selector:", "selektor:"), "spec.selektor"),
    "families": (
        CALICO_POLICY.replace("{action: Allow}", "{action: Allow, ipVersion: 4, source: {nets: ['fd00::/64']}}"),
        "spec.ingress[0].ipVersion",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_refused_with_path_and_reason_and_changes_nothing(api: Api, case: str) -> None:
    await api.post("/v1/apply", joined(NAMESPACE, POOL, CALICO_POLICY))
    before = [(await api.get(f"/v1/{kind}"))[1] for kind in ("ippools", "networkpolicies", "nodes")]
    wrong, path = WRONG[case]
    status, answer = await api.post("/v1/apply", joined(NODE, wrong))
    assert status == 422
    assert [(fault["document"], fault["path"]) for fault in answer["faults"]] == [(1, path)]
    assert answer["faults"][0]["reason"]
    assert [(await api.get(f"/v1/{kind}"))[1] for kind in ("ippools", "networkpolicies", "nodes")] == before


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}])
async def test_web_pages_are_turned_away(api: Api, headers: dict[str, str]) -> None:
    status, _ = await api.call("POST", "/v1/apply", NODE, headers=headers)
    assert status == 403


async def test_other_host_names_are_turned_away_on_loopback(api: Api) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{api.tcp}/v1/nodes") as response:
            assert response.status == 200
        async with session.get(f"{api.tcp}/v1/nodes", headers={"Host": "evil.example"}) as response:
            assert response.status == 403


# --- reading


async def test_the_index_tells_what_there_is(api: Api) -> None:
    status, index = await api.get("/")
    assert status == 200
    assert {"method": "GET", "path": "/"}.items() <= index["paths"][0].items()
    assert index["kinds"]["ippools"]["kind"] == "IPPool"


@pytest.mark.parametrize("word", ["ippools", "ippool", "IPPool", "pool"])
async def test_kinds_go_by_all_their_names(api: Api, word: str) -> None:
    await api.post("/v1/apply", POOL)
    status, manifest = await api.get(f"/v1/{word}/default-ipv4-ippool")
    assert status == 200
    assert (manifest["apiVersion"], manifest["kind"]) == ("projectcalico.org/v3", "IPPool")
    assert manifest["spec"]["blockSize"] == 26
    assert manifest["metadata"]["uid"]
    assert manifest["metadata"]["creationTimestamp"].endswith("Z")
    assert int(manifest["metadata"]["resourceVersion"]) > 0


async def test_lists_are_by_namespace_and_label(api: Api) -> None:
    other = POD.replace("namespace: develop", "namespace: shop").replace("app: web", "app: db")
    await api.post("/v1/apply", joined(POD, other))

    async def names(query: str) -> list[str]:
        _, listed = await api.get(f"/v1/{query}")
        return [item["metadata"]["namespace"] for item in listed["items"]]

    assert await names("pods") == ["develop", "shop"]
    assert await names("pods?namespace=shop") == ["shop"]
    assert await names("namespaces/shop/pods") == ["shop"]
    assert await names("pods?labelSelector=app%20in%20(web,x)") == ["develop"]
    assert await names("pods?labelSelector=app!=web") == ["shop"]


async def test_networkpolicy_means_both_kinds(api: Api) -> None:
    await api.post("/v1/apply", joined(CALICO_POLICY, KUBERNETES_POLICY))
    _, listed = await api.get("/v1/networkpolicies?namespace=develop")
    assert {item["apiVersion"] for item in listed["items"]} == {"projectcalico.org/v3", "networking.k8s.io/v1"}
    for name in ("allow-web", "deny-all"):
        status, answer = await api.call("DELETE", f"/v1/namespaces/develop/NetworkPolicy/{name}")
        assert (status, answer["results"][0]["outcome"]) == (200, "deleted")


async def test_one_name_in_both_kinds_has_to_be_told_apart(api: Api) -> None:
    await api.post("/v1/apply", joined(CALICO_POLICY, KUBERNETES_POLICY.replace("deny-all", "allow-web")))
    assert (await api.get("/v1/namespaces/develop/networkpolicy/allow-web"))[0] == 409
    assert (await api.get("/v1/namespaces/develop/knp/allow-web"))[0] == 200


# --- single objects


async def test_put_is_compare_and_swap(api: Api) -> None:
    status, created = await api.call("PUT", "/v1/nodes/node1", NODE, headers={"If-None-Match": "*"})
    assert status == 201
    version = created["metadata"]["resourceVersion"]
    changed = NODE.replace("10.0.0.15", "10.0.0.16")
    status, after = await api.call("PUT", "/v1/nodes/node1", changed, headers={"If-Match": f'"{version}"'})
    assert status == 200
    assert after["metadata"]["uid"] == created["metadata"]["uid"]
    status, answer = await api.call("PUT", "/v1/nodes/node1", NODE, headers={"If-Match": version})
    assert status == 409
    assert version in answer["error"]
    assert (await api.call("PUT", "/v1/nodes/node1", NODE, headers={"If-None-Match": "*"}))[0] == 409
    assert (await api.call("DELETE", "/v1/nodes/node1", headers={"If-Match": version}))[0] == 409


async def test_delete_warns_and_deletes_and_can_be_undone(api: Api) -> None:
    await api.post("/v1/apply", joined(NAMESPACE, POD))
    status, answer = await api.call("DELETE", "/v1/namespaces/develop")
    assert status == 200
    assert "1 Pod" in answer["results"][0]["warnings"][0]
    assert (await api.get("/v1/namespaces/develop"))[0] == 404
    _, answer = await api.post("/v1/apply", NAMESPACE)
    assert answer["results"][0]["outcome"] == "created"


async def test_delete_of_documents(api: Api) -> None:
    await api.post("/v1/apply", joined(NAMESPACE, POD))
    status, answer = await api.post("/v1/delete", joined(NAMESPACE, POD, NODE))
    assert status == 200
    assert [result["outcome"] for result in answer["results"]] == ["deleted", "deleted", "missing"]
    assert (await api.get("/v1/pods"))[1]["items"] == []


async def test_somebody_else_writing_meanwhile_is_no_error(api: Api) -> None:
    """The mirror may be behind: the write is decided anew upon what is really there."""
    await api.post("/v1/apply", NODE)
    foreign = resource(NODE.replace("10.0.0.15", "10.0.0.77"))
    written, answers = await asyncio.gather(
        asyncio.gather(*(api.bus.put(DESIRED[Node], ("", "node1"), foreign) for _ in range(20))),
        asyncio.gather(*(api.post("/v1/apply", NODE.replace("10.0.0.15", f"10.0.0.{20 + i}")) for i in range(20))),
    )
    assert len(written) == 20
    assert [status for status, _ in answers] == [200] * 20


async def test_what_cannot_be_read_on_the_bus_can_be_replaced(api: Api) -> None:
    session = await api.bus.session()
    await session.publish(DESIRED[Node].subject("", "node1"), b"\xc1 not msgpack")
    await until(lambda: noted(api, "malformed"), "the message is set aside")
    assert (await api.get("/v1/nodes/node1"))[0] == 404
    assert (await api.post("/v1/apply", NODE))[0] == 200
    assert (await api.get("/v1/nodes/node1"))[0] == 200
    await until(lambda: noted(api, "malformed", False), "the note goes")


async def noted(api: Api, name: str, there: bool = True) -> bool:
    return (name in api.health.notes) is there


# --- streams


async def test_a_watch_begins_with_what_there_is(api: Api) -> None:
    await api.post("/v1/apply", joined(NAMESPACE, POD))
    async with api.stream("/v1/pods?watch=true&labelSelector=app=web") as events:
        first, synced = await anext(events), await anext(events)
        assert (first[0], first[1]["metadata"]["name"], synced[0]) == ("ADDED", "web", "SYNC")
        await api.post("/v1/apply", POD.replace("app: web", "app: web, tier: front"))
        assert (await anext(events))[0] == "MODIFIED"
        await api.post("/v1/apply", POD.replace("app: web", "app: db"))
        assert (await anext(events))[0] == "DELETED"
        await api.post("/v1/apply", POD)
        assert (await anext(events))[0] == "ADDED"
        await api.call("DELETE", "/v1/namespaces/develop/pods/web")
        assert (await anext(events))[0] == "DELETED"


async def test_an_empty_watch_says_so(api: Api) -> None:
    async with api.stream("/v1/pods?watch=true") as events:
        assert (await anext(events))[0] == "SYNC"


def event(domain: str, what: str, time: float = 1.0) -> Event:
    return Event(time=time, domain=domain, what=what, message="something")


async def test_events_are_streamed_from_the_past_on(api: Api) -> None:
    for what in ("first", "second", "third"):
        await api.bus.put(EVENT, ("route", what, ""), event("route", what))
    await api.bus.put(EVENT, ("ipam", "assigned", ""), event("ipam", "assigned"))
    async with api.stream("/v1/events?since=1h&domain=route") as events:
        assert [(await anext(events))[1]["what"] for _ in range(3)] == ["first", "second", "third"]
        await api.bus.put(EVENT, ("route", "fourth", ""), event("route", "fourth"))
        assert (await anext(events))[1]["what"] == "fourth"
    async with api.stream("/v1/events?since=1h&domain=ipam,policy") as events:
        assert (await anext(events))[1]["what"] == "assigned"


@pytest.mark.parametrize(
    ("query", "times"), [("", [20.0, 20.0]), ("&domain=route", [19.0, 20.0]), ("&domain=route,policy", [19.0, 20.0])]
)
async def test_the_last_events_come_first(api: Api, query: str, times: list[float]) -> None:
    for number in range(1, 21):
        await api.bus.put(EVENT, ("route", "withheld", ""), event("route", "withheld", float(number)))
        await api.bus.put(EVENT, ("ipam", "assigned", ""), event("ipam", "assigned", float(number)))
    async with api.stream(f"/v1/events?last=2{query}") as events:
        assert [(await anext(events))[1]["time"] for _ in range(2)] == times
        await api.bus.put(EVENT, ("route", "fresh", ""), event("route", "fresh"))
        assert (await anext(events))[1]["what"] == "fresh"


async def test_without_a_past_the_last_events_are_none(api: Api) -> None:
    async with api.stream("/v1/events?last=5&domain=policy") as events:
        await api.bus.put(EVENT, ("policy", "resolved", ""), event("policy", "resolved"))
        assert (await anext(events))[1]["what"] == "resolved"


async def test_every_event_of_a_burst_arrives_in_order(api: Api) -> None:
    async with api.stream("/v1/events?since=1h") as events:
        for number in range(600):
            await api.bus.put(EVENT, ("route", "burst", ""), event("route", "burst", time=float(number)))
        assert [(await anext(events))[1]["time"] for _ in range(600)] == [float(number) for number in range(600)]


# --- the bus away


async def fresh(api: Api) -> bool:
    return not await api.stale("/v1/ippools")


async def test_reads_go_on_and_writes_say_why_while_the_bus_is_away(nats: Nats, api: Api) -> None:
    await api.post("/v1/apply", POOL)
    await nats.stop()
    await until(lambda: api.stale("/v1/ippools"), "the api notices")
    status, listed = await api.get("/v1/ippools")
    assert (status, len(listed["items"])) == (200, 1)
    status, answer = await api.post("/v1/apply", NODE)
    assert status == 503
    assert answer["error"].startswith("the bus is away")
    await nats.start()
    await until(lambda: fresh(api), "the api is back")
    assert (await api.post("/v1/apply", NODE))[0] == 200
    assert (await api.bus.get(DESIRED[IPPool], ("", "default-ipv4-ippool"))).value is not None


async def test_before_the_first_snapshot_there_is_nothing_to_read(tmp_path: Path) -> None:
    async with running("nats://127.0.0.1:1", tmp_path, wait=False) as api:
        for method, path in (("GET", "/v1/nodes"), ("POST", "/v1/apply"), ("GET", "/v1/ipam")):
            status, answer = await api.call(method, path, NODE if method == "POST" else None)
            assert status == 503
            assert json.dumps(answer["error"])


async def test_a_wiped_bus_gets_back_what_was_desired(nats: Nats, api: Api) -> None:
    await api.post("/v1/apply", joined(POOL, NODE))
    await nats.wipe()

    async def restored() -> bool:
        try:
            return all(
                [
                    (await api.bus.get(DESIRED[IPPool], ("", "default-ipv4-ippool"))).value is not None,
                    (await api.bus.get(DESIRED[Node], ("", "node1"))).value is not None,
                ]
            )
        except Unavailable:
            return False

    await until(restored, "the desired state is back on the bus")
    assert len((await api.get("/v1/nodes"))[1]["items"]) == 1
    await until(lambda: fresh(api), "the api is back")
    assert (await api.post("/v1/apply", NODE.replace("10.0.0.15", "10.0.0.16")))[0] == 200
    assert (await api.call("DELETE", "/v1/nodes/node1"))[0] == 200


async def test_every_cluster_has_its_tiers(api: Api) -> None:
    async def are_there() -> bool:
        _, answer = await api.get("/v1/tiers")
        return {item["metadata"]["name"] for item in answer["items"]} == {"default", "kube-admin", "kube-baseline"}

    await until(are_there, "the fixed tiers")
    status, answer = await api.call("DELETE", "/v1/tiers/default")
    assert (status, answer["error"]) == (409, "Tier/default is part of every cluster and cannot be deleted")
    _, tier = await api.get("/v1/tiers/kube-admin")
    assert tier["spec"] == {"defaultAction": "Pass", "order": 1000}
    assert tier["metadata"]["creationTimestamp"]


async def test_a_policy_shows_what_could_not_be_compiled(api: Api) -> None:
    await api.post("/v1/apply", joined(NAMESPACE, CALICO_POLICY))
    key = ("networkpolicy", "develop", "allow-web")
    await api.bus.put(POLICY_STATUS, key, PolicyStatus(policy="NetworkPolicy/develop/allow-web", faults=("spec: no",)))
    path = "/v1/namespaces/develop/networkpolicies/allow-web"

    async def faulty() -> bool:
        return (await api.get(path))[1].get("status") == {"faults": ["spec: no"]}

    async def well() -> bool:
        return "status" not in (await api.get(path))[1]

    await until(faulty, "the fault in the policy's status")
    _, manifest = await api.get(path)
    _, answer = await api.post("/v1/apply", json.dumps(manifest))
    assert [result["outcome"] for result in answer["results"]] == ["unchanged"]
    await api.bus.delete(POLICY_STATUS, key)
    await until(well, "no status")
