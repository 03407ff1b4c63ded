"""Reports about addresses: what they count, whose an address is, what is in force; and what may be released."""

from __future__ import annotations

import msgspec
import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Block, Busy, Candidate, Cooling, Epoch, Refused, Released, ReleaseRequest
from bus_schemas.ipam_check import check
from bus_schemas.status import Status
from bus_schemas.subjects import BLOCK, CANDIDATE, EPOCH, STATUS, Fact
from services.api import ipam_views as views
from services.api.core import Core
from services.api.ipam_release import Asked, Outcome, ask, outcome
from services.ipam.settings import Settings as IpamSettings
from tests.support.api import resource
from tests.support.ipam_records import (
    NOW,
    SEQUENCE,
    World,
    block,
    endpoint,
    handle,
    node,
    pool,
    reservation,
    sound,
    with_address,
)

CONFIGURATION = """\
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata: {name: default}
spec: {strictAffinity: true, maxBlocksPerHost: 0, ipCooldownSeconds: 30}
"""


def core_of(world: World) -> Core:
    core = Core()
    for fact in world.facts.values():
        core.apply(fact)
    return core


def test_pools_count_their_blocks() -> None:
    world = sound().put(reservation("10.244.0.64/31", "10.244.9.0/30"), block("10.9.0.0/26", node=None, pool="gone"))
    report = views.usage(core_of(world), NOW)
    (pool_row,) = report["pools"]
    (block_row,) = pool_row.pop("blocks")
    assert pool_row == {
        "name": "default",
        "cidr": "10.244.0.0/16",
        "total": 65536,
        "inUse": 2,
        "reserved": 5,
        "free": 65529,
        "cooling": 0,
        "warm": 0,
        "borrowed": 1,
    }
    assert block_row == {
        "cidr": "10.244.0.64/26",
        "node": "node1",
        "total": 64,
        "inUse": 2,
        "reserved": 1,
        "free": 61,
        "cooling": 0,
        "warm": 0,
        "borrowed": 1,
        "reservedInUse": 1,
    }
    assert [row["cidr"] for row in report["orphans"]] == ["10.9.0.0/26"]
    assert report["epoch"] is None


def test_a_block_counts_for_the_pool_that_it_lies_in() -> None:
    world = sound().put(pool("split-default-0", "10.244.0.0/17"))
    counted = {row["name"]: row["inUse"] for row in views.usage(core_of(world), NOW)["pools"]}
    assert counted == {"default": 0, "split-default-0": 2}


def test_a_nodes_own_range_is_a_pool_once_it_is_used() -> None:
    world = sound().put(node("node1", "10.7.0.0/24"))
    assert [row["name"] for row in views.usage(core_of(world), NOW)["pools"]] == ["default"]
    world.put(block("10.7.0.0/26", pool="podcidr-node1"))
    assert [(row["name"], row["cidr"], row["total"]) for row in views.usage(core_of(world), NOW)["pools"]][1:] == [
        ("podcidr-node1", "10.7.0.0/24", 256)
    ]


def test_a_pool_counts_what_lies_in_ranges_of_nodes_too() -> None:
    world = sound().put(node("node1", "10.244.0.0/24"))
    assert {row["name"]: row["inUse"] for row in views.usage(core_of(world), NOW)["pools"]} == {"default": 2}


def test_a_block_that_is_no_network_hides_no_other() -> None:
    core = core_of(sound())
    core.apply(Fact(BLOCK, ("garbage",), block("garbage"), 9))
    assert views.usage(core, NOW)["pools"][0]["inUse"] == 2
    assert {finding.object for finding in check(views.records(core), NOW).problems} == {"garbage"}


def test_what_is_kept_ready_is_free_until_a_pod_takes_it() -> None:
    world = sound().put(
        with_address(block(), 3, "warm.node1.1"), handle("warm.node1.1", "10.244.0.67", pod="", use="warm")
    )
    (row,) = views.usage(core_of(world), NOW)["pools"]
    assert (row["inUse"], row["warm"], row["free"]) == (0, 1, 65536)
    assert views.address(core_of(world), "10.244.0.67", NOW)["state"] == "warm"
    taken = core_of(world.put(endpoint("c", "10.244.0.67", handle="cni.c")))
    (row,) = views.usage(taken, NOW)["pools"]
    assert (row["inUse"], row["warm"]) == (1, 0)
    assert views.address(taken, "10.244.0.67", NOW)["state"] == "in use"


