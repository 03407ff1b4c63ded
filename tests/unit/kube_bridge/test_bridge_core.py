"""What of the bus follows from the objects of Kubernetes, whatever way they were told."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.resources import GlobalNetworkPolicy, IPPool, Metadata, Namespace, Pod, Resource
from bus_schemas.resources.calico_policy import GlobalNetworkPolicySpec
from bus_schemas.resources.pools import IPPoolSpec
from services.kube_bridge.core import Absent, Changed, Core, Fact, Gone, Id, Listed
from services.kube_bridge.mirror import Seen
from services.kube_bridge.sources import SOURCES, Source
from tests.support.kube_cluster import source_of

PODS = source_of("v1", "Pod")
NAMESPACES = source_of("v1", "Namespace")
PUBLIC = source_of("projectcalico.org/v3", "GlobalNetworkPolicy")
STORED = source_of("crd.projectcalico.org/v1", "GlobalNetworkPolicy")
POOLS = source_of("projectcalico.org/v3", "IPPool")
OTHER_POOLS = source_of("crd.projectcalico.org/v1", "IPPool")
DENY: Id = (GlobalNetworkPolicy, ("", "deny"))


def pod(name: str, label: str = "") -> Seen:
    resource = Pod(metadata=Metadata(namespace="shop", name=name, labels={"l": label}))
    return Seen(PODS, ("shop", name), ("shop", name), f"uid-{name}", label, 1, resource)


def rule(source: Source, name: str = "deny", order: float | None = None) -> Seen:
    resource = GlobalNetworkPolicy(metadata=Metadata(name="deny"), spec=GlobalNetworkPolicySpec(order=order))
    return Seen(source, ("", name), ("", "deny"), name, "1", 1, resource)


def broken(source: Source, name: str = "deny", stand_in: Resource | None = None) -> Seen:
    return Seen(source, ("", name), ("", "deny"), name, "2", 2, None, ("spec: wrong",), stand_in=stand_in)


def pool(name: str, cidr: str, created: str = "2026-01-01T00:00:00Z") -> Seen:
    resource = IPPool(metadata=Metadata(name=name, creation_timestamp=created), spec=IPPoolSpec(cidr=cidr))
    return Seen(POOLS, ("", name), ("", name), name, "1", 1, resource)


def told(core: Core, *facts: Fact) -> dict[Id, Resource | None]:
    for fact in facts:
        core.apply(fact)
    return core.flush().wanted


class Bus:
    """What the flushes leave."""

    def __init__(self) -> None:
        self.objects: dict[Id, Resource] = {}

    def take(self, wanted: dict[Id, Resource | None]) -> None:
        for id_, resource in wanted.items():
            if resource is None:
                self.objects.pop(id_, None)
            else:
                self.objects[id_] = resource


CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "1", "2"])), max_size=14)


@given(CHANGES, st.integers(0, 2**16))
def test_snapshot_and_stream_are_one(changes: list[tuple[str, str]], seed: int) -> None:
    """However much of a history comes as a list, however it is flushed, the end is the same. No label: it is gone."""
    hand = random.Random(seed)
    core, bus, now = Core(), Bus(), dict[str, Seen]()
    for name, label in changes:
        if label:
            now[name] = pod(name, label)
            core.apply(Changed(now[name]))
        else:
            now.pop(name, None)
            core.apply(Gone(PODS, ("shop", name)))
        if hand.random() < 0.2:
            for at in list(core.objects(PODS)):  # a gap: changes that nobody heard of
                if hand.random() < 0.5:
                    now.pop(at.name[1], None)
            core.apply(Listed(PODS, tuple(now.values())))
        if hand.random() < 0.5:
            bus.take(core.flush().wanted)
    bus.take(core.flush().wanted)
    assert bus.objects == {(Pod, seen.key): seen.resource for seen in now.values()}
    bus.take(told(core, *(Changed(seen) for seen in now.values()), Listed(PODS, tuple(now.values()))))
    assert bus.objects == {(Pod, seen.key): seen.resource for seen in now.values()}


def test_what_is_repeated_is_not_wanted_again() -> None:
    core = Core()
    assert len(told(core, Listed(PODS, (pod("a"), pod("b"))))) == 2
    assert told(core, Changed(pod("a")), Listed(PODS, (pod("b"), pod("a")))) == {}


def test_a_kind_is_complete_when_all_its_sources_have_spoken() -> None:
    core = Core()
    core.apply(Listed(PUBLIC, ()))
    assert core.flush().completed == []
    assert not core.may_remove(GlobalNetworkPolicy, ("", "x"))
    core.apply(Absent(STORED))
    assert core.flush().completed == [GlobalNetworkPolicy]
    assert core.may_remove(GlobalNetworkPolicy, ("", "x"))
    core.apply(Absent(POOLS))
    core.apply(Absent(OTHER_POOLS))
    assert core.flush().completed == []  # nobody has said what there is
    assert not core.may_remove(IPPool, ("", "x"))
    assert not core.may_remove(Namespace, ("", "x"))


def test_absence_of_a_resource_is_no_word_about_its_objects() -> None:
    core = Core()
    told(core, Listed(PUBLIC, (rule(PUBLIC),)), Absent(STORED))
    assert told(core, Absent(PUBLIC)) == {}
    assert core.leftovers() == {PUBLIC: 1}
    assert told(core, Listed(PUBLIC, ())) == {DENY: None}
    assert core.leftovers() == {}


@pytest.mark.parametrize("first", [PUBLIC, STORED])
def test_the_public_group_counts(first: Source) -> None:
    core = Core()
    seen = {PUBLIC: rule(PUBLIC, order=1), STORED: rule(STORED, "default.deny", order=2)}
    second = STORED if first is PUBLIC else PUBLIC
    told(core, Changed(seen[first]))
    core.apply(Changed(seen[second]))
    core.flush()
    assert [trouble.what for trouble in core.troubles] == ["shadowed"]
    assert core.trouble(STORED, ("", "default.deny")) is not None
    assert core.claims(*DENY)[0].resource == seen[PUBLIC].resource
    assert told(core, Gone(PUBLIC, ("", "deny"))) == {DENY: seen[STORED].resource}
    assert list(core.troubles) == []
    assert told(core, Gone(STORED, ("", "default.deny"))) == {DENY: None}


def test_what_cannot_be_read_any_more_stays_what_it_was() -> None:
    core, good = Core(), rule(PUBLIC)
    told(core, Changed(good))
    core.apply(Changed(broken(PUBLIC)))
    assert core.unsure() == []
    changes = core.flush()
    assert changes.wanted == {}
    (trouble,) = changes.raised
    assert (trouble.what, trouble.reasons) == ("invalid", ("spec: wrong",))
    assert trouble.instead == "what it was before stays in force"
    assert not core.may_remove(*DENY)
    core.apply(Changed(good))
    assert [trouble.what for trouble in core.flush().cleared] == ["invalid"]
    told(core, Changed(broken(PUBLIC)))
    core.apply(Gone(PUBLIC, ("", "deny")))
    changes = core.flush()
    assert (changes.wanted, len(changes.cleared)) == ({DENY: None}, 1)


@pytest.mark.parametrize("on_bus", [True, False])
@pytest.mark.parametrize("closes", [True, False])
def test_what_could_never_be_read_is_asked_of_the_bus(on_bus: bool, closes: bool) -> None:
    core = Core()
    before, stand_in = rule(PUBLIC, order=7).resource, rule(PUBLIC, order=9).resource
    core.apply(Listed(PUBLIC, (broken(PUBLIC, stand_in=stand_in if closes else None),)))
    core.apply(Absent(STORED))
    assert core.unsure() == [DENY]
    assert core.flush().wanted == {}  # it waits
    assert not core.may_remove(*DENY)
    core.recall(DENY, before if on_bus else None)
    changes = core.flush()
    expected = before if on_bus else stand_in if closes else None
    assert changes.wanted.get(DENY) == expected
    (trouble,) = changes.raised
    assert (
        trouble.instead
        == {
            (True, True): "what it was before stays in force",
            (True, False): "what it was before stays in force",
            (False, True): "what it isolates is closed",
            (False, False): "nothing of it is in force",
        }[on_bus, closes]
    )


def ages(order: Iterable[int]) -> list[Seen]:
    seen = [
        pool("old", "10.0.0.0/16", "2026-01-01T00:00:00Z"),
        pool("new", "10.0.128.0/17", "2026-02-01T00:00:00Z"),
        pool("else", "10.1.0.0/16", "2026-03-01T00:00:00Z"),
    ]
    return [seen[at] for at in order]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_of_pools_that_overlap_the_older_one_counts(order: tuple[int, ...]) -> None:
    core, bus = Core(), Bus()
    bus.take(told(core, Listed(POOLS, tuple(ages(order)))))
    assert {key[1] for _, key in bus.objects} == {"old", "else"}
    (trouble,) = core.troubles
    assert trouble.name == ("", "new")
    assert "overlaps the pool old" in trouble.reasons[0]
    bus.take(told(core, Gone(POOLS, ("", "old"))))
    assert {key[1] for _, key in bus.objects} == {"new", "else"}
    assert list(core.troubles) == []


def test_a_pool_that_is_in_force_is_not_pushed_out_and_does_not_shrink() -> None:
    core, bus = Core(), Bus()
    bus.take(told(core, Changed(ages([1])[0])))
    bus.take(told(core, Changed(ages([0])[0])))  # older, but later
    assert {key[1] for _, key in bus.objects} == {"new"}
    bus.take(told(core, Changed(pool("new", "10.0.192.0/18", "2026-02-01T00:00:00Z"))))
    assert bus.objects[IPPool, ("", "new")] == ages([1])[0].resource
    assert any("would leave blocks" in "; ".join(trouble.reasons) for trouble in core.troubles)


def test_every_source_has_a_place() -> None:
    core = Core()
    for source in SOURCES:
        core.apply(Listed(source, ()))
    assert set(core.flush().completed) == {source.resource for source in SOURCES}
    assert core.count(NAMESPACES) == 0
