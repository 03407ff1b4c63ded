"""Blocks and handles from what agents say and replicas remember."""

from __future__ import annotations

from typing import Any

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Held, Holding
from bus_schemas.subjects import BLOCK, ENDPOINT, HANDLE, HOLDING, Fact
from services.ipam.block import Withholding
from services.ipam.core import Decision
from services.ipam.draft import Draft
from services.ipam.recovery import Recovery, older, owners, records
from services.ipam.release import Behind
from services.ipam.words import Words
from tests.support.ipam import START, Replica, affinities, ask, check_store, cluster, node, pool
from tests.support.ipam import owners as owned_by

POOL = pool("four", "10.0.0.0/24", block_size=28)
SIX = pool("six", "fd00::/120", block_size=124)


def endpoint(on: str, name: str, *addresses: str, **fields: Any) -> Fact:
    value = Endpoint(
        node=NodeName(on),
        namespace="default",
        name=name,
        container=name,
        handle=fields.pop("handle", HandleId(f"net.{name}")),
        link=f"tor{name}",
        addresses=addresses,
        **fields,
    )
    return Fact(ENDPOINT, (on, "default", name), value, 1)


def holding(on: str, *held: Held, epoch: str = "one", blocks: tuple[str, ...] = ()) -> Fact:
    value = Holding(node=NodeName(on), epoch=epoch, held=held, blocks=blocks)  # type: ignore[arg-type]
    return Fact(HOLDING, (on,), value, 1)


def warm(handle: str, *addresses: str, use: str = "warm") -> Held:
    return Held(handle=HandleId(handle), addresses=addresses, use=use)


def recover(replica: Replica, words: Words, memory: Any = (), remembered: Any = None) -> list[str]:
    """As the keeper of the epoch does, to the end; the problems."""
    collected = records(words, memory)
    problems = list(collected.conflicts)
    read: list[Behind] = []
    for _ in range(50):
        draft = Draft(replica.core.ledger, Withholding(START))
        recovery = Recovery(draft, replica.core.desired, words, owners(words.holdings, remembered or {}), read)
        recovery.take_in(collected.records)
        decision = Decision(writes=tuple(draft.writes()), behind=tuple(recovery.behind))
        if not decision.writes and not decision.behind:
            return problems + recovery.problems
        replica.commit(decision)
        replica.look_again(decision)
        read = recovery.behind
    raise AssertionError("it does not come to an end")


def test_words_become_blocks_handles_and_affinities() -> None:
    store, [replica] = cluster(POOL, SIX, node("n1"), node("n2"))
    words = Words(
        [
            endpoint("n1", "a", "10.0.0.1", "fd00::1"),
            endpoint("n1", "b", "10.0.0.2"),
            endpoint("n2", "c", "10.0.0.3"),
            holding("n1", warm("vxlan-tunnel-addr-n1", "10.0.0.0", use="tunnel"), blocks=("10.0.0.0/28",)),
            holding("n2", warm("warm.n2.1", "10.0.0.17")),
        ]
    )
    assert recover(replica, words) == []
    assert check_store(store) == {
        "10.0.0.0": "vxlan-tunnel-addr-n1",
        "10.0.0.1": "net.a",
        "fd00::1": "net.a",
        "10.0.0.2": "net.b",
        "10.0.0.3": "net.c",
        "10.0.0.17": "warm.n2.1",
    }
    assert owned_by(store) == {"10.0.0.0/28": "n1", "fd00::/124": "n1", "10.0.0.16/28": "n2"}
    assert affinities(store) == {
        ("n1", "10.0.0.0/28"): "confirmed",
        ("n1", "fd00::/124"): "confirmed",
        ("n2", "10.0.0.16/28"): "confirmed",
    }
    [reply] = replica.answer(ask("net.c", "n2"))
    assert reply.addresses == ("10.0.0.3",)  # type: ignore[union-attr]
    replica.repair()
    check_store(store)


