"""Merged rules and networks of groups in the kernel: it takes them, and shows them as they should be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bus_schemas.policy import Group, Match, Rule
from bus_schemas.subjects import GROUP, Fact
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.nft.transaction import Transaction
from tests.support.netns import namespaces
from tests.support.nft_worlds import (
    TCP,
    UDP,
    allow,
    attach,
    direction,
    group,
    groups,
    plug,
    pod,
    ports,
    rules,
    tell,
    tier,
)

pytestmark = pytest.mark.root


def networks(id_: str, *nets: tuple[int, ...]) -> Fact:
    return Fact(GROUP, (id_, "0"), Group(v4=bytes((10, 1, 1, 1)), nets4=b"".join(map(bytes, sorted(nets)))))


class Kernel:
    def __init__(self, driver: NftDriver) -> None:
        self.driver, self.table = driver, PolicyTable()
        plug(self.table, "server", "10.244.0.2")
        self.tell(*(group(f"s:{n}", f"10.0.0.{n}", f"fd00::{n}") for n in range(8)))

    def tell(self, *facts: Fact) -> Transaction | None:
        tell(self.table, *facts)
        transaction = self.table.flush().transaction
        if transaction is not None:
            self.driver.commit(transaction)
            self.table.committed(transaction)
        expected = self.table.expected()
        assert expected is not None
        assert self.driver.verify(expected) == []
        return transaction


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with namespaces(1) as (namespace,), namespace.call(NftDriver) as driver:
        kernel = Kernel(driver)
        to_80 = Match(ports=ports((80, 90)))
        kernel.tell(
            attach("server", ingress=direction(tier("peers", "blocks", "high", "wide", "any"))),
            rules(
                "peers",
                [allow(protocol=TCP, source=Match(groups=groups(f"s:{n}")), destination=to_80) for n in range(8)],
            ),
            rules(
                "blocks",
                [
                    allow(protocol=TCP, source=Match(nets=(net,), not_nets=(hole,)), destination=to_80)
                    for net, hole in (
                        ("10.1.0.0/16", "10.1.7.0/24"),
                        ("10.2.0.0/16", "10.2.7.0/24"),
                        ("0.0.0.0/0", "10.0.0.0/8"),
                        ("fd00::/16", "fd00:0:7::/48"),
                        ("::/0", "fd00::/8"),
                    )
                ],
            ),
            rules(
                "high",
                [
                    allow(
                        protocol=TCP, source=Match(nets=(f"12.{n}.0.0/16",)), destination=Match(ports=ports((80, 8080)))
                    )
                    for n in range(6)
                ],
            ),
            rules("wide", [allow(source=Match(nets=(f"11.{n}.0.0/16", f"fc0{n}::/16"))) for n in range(6)]),
            rules("any", [allow(protocol=UDP, destination=Match(ports=ports(53))), allow(protocol=132)]),
        )
        yield kernel


def test_the_kernel_shows_what_was_written(kernel: Kernel) -> None:
    expected = kernel.table.expected()
    assert expected is not None
    lines = [str(command) for command in expected.structure]
    for lookup in (
        "ip saddr . meta l4proto . th dport",
        "ip6 saddr . meta l4proto . th dport",
        "ip saddr & 255.254.0.0",
        "ip6 saddr & fffe::",
        "meta l4proto . th dport",
    ):
        assert any(f" counter name {lookup} map @m_" in line for line in lines), lookup


def test_members_come_and_go_as_elements(kernel: Kernel) -> None:
    transaction = kernel.tell(group("s:3", "10.0.0.3", "10.0.9.9"), group("s:4"))
    assert transaction is not None
    assert transaction.elements is not None


def test_networks_of_a_group_and_a_changed_policy_replace_interval_maps(kernel: Kernel) -> None:
    kernel.tell(networks("s:1", (10, 0, 0, 0, 24), (10, 0, 0, 128, 25), (10, 0, 1, 0, 24)))
    kernel.tell(networks("s:1", (0, 0, 0, 0, 0)))
    kernel.tell(rules("wide", [allow(source=Match(nets=("11.0.0.0/16",)))]))
    kernel.tell(group("s:1", "10.0.0.1"))
    kernel.table.remove_endpoint(pod("server"))
    kernel.tell()
    assert not any(name.startswith("m_") for name in kernel.table.expected().kinds)  # type: ignore[union-attr]


def test_networks_of_a_group_stand_beside_its_addresses(kernel: Kernel) -> None:
    kernel.tell(
        rules("peers", [allow(source=Match(groups=groups("s:1"), not_groups=groups("s:2")))]),
        networks("s:1", (10, 9, 0, 0, 16), (0, 0, 0, 0, 0)),
        networks("s:2", (10, 9, 9, 0, 24), (10, 9, 9, 0, 25), (10, 9, 8, 0, 24)),
    )
    kernel.tell(networks("s:2", (10, 9, 9, 0, 25)))
    kernel.tell(group("s:2", "10.0.0.2"))


def test_an_element_can_change_hands(kernel: Kernel) -> None:
    each = {f"p{n}": [allow(protocol=TCP, source=Match(groups=groups(f"s:{n}")))] for n in range(6)}
    kernel.tell(attach("server", ingress=direction(tier(*each))), *(rules(id_, made) for id_, made in each.items()))
    for members, changes in (((5, 3), True), ((3,), False), ((3, 1), True), ((1,), False), ((5,), True), ((), True)):
        told = kernel.tell(*(group(f"s:{n}", f"10.0.0.{n}", *["10.9.9.9"] * (n in members)) for n in range(6)))
        assert (told is not None) is changes, "only the first that claims a key is in the map"
        assert told is None or told.elements is not None


def test_merged_rules_begin_to_deny_and_to_allow_again(kernel: Kernel) -> None:
    for action in ("deny", "allow"):
        kernel.tell(
            rules("peers", [Rule(action=action, protocol=TCP, source=Match(groups=groups(f"s:{n}"))) for n in range(8)])
        )
