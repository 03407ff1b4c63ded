"""What a node kept warm becomes a pod's, once, whoever hears of it in whatever order."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, PoolExhausted, Refused, Released, ReleaseRequest
from bus_schemas.subjects import BLOCK, HANDLE
from services.ipam.limits import Limits
from tests.support.ipam import START, Replica, ask, check_store, cluster, give_back, node, pool, without

N1, N2 = node("n1"), node("n2")
FOUR = pool("four", "10.0.0.0/24", block_size=30)
SIX = pool("six", "fd00::/64", block_size=126)
WARM, POD = HandleId("warm.n1.7"), HandleId("k8s-pod-network.c0ffee")


def warm(ipam: Replica, handle: str = WARM, on: str = "n1") -> tuple[str, ...]:
    [reply] = ipam.answer(ask(handle, on, use="warm"))
    assert isinstance(reply, Assigned), reply
    return reply.addresses


def pod(*addresses: str, on: str = "n1", **fields: Any) -> AssignRequest:
    return ask(POD, on, takes_over=WARM, addresses=addresses, namespace="web", pod="shop", **fields)


def test_one_write_and_the_warm_handle_is_no_more() -> None:
    store, [ipam] = cluster(FOUR, SIX, N1)
    both = warm(ipam)
    written = len(store.log)
    assert ipam.answer(pod(*both), now=START + 5) == [Assigned(addresses=both)]
    assert [fact.family for fact in store.log[written:]] == [BLOCK, BLOCK, HANDLE, HANDLE]
    held = store.get(HANDLE, (POD,)).value
    assert (held.addresses, held.use, held.namespace, held.pod) == (both, "workload", "web", "shop")
    assert held.assigned == START + 5
    assert store.get(HANDLE, (WARM,)).value is None
    assert check_store(store) == dict.fromkeys(both, POD)


def test_asking_again_is_answered_again() -> None:
    store, [ipam] = cluster(FOUR, N1)
    one = warm(ipam)
    first, again = ipam.answer(pod(*one), pod(*one))
    assert (first, again) == (Assigned(addresses=one), Assigned(addresses=one, repeated=True))
    written = len(store.log)
    assert ipam.answer(pod()) == [Assigned(addresses=one, repeated=True)]
    assert len(store.log) == written


def test_the_addresses_need_not_be_named() -> None:
    _, [ipam] = cluster(FOUR, N1)
    one = warm(ipam)
    assert ipam.answer(pod()) == [Assigned(addresses=one)]


def test_a_late_release_of_the_warm_handle_frees_nothing() -> None:
    store, [ipam] = cluster(FOUR, N1)
    one = warm(ipam)
    sequence = store.values(BLOCK)[0].allocations[0].sequence
    ipam.answer(pod(*one))
    late = ReleaseRequest(address=one[0], sequence=sequence)
    assert ipam.answer(give_back(WARM), late) == [Released(), Released()]
    assert check_store(store) == {one[0]: POD}
    assert ipam.answer(give_back(POD)) == [Released(addresses=one)]


def test_what_was_thought_forgotten_is_taken_if_it_is_free() -> None:
    store, [ipam] = cluster(FOUR, N1, limits=Limits(cooldown_s=60))
    one = warm(ipam)
    ipam.answer(give_back(WARM))
    assert ipam.answer(pod(*one)) == [Assigned(addresses=one)], "although it cools down"
    assert check_store(store) == {one[0]: POD}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (pod("10.0.0.200"), "which is not what is to be taken over"),
        (pod("nonsense"), "nonsense"),
        (pod(families=(4, 6)), "which is not what is to be taken over"),
        (pod(on="n2"), "cannot pass to another node"),
        (ask(POD, takes_over=HandleId("warm.n1.8")), "holds nothing to take over, and no address is named"),
    ],
)
def test_what_cannot_be_taken_over(request_: AssignRequest, says: str) -> None:
    store, [ipam] = cluster(FOUR, N1, N2)
    [address] = warm(ipam)
    [reply] = ipam.answer(request_)
    assert isinstance(reply, Refused)
    assert says in reply.reason
    assert check_store(store) == {address: WARM}


def test_an_address_that_somebody_else_has_by_now() -> None:
    store, [ipam] = cluster(FOUR, N1)
    one = warm(ipam)
    ipam.answer(give_back(WARM))
    ipam.answer(ask("other", addresses=one))
    [reply] = ipam.answer(pod(*one))
    assert isinstance(reply, Refused)
    assert "in use by handle other" in reply.reason
    assert check_store(store) == {one[0]: "other"}


def test_what_the_pod_runs_with_is_its_own_although_no_pool_serves_it_any_more() -> None:
    store, [ipam] = cluster(FOUR, N1)
    one = warm(ipam)
    for fact in (without(FOUR), without(N1)):
        store.put(fact)
    ipam.catch_up()
    ipam.repair()
    assert ipam.answer(pod(*one)) == [Assigned(addresses=one)]
    assert not isinstance(ipam.answer(ask("new"))[0], Assigned | PoolExhausted)


@pytest.mark.parametrize("known", range(8))
def test_a_replica_that_lags_gives_the_same_answer(known: int) -> None:
    """Whatever it has heard of: nothing, the claim, the block but not the handle, all."""
    store, [one, two] = cluster(FOUR, N1, replicas=2)
    held = warm(one)
    two.catch_up(known)
    assert two.answer(pod(*held)) == [Assigned(addresses=held)]
    assert check_store(store) == {held[0]: POD}
    assert store.get(HANDLE, (POD,)).value.node == NodeName("n1")


def test_a_replica_that_has_not_heard_that_the_address_came_back_does_not_refuse_it() -> None:
    store, [one, two] = cluster(FOUR, N1, replicas=2)
    one.answer(ask("before", addresses=("10.0.0.9",)))
    two.catch_up()
    one.answer(give_back("before"))
    assert two.answer(ask("after", addresses=("10.0.0.9",))) == [Assigned(addresses=("10.0.0.9",))]
    assert check_store(store) == {"10.0.0.9": "after"}