def test_what_is_borrowed() -> None:
    (row,) = views.borrowed(core_of(sound()))
    assert row == {
        "ip": "10.244.0.71",
        "node": "node2",
        "block": "10.244.0.64/26",
        "owner": "node1",
        "use": "workload",
        "namespace": "default",
        "pod": "b",
        "handle": "cni.b",
    }


def test_what_the_records_wait_for() -> None:
    core = core_of(sound())
    told = Epoch(id="e", state="recovering", began=1.0, missing=(NodeName("node2"),))
    core.apply(Fact(EPOCH, (), told, 1))
    assert views.usage(core, NOW)["epoch"] == {"id": "e", "state": "recovering", "began": 1.0, "missing": ["node2"]}
    core.apply(Fact(EPOCH, (), None, 2))
    assert views.epoch(core) is None


def test_candidates_come_by_what_is_due_first() -> None:
    core = core_of(sound())
    for name, due in (("late", 9.0), ("soon", 3.0)):
        candidate = Candidate(handle=HandleId(name), node=NodeName("node1"), reason="r", since=1.0, due=due)
        core.apply(Fact(CANDIDATE, (name,), candidate, 1))
    assert [item["handle"] for item in views.candidates(core)["items"]] == ["soon", "late"]


# --- configuration


def told(core: Core, instance: str, **detail: str) -> None:
    status = Status(component="ipam", instance=instance, started=0.0, ready=True, detail=detail)
    core.apply(Fact(STATUS, ("ipam", instance), status, 4))


def test_configuration_is_what_address_management_says_of_itself() -> None:
    core = core_of(sound())
    assert views.configuration(core) == views.CONFIGURATION_DEFAULTS
    told(core, "i", strictAffinity="true")
    assert views.configuration(core)["strictAffinity"] == "true"


def test_replicas_that_are_set_differently_are_seen() -> None:
    core = core_of(sound())
    for instance, limit in (("a", 20), ("b", 0)):
        told(core, instance, **IpamSettings(max_blocks_per_node=limit).told)
    assert views.configuration(core)["MaxBlocksPerHost"] == "20 (a), unlimited (b)"


def test_the_configured_is_in_force() -> None:
    core = core_of(sound().put(resource(CONFIGURATION)))
    told(core, "i", strictAffinity="false", AutoAllocateBlocks="false", MaxBlocksPerHost="20")
    assert views.configuration(core) == {
        "strictAffinity": "true",
        "AutoAllocateBlocks": "false",
        "MaxBlocksPerHost": "unlimited",
        "IPCooldownSeconds": "30",
    }


# --- one address


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.244.0.64", {"state": "in use", "namespace": "default", "pod": "a", "node": "node1", "use": "workload"}),
        ("10.244.0.64", {"assigned": True, "sequence": SEQUENCE, "holders": ["pod default/a on node1"]}),
        ("10.244.0.71", {"assigned": True, "pod": "b", "node": "node2", "owner": "node1"}),
        ("10.244.0.65", {"assigned": False, "state": "free", "block": "10.244.0.64/26", "owner": "node1"}),
        ("10.244.0.66", {"state": "cooling", "releasedAt": 5.0}),
        ("10.244.9.9", {"state": "unclaimed", "block": "", "pool": "default", "reservedBy": ["kept"]}),
        ("192.0.2.1", {"state": "unmanaged", "pool": ""}),
        ("fd00::1", {"state": "unmanaged", "pool": ""}),
    ],
)
def test_whose_an_address_is(ip: str, expected: dict[str, object]) -> None:
    world = sound().put(reservation("10.244.9.0/24"))
    resting = world.facts[BLOCK, ("10.244.0.64/26",)]
    world.put(
        type(resting.value)(
            **{f: getattr(resting.value, f) for f in resting.value.__struct_fields__}
            | {"cooling": (Cooling(ordinal=2, released=5.0),)}
        )
    )
    report = views.address(core_of(world), ip, NOW)
    assert {key: report[key] for key in expected} == expected