def test_a_warm_address_is_its_pods_as_soon_as_there_is_one() -> None:
    words = Words([endpoint("n1", "a", "10.0.0.1"), holding("n1", warm("warm.n1.1", "10.0.0.1"))])
    assert [record.handle for record in records(words, []).records] == ["net.a"]


def test_floating_addresses_are_handles_of_their_own() -> None:
    words = Words([endpoint("n1", "a", "10.0.0.1", floating=(("10.0.0.9", "10.0.0.1"),))])
    found = {record.handle: (record.use, record.addresses) for record in records(words, []).records}
    assert found == {"net.a": ("workload", ("10.0.0.1",)), "net.a.floating": ("floating", ("10.0.0.9",))}


def test_what_nobody_contradicts_is_remembered_and_what_a_node_says_counts_more() -> None:
    store, [before] = cluster(POOL, node("n1"), node("n2"))
    for handle in ("x", "y", "z"):
        before.answer(ask(handle, "n1"))
    given = {handle: address for address, handle in check_store(store).items()}
    memory = store.values(HANDLE)
    words = Words([endpoint("n2", "a", given["x"])])

    store, [replica] = cluster(POOL, node("n1"), node("n2"))
    assert recover(replica, words, memory) == []
    assert check_store(store) == {given["x"]: "net.a", given["y"]: "y", given["z"]: "z"}


def test_a_record_that_nobody_was_told_of_gives_way() -> None:
    store, [replica] = cluster(POOL, node("n1"), node("n2"))
    replica.answer(ask("stale", "n1", addresses=("10.0.0.1",)))
    replica.answer(ask("net.b", "n1", addresses=("10.0.0.2",)))
    words = Words([endpoint("n2", "a", "10.0.0.1"), endpoint("n2", "b", "10.0.0.5")])
    assert recover(replica, words) == []
    assert check_store(store) == {"10.0.0.1": "net.a", "10.0.0.5": "net.b"}


def test_what_is_left_of_a_lost_handle_is_the_nodes_own_again_or_somebody_elses() -> None:
    store, [replica] = cluster(POOL, node("n1"), node("n2"))
    replica.answer(ask("net.a", "n1", addresses=("10.0.0.1",)), ask("gone", "n1", addresses=("10.0.0.2",)))
    store.lose(HANDLE)
    replica.restart()
    for handle in ("net.a", "gone"):
        replica.core.ledger.apply(Fact(HANDLE, (handle,), None, 99))
    words = Words([endpoint("n1", "a", "10.0.0.1"), endpoint("n2", "b", "10.0.0.2")])
    replica.core.ledger.handles.clear()
    collected = records(words, [])
    draft = Draft(replica.core.ledger, Withholding(START))
    Recovery(draft, replica.core.desired, words, {}).take_in(collected.records)
    written = {write.key: write.message for write in draft.writes() if write.message is not None}
    assert {a.handle for a in written["10.0.0.0/28",].allocations} == {"net.a", "net.b"}  # type: ignore[attr-defined]
    assert {("net.a",), ("net.b",)} <= written.keys()


def test_half_of_a_batch_is_no_reason_to_recover_for_ever() -> None:
    """A record names an address that its block knows nothing of, and the node says that it holds another."""
    store, [ipam] = cluster(POOL, node("n1"))
    ipam.answer(ask("net.a", addresses=("10.0.0.9",)))
    [block] = store.values(BLOCK)
    empty = msgspec.structs.replace(block, allocations=(), free=tuple(range(16)), sequence=block.sequence + 1)
    store.put(Fact(BLOCK, (block.cidr,), empty, 0))
    ipam.catch_up()
    assert not recover(ipam, Words([endpoint("n1", "a", "10.0.0.1"), holding("n1")]))
    assert check_store(store) == {"10.0.0.1": "net.a"}


