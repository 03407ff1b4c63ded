"""Which addresses a node keeps warm, and for whom they are."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.ids import HandleId
from bus_schemas.resources import IPPool
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from services.node_dataplane.endpoint_store import Warm
from services.node_dataplane.warm import Demand, Families, Plan, fits, plan, serving
from services.node_dataplane.wishes import Wishes

LABELS = {"zone": "a"}


def pool(cidr: str = "10.0.0.0/16", **spec: Any) -> IPPool:
    return IPPool(metadata=Metadata(name=cidr), spec=IPPoolSpec(cidr=cidr, **spec))


FOUR, SIX = pool(), pool("fd00::/64")
CHOOSY = pool("10.9.0.0/16", namespace_selector="team == 'x'")


def warm(name: str, *addresses: str, families: Families = (4,)) -> Warm:
    return Warm(handle=HandleId(name), families=families, addresses=addresses)


@pytest.mark.parametrize(
    ("other", "open_", "choosy"),
    [
        (pool(disabled=True), 0, 0),
        (pool(assignment_mode="Manual"), 0, 0),
        (pool(allowed_uses=("LoadBalancer",)), 0, 0),
        (pool(node_selector="zone == 'b'"), 0, 0),
        (pool(node_selector="zone == 'a'"), 1, 0),
        (pool(node_selector="zone =="), 0, 0),
        (pool(namespace_selector="team =="), 0, 0),
        (pool(namespace_selector="all()"), 1, 0),
        (CHOOSY, 0, 1),
        (pool("10.9.0.0/16", node_selector="zone == 'b'", namespace_selector="team == 'x'"), 0, 0),
    ],
)
def test_pools_that_serve(other: IPPool, open_: int, choosy: int) -> None:
    here = serving([other], LABELS)
    assert (len(here.open), len(here.choosy)) == (open_, choosy)


@pytest.mark.parametrize(
    ("wanting", "namespace", "pools", "families"),
    [
        (Wishes(), None, [FOUR], (4,)),
        (Wishes(), None, [FOUR, SIX], (4, 6)),
        (Wishes(families=(6,)), None, [FOUR, SIX], (6,)),
        (Wishes(families=(6,)), None, [FOUR], ()),
        (Wishes(), None, [], ()),
        (Wishes(pools=("a",)), None, [FOUR], ()),
        (Wishes(), None, [FOUR, CHOOSY], ()),
        (Wishes(), {}, [FOUR, CHOOSY], (4,)),
        (Wishes(), {"team": "x"}, [FOUR, CHOOSY], ()),
        (Wishes(), {"team": "x"}, [CHOOSY], ()),
    ],
)
def test_whom_a_warm_address_fits(
    wanting: Wishes, namespace: dict[str, str] | None, pools: list[IPPool], families: Families
) -> None:
    assert fits(wanting, namespace, serving(pools, LABELS)) == families


@pytest.mark.parametrize(
    ("kept", "pools", "live", "scarce", "expected"),
    [
        ([], [FOUR], [()], (), Plan(((4,), (4,)), ())),
        ([], [FOUR, SIX], [()], (), Plan(((4, 6), (4, 6)), ())),
        ([], [FOUR, SIX], [(), (4,)], (), Plan(((4,), (4,), (4, 6), (4, 6)), ())),
        ([], [FOUR], [(), (4,)], (), Plan(((4,), (4,)), ())),
        ([warm("a", "10.0.0.1")], [FOUR], [()], (), Plan(((4,),), ())),
        ([warm("a")], [FOUR], [()], (), Plan(((4,),), ())),
        ([warm("a", "10.0.0.1")], [FOUR], [], (), Plan((), ("a",))),
        ([warm("a", "10.0.0.1")], [pool("10.1.0.0/16")], [()], (), Plan(((4,), (4,)), ("a",))),
        ([warm("a", "10.0.0.1")], [FOUR, SIX], [()], (), Plan(((4, 6), (4, 6)), ("a",))),
        ([warm(n, f"10.0.0.{n}") for n in "123"], [FOUR], [()], (), Plan((), ("3",))),
        ([warm("a", "10.0.0.1")], [FOUR], [()], ((4,),), Plan((), ("a",))),
        ([], [], [()], (), Plan((), ())),
    ],
)
def test_plan(
    kept: list[Warm], pools: list[IPPool], live: list[Families], scarce: tuple[Families, ...], expected: Plan
) -> None:
    assert plan(kept, serving(pools, LABELS), live, 2, frozenset(scarce)) == expected


def test_none_are_kept_where_none_shall_be() -> None:
    assert plan([warm("a", "10.0.0.1")], serving([FOUR], {}), [()], 0, frozenset()) == Plan((), ("a",))


def test_demand_ends_when_no_pod_comes() -> None:
    demand = Demand(idle_s=10.0)
    assert demand.changes_in(0.0) is None
    demand.note((), 0.0)
    demand.note((4,), 5.0)
    assert demand.live(9.0) == ((), (4,))
    assert demand.changes_in(9.0) == 1.0
    assert demand.live(10.0) == ((4,),)
    demand.note((), 11.0)
    assert set(demand.live(14.9)) == {(), (4,)}
    assert demand.live(30.0) == ()
    assert demand.changes_in(30.0) is None
