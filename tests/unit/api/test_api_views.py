from __future__ import annotations

import pytest

from bus_schemas.ids import BlockCidr, HandleId, NodeName
from bus_schemas.ipam import Allocation, Block, Handle
from bus_schemas.status import Status
from bus_schemas.subjects import BLOCK, HANDLE, STATUS, Fact
from services.api import views
from services.ipam.settings import Settings as IpamSettings
from tests.support.api import NODE, POOL, Bench


@pytest.fixture
def bench() -> Bench:
    made = Bench(POOL, NODE)
    block = Block(
        cidr=BlockCidr("10.244.0.64/26"),
        pool="default-ipv4-ippool",
        node=NodeName("node1"),
        allocations=(
            Allocation(ordinal=0, handle=HandleId("cni.1"), sequence=1),
            Allocation(ordinal=7, handle=HandleId("cni.2"), sequence=1, borrower=NodeName("node2")),
        ),
    )
    orphan = Block(cidr=BlockCidr("10.9.0.0/26"), pool="gone", node=None)
    handle = Handle(handle=HandleId("cni.1"), node=NodeName("node1"), namespace="default", pod="a")
    made.core.apply(Fact(BLOCK, (block.cidr,), block, 1))
    made.core.apply(Fact(BLOCK, (orphan.cidr,), orphan, 2))
    made.core.apply(Fact(HANDLE, ("cni.1",), handle, 3))
    return made


def test_pools_count_their_blocks(bench: Bench) -> None:
    report = views.ipam(bench.core)
    (pool,) = report["pools"]
    assert (pool["cidr"], pool["total"], pool["inUse"], pool["free"]) == ("10.244.0.0/16", 65536, 2, 65534)
    assert pool["blocks"] == [
        {"cidr": "10.244.0.64/26", "node": "node1", "total": 64, "inUse": 2, "free": 62, "borrowed": 1}
    ]
    assert [block["cidr"] for block in report["orphans"]] == ["10.9.0.0/26"]


def test_configuration_is_what_address_management_says_of_itself(bench: Bench) -> None:
    assert set(views.ipam(bench.core)["configuration"]) == set(views.CONFIGURATION_DEFAULTS)
    status = Status(component="ipam", instance="i", started=0.0, ready=True, detail={"strictAffinity": "true"})
    bench.core.apply(Fact(STATUS, ("ipam", "i"), status, 4))
    assert views.ipam(bench.core)["configuration"]["strictAffinity"] == "true"


def test_replicas_that_are_set_differently_are_seen(bench: Bench) -> None:
    for instance, limit in (("a", 20), ("b", 0)):
        told = IpamSettings(max_blocks_per_node=limit).told
        status = Status(component="ipam", instance=instance, started=0.0, ready=True, detail=told)
        bench.core.apply(Fact(STATUS, ("ipam", instance), status, 4))
    configuration = views.ipam(bench.core)["configuration"]
    assert configuration == {
        "strictAffinity": "false",
        "AutoAllocateBlocks": "true",
        "MaxBlocksPerHost": "20 (a), unlimited (b)",
    }


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.244.0.64", {"assigned": True, "namespace": "default", "pod": "a", "node": "node1", "use": "workload"}),
        ("10.244.0.71", {"assigned": True, "namespace": "", "pod": "", "node": "node2", "owner": "node1"}),
        ("10.244.0.65", {"assigned": False, "block": "10.244.0.64/26", "owner": "node1"}),
        ("10.244.9.9", {"assigned": False, "block": "", "pool": "default-ipv4-ippool"}),
        ("192.0.2.1", {"assigned": False, "pool": ""}),
        ("fd00::1", {"assigned": False, "pool": ""}),
    ],
)
def test_whose_an_address_is(bench: Bench, ip: str, expected: dict[str, object]) -> None:
    report = views.address(bench.core, ip)
    assert {key: report[key] for key in expected} == expected


def test_what_is_no_address_is_an_error(bench: Bench) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        views.address(bench.core, "nonsense")


def test_a_node_is_ready_when_its_agent_says_so(bench: Bench) -> None:
    (node,) = views.status(bench.core)["nodes"]
    assert (node["name"], node["ready"], node["addresses"]) == ("node1", False, ["10.0.0.15/24"])
    agent = Status(component="node_dataplane", instance="node1", node=NodeName("node1"), started=0.0, ready=True)
    bench.core.apply(Fact(STATUS, ("node_dataplane", "node1"), agent, 4))
    report = views.status(bench.core)
    assert report["nodes"][0]["ready"]
    assert [component["component"] for component in report["components"]] == ["node_dataplane"]
    bench.core.apply(Fact(STATUS, ("node_dataplane", "node1"), None, 5))
    assert not views.status(bench.core)["nodes"][0]["ready"]