def test_what_lies_in_a_block_that_cannot_be_read_stays_there() -> None:
    store, [ipam] = cluster(POOL, node("n1"))
    ipam.answer(ask("net.a", addresses=("10.0.0.20",)))
    [block] = store.values(BLOCK)
    ipam.core.cannot_read(BLOCK, (block.cidr,), 99, "no msgpack")
    problems = recover(ipam, Words([endpoint("n1", "a", "10.0.0.1"), holding("n1")]))
    assert problems == ["10.0.0.20 of net.a is in the block 10.0.0.16/28, which cannot be worked with"]
    assert check_store(store) == {"10.0.0.20": "net.a"}


def test_an_address_of_two_nodes_is_named_and_stays_taken() -> None:
    store, [replica] = cluster(POOL, node("n1"), node("n2"))
    words = Words([endpoint("n1", "a", "10.0.0.1"), endpoint("n2", "b", "10.0.0.1")])
    assert recover(replica, words) == ["10.0.0.1 is held by the nodes n1 and n2"]
    assert check_store(store) == {"10.0.0.1": "net.a"}


def test_more_than_fits_in_a_batch() -> None:
    store, [replica] = cluster(pool("big", "10.0.0.0/20", block_size=26), node("n1"))
    words = Words([endpoint("n1", f"p{i}", f"10.0.{i // 250}.{i % 250}") for i in range(700)])
    assert recover(replica, words) == []
    assert len(check_store(store)) == 700


def test_an_address_of_no_pool_is_kept_from_everybody() -> None:
    store, [replica] = cluster(POOL, node("n1"))
    assert recover(replica, Words([endpoint("n1", "a", "192.168.1.1")])) == []
    assert check_store(store) == {"192.168.1.1": "net.a"}
    replica.repair()
    assert check_store(store) == {"192.168.1.1": "net.a"}


def test_an_address_that_fits_in_no_block_is_named() -> None:
    store, [replica] = cluster(pool("four", "10.0.0.0/24", block_size=28), node("n1"))
    replica.answer(ask("x", "n1", addresses=("10.0.0.1",)))
    replica.core.apply(pool("four", "10.0.0.0/24", block_size=26))
    [problem] = recover(replica, Words([endpoint("n1", "a", "10.0.0.60")]))
    assert "10.0.0.0/26 overlaps" in problem
    assert check_store(store) == {"10.0.0.1": "x"}


def test_two_that_recover_at_once_agree() -> None:
    words = Words([endpoint("n1", f"p{i}", f"10.0.0.{i}") for i in range(40)])
    store, [one, other] = cluster(POOL, node("n1"), replicas=2)
    drafts = []
    for replica in (one, other):
        draft = Draft(replica.core.ledger, Withholding(START))
        Recovery(draft, replica.core.desired, words, {}).take_in(records(words, []).records)
        drafts.append(Decision(writes=tuple(draft.writes())))
    assert one.commit(drafts[0])
    assert not other.commit(drafts[1])
    recover(other, words)
    assert len(check_store(store)) == 40


def test_older_than_a_life_of_the_records() -> None:
    assert older("2023-11-14T22:13:19Z", START)
    assert not older("2023-11-14T22:13:20Z", START + 0.9)
    assert not older("", START)


def test_words_come_and_go() -> None:
    words = Words([endpoint("n1", "a", "10.0.0.1"), holding("n1", warm("w", "10.0.0.2"))])
    assert words.users("10.0.0.1") == words.users("10.0.0.2") == {"n1"}
    assert words.has_spoken(NodeName("n1"), "one")
    assert not words.has_spoken(NodeName("n1"), "two")
    words.apply(endpoint("n1", "a", "10.0.0.3"))
    words.apply(holding("n1", epoch="two"))
    assert not words.users("10.0.0.1") | words.users("10.0.0.2")
    assert words.epochs == {"two"}
    for fact in (endpoint("n1", "a"), holding("n1")):
        words.apply(fact._replace(value=None))
    assert not words.nodes
    assert not words.any_endpoint
