from __future__ import annotations

import pytest

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import BlockCidr, HandleId, NodeName
from bus_schemas.ipam import Allocation, Block
from bus_schemas.manifests import read
from bus_schemas.resources import IPPool, Namespace, NetworkPolicy, Node, Pod, ServiceAccount
from bus_schemas.subjects import BLOCK, DESIRED, ENDPOINT, Fact
from services.api.core import MAX_WRITES
from services.api.requests import Apply, Delete, Planned, Put, Refused
from tests.support.api import CALICO_POLICY, EVERYTHING, NAMESPACE, NODE, POD, POOL, Bench, joined, resource, stamp

POOL_KEY = ("", "default-ipv4-ippool")


def planned(decision: object) -> Planned:
    assert isinstance(decision, Planned), decision
    return decision


def refused(decision: object) -> Refused:
    assert isinstance(decision, Refused), decision
    return decision


def outcomes(decision: object) -> list[str]:
    return [result.outcome for result in planned(decision).results]


# --- apply


def test_results_come_in_the_order_of_the_request_and_writes_in_the_order_of_kinds() -> None:
    plan = planned(Bench().apply(*EVERYTHING))
    assert [result.kind.TOKEN for result in plan.results] == [
        "pod",
        "networkpolicy",
        "k8snetworkpolicy",
        "namespace",
        "node",
        "ippool",
    ]
    assert [write.kind.TOKEN for write in plan.writes] == [
        "namespace",
        "node",
        "pod",
        "ippool",
        "k8snetworkpolicy",
        "networkpolicy",
    ]
    assert {write.expected for write in plan.writes} == {0}


def test_a_new_object_gets_its_uid_and_its_time() -> None:
    bench = Bench(POOL)
    stored = bench.core.resource(IPPool, POOL_KEY)
    assert stored is not None
    assert (stored.resource.metadata.uid, stored.resource.metadata.creation_timestamp) == (
        "uid-1",
        "2026-01-02T03:04:05Z",
    )


def test_an_object_that_is_as_it_was_is_not_written() -> None:
    bench = Bench(*EVERYTHING)
    again = planned(bench.apply(*EVERYTHING))
    assert set(outcomes(again)) == {"unchanged"}
    assert again.writes == ()


def test_a_changed_object_keeps_its_uid_and_its_time() -> None:
    bench = Bench(NAMESPACE)
    before = bench.core.resource(Namespace, ("", "develop"))
    decision = bench.do(Apply(read(NAMESPACE.replace("test", "other"))), time="2027-01-01T00:00:00Z")
    after = bench.core.resource(Namespace, ("", "develop"))
    assert outcomes(decision) == ["configured"]
    assert before is not None
    assert after is not None
    assert after.resource.metadata.labels["purpose"] == "other"
    assert after.resource.metadata.uid == before.resource.metadata.uid
    assert after.resource.metadata.creation_timestamp == before.resource.metadata.creation_timestamp
    assert planned(decision).writes[0].expected == before.sequence


def test_one_wrong_document_refuses_all_and_every_fault_is_named() -> None:
    bench = Bench()
    wrong = POOL.replace("blockSize: 26", "blockSize: 99").replace("default-ipv4-ippool", "wrong")
    torn = "apiVersion: v1\nkind: Namespace\nmetadata: {name: [\n"
    answer = refused(bench.apply(NAMESPACE, wrong, torn))
    assert answer.reason == "invalid"
    assert {fault.document for fault in answer.faults} == {1, 2}
    assert "spec.blockSize" in {fault.path for fault in answer.faults}
    assert bench.core.resources(Namespace) == []


def test_an_overlapping_pool_is_refused_with_its_document() -> None:
    bench = Bench(POOL)
    other = POOL.replace("default-ipv4-ippool", "other").replace("10.244.0.0/16", "10.244.128.0/17")
    answer = refused(bench.apply(NAMESPACE, other))
    assert [(fault.document, fault.path) for fault in answer.faults] == [(1, "spec.cidr")]


def test_two_overlapping_pools_in_one_request_are_refused() -> None:
    answer = refused(Bench().apply(POOL, POOL.replace("default-ipv4-ippool", "other")))
    assert {fault.document for fault in answer.faults} == {0, 1}


def test_what_a_pool_was_made_with_cannot_change() -> None:
    answer = refused(Bench(POOL).apply(POOL.replace("blockSize: 26", "blockSize: 27")))
    assert [fault.path for fault in answer.faults] == ["spec.blockSize"]


def test_an_object_given_twice_is_refused() -> None:
    answer = refused(Bench().apply(NODE, NODE))
    assert [fault.document for fault in answer.faults] == [1]
    assert "twice" in answer.faults[0].reason


def test_more_changes_than_one_batch_holds_are_refused() -> None:
    many = [NODE.replace("node1", f"node{number}") for number in range(MAX_WRITES + 1)]
    assert refused(Bench().apply(*many)).reason == "too_large"