def test_a_rest_ends_though_its_block_remembers_it() -> None:
    world = sound()
    block = world.facts[BLOCK, ("10.244.0.64/26",)].value
    assert isinstance(block, Block)
    released = (Cooling(ordinal=2, released=5.0), Cooling(ordinal=3, released=8.0))
    core = core_of(world.put(msgspec.structs.replace(block, cooling=released)))
    told(core, "a", IPCooldownSeconds="2.0")
    told(core, "b", IPCooldownSeconds="3.0")

    def resting(now: float) -> int:
        (pool,) = views.usage(core, now)["pools"]
        return int(pool["cooling"])

    assert [resting(now) for now in (6.0, 9.0, 12.0)] == [2, 1, 0]
    assert views.address(core, "10.244.0.66", 9.0)["state"] == "free"
    assert views.address(core, "10.244.0.67", 9.0)["state"] == "cooling"
    assert resting(12.0) == 0
    longer = core_of(world.put(resource(CONFIGURATION)))
    assert views.usage(longer, 12.0)["pools"][0]["cooling"] == 2


def test_what_is_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        views.address(Core(), "nonsense", NOW)


# --- giving back


def test_an_address_that_nobody_uses_is_asked_for_by_handle_and_sequence() -> None:
    core = core_of(sound())
    core.endpoints.clear()
    wanted = ReleaseRequest(address="10.244.0.64", handle=HandleId("cni.a"), sequence=SEQUENCE)
    assert ask(core, Asked(ip="10.244.0.64"), NOW, force=False) == wanted
    assert ask(core, Asked(ip="10.244.0.64", handle="cni.a", sequence=SEQUENCE), NOW, force=False) == wanted


def test_an_address_that_is_used_is_released_by_force_alone() -> None:
    core = core_of(sound())
    refused = ask(core, Asked(ip="10.244.0.64"), NOW, force=False)
    assert isinstance(refused, Outcome)
    assert (refused.outcome, refused.reason.partition(":")[0]) == (
        "refused",
        "pod default/a on node1 says that it is in use",
    )
    assert isinstance(ask(core, Asked(ip="10.244.0.64"), NOW, force=True), ReleaseRequest)


@pytest.mark.parametrize(
    ("asked", "outcome_", "reason"),
    [
        (Asked(ip="10.244.0.65"), "unchanged", "it is not in use"),
        (Asked(ip="nonsense"), "refused", "'nonsense' does not appear to be an IPv4 or IPv6 address"),
        (Asked(ip="10.244.0.64", handle="cni.a", sequence=1), "unchanged", "it was given anew since, to cni.a"),
        (Asked(ip="10.244.0.64", handle="cni.z", sequence=SEQUENCE), "unchanged", "it was given anew since, to cni.a"),
    ],
)
def test_what_is_not_asked_for(asked: Asked, outcome_: str, reason: str) -> None:
    found = ask(core_of(sound()), asked, NOW, force=True)
    assert isinstance(found, Outcome)
    assert (found.outcome, found.reason) == (outcome_, reason)


def test_what_address_management_answers() -> None:
    assert outcome("10.0.0.1", Released(addresses=("10.0.0.1",))).outcome == "released"
    assert outcome("10.0.0.1", Released()).outcome == "unchanged"
    assert outcome("10.0.0.1", Refused(reason="r")) == Outcome(ip="10.0.0.1", outcome="refused", reason="r")
    assert outcome("10.0.0.1", Busy(reason="r")).outcome == "busy"


def test_a_pod_that_moves_is_a_holder_on_both_nodes() -> None:
    core = core_of(sound().put(endpoint("a", "10.244.0.64", node="node2")))
    assert len(views.address(core, "10.244.0.64", NOW)["holders"]) == 2