def test_an_object_that_was_deleted_is_created_anew() -> None:
    bench = Bench(NODE)
    bench.do(Delete([(Node, ("", "node1"))]))
    plan = planned(bench.apply(NODE))
    assert outcomes(plan) == ["created"]
    assert plan.writes[0].expected == 0


def test_fresher_facts_are_believed_over_the_mirror() -> None:
    bench = Bench()
    fact = Fact(DESIRED[Node], ("", "node1"), resource(NODE), 77)
    decision = bench.core.decide(Apply(read(NODE)), stamp(), {("node", "", "node1"): fact})
    assert outcomes(decision) == ["unchanged"]


# --- put


@pytest.mark.parametrize(("only_if", "reason"), [(None, None), (1, None), (2, "conflict"), (0, "conflict")])
def test_put_is_compare_and_swap(only_if: int | None, reason: str | None) -> None:
    bench = Bench(NODE)
    changed = read(NODE.replace("10.0.0.15", "10.0.0.99"))[0]
    decision = bench.do(Put(Node, ("", "node1"), changed, only_if))
    assert (decision.reason if isinstance(decision, Refused) else None) == reason


@pytest.mark.parametrize(("only_if", "reason"), [(None, None), (0, None), (5, "conflict")])
def test_put_creates_what_is_not_there(only_if: int | None, reason: str | None) -> None:
    decision = Bench().do(Put(Node, ("", "node1"), read(NODE)[0], only_if))
    assert (decision.reason if isinstance(decision, Refused) else None) == reason


def test_put_of_something_else_is_refused() -> None:
    assert refused(Bench().do(Put(Node, ("", "node2"), read(NODE)[0]))).reason == "invalid"
    assert refused(Bench().do(Put(Pod, ("", "node1"), read(NODE)[0]))).reason == "invalid"


# --- delete


def test_delete_removes_in_the_reverse_order_of_kinds() -> None:
    bench = Bench(*EVERYTHING)
    decision = planned(bench.do(Delete([(Namespace, ("", "develop")), (IPPool, POOL_KEY), (Node, ("", "node1"))])))
    assert [write.kind for write in decision.writes] == [IPPool, Node, Namespace]
    assert [write.resource for write in decision.writes] == [None] * 3
    assert bench.core.resource(Namespace, ("", "develop")) is None


def test_deleting_what_is_not_there_is_missing_unless_that_is_fine() -> None:
    bench = Bench(NODE)
    targets = [(Node, ("", "node1")), (Node, ("", "node2"))]
    assert refused(bench.do(Delete(targets))).reason == "missing"
    assert bench.core.resource(Node, ("", "node1")) is not None
    assert outcomes(bench.do(Delete(targets, missing_ok=True))) == ["deleted", "missing"]


def warned(bench: Bench, *targets: tuple[type, tuple[str, str]]) -> list[str]:
    return list(planned(bench.do(Delete(list(targets)))).results[0].warnings)


def test_deleting_a_namespace_names_what_is_left_in_it() -> None:
    bench = Bench(NAMESPACE, POD, CALICO_POLICY)
    (warning,) = warned(bench, (Namespace, ("", "develop")))
    assert "1 Pod" in warning
    assert "1 NetworkPolicy" in warning


def test_what_goes_along_is_no_reason_for_a_warning() -> None:
    bench = Bench(NAMESPACE, POD)
    assert warned(bench, (Namespace, ("", "develop")), (Pod, ("develop", "web"))) == []


def test_deleting_a_pool_or_node_in_use_warns() -> None:
    bench = Bench(POOL, NODE)
    block = Block(
        cidr=BlockCidr("10.244.0.0/26"),
        pool="default-ipv4-ippool",
        node=NodeName("node1"),
        allocations=(Allocation(ordinal=0, handle=HandleId("h"), sequence=1),),
    )
    endpoint = Endpoint(
        node=NodeName("node1"), namespace="develop", name="web", container="c", link="tor1", addresses=("10.244.0.0",)
    )
    bench.core.apply(Fact(BLOCK, ("10.244.0.0/26",), block, 1))
    bench.core.apply(Fact(ENDPOINT, ("node1", "develop", "web"), endpoint, 1))
    assert "1 address" in warned(bench, (IPPool, POOL_KEY))[0]
    assert len(warned(bench, (Node, ("", "node1")))) == 2


def test_deleting_a_service_account_in_use_warns() -> None:
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: develop}\n"
    bench = Bench(account, POD)
    assert "1 pod" in warned(bench, (ServiceAccount, ("develop", "default")))[0]


# --- the mirror


def test_resources_are_listed_by_namespace_and_name() -> None:
    bench = Bench(*(joined(CALICO_POLICY.replace("allow-web", n).replace("develop", s)) for s, n in ("ba", "ab", "aa")))
    keys = [stored.resource.key for stored in bench.core.resources(NetworkPolicy)]
    assert keys == [("a", "a"), ("a", "b"), ("b", "a")]
    assert len(bench.core.resources(NetworkPolicy, "a")) == 2
