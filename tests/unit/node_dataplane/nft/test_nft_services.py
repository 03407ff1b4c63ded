"""Service addresses in the table: what a change costs, what is there when nobody asked for them, affinity."""

from __future__ import annotations

import pytest

from bus_schemas.policy import Match, Rule
from bus_schemas.subjects import Fact
from services.node_dataplane.nft import encode
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.sets import BACKENDS4, BACKENDS6, backend_index, pack_value, service_key, spell_value
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.nft.transaction import Elements, Transaction
from services.node_dataplane.service_proxy.core import ServiceProxy
from tests.support.host_worlds import host, hosted
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.nft_worlds import attach, direction, plug, rules, tell, tier
from tests.support.service_worlds import NODE, service, slice_of

RULES = NodeRules(
    masquerade_pools=("10.244.0.0/16",),
    all_pools=("10.244.0.0/16",),
    nodes=("192.168.0.1",),
    vxlan_port=4789,
    floating=True,
)


class World:
    def __init__(self, *facts: Fact) -> None:
        self.proxy = ServiceProxy(NODE)
        self.table = PolicyTable(RULES, services=True)
        self.kernel = Nftables()
        plug(self.table, "a", "10.244.0.1", "fd00::1")
        tell(self.table, attach("a"))
        self.change(*facts)

    def change(self, *facts: Fact) -> Transaction | None:
        for fact in facts:
            assert self.proxy.apply(fact)
        self.table.set_services(self.proxy.flush())
        transaction = self.table.flush().transaction
        if transaction is not None:
            self.kernel.run(str(transaction))
            self.table.committed(transaction)
        return transaction


def backends(count: int) -> list[str]:
    return [f"10.244.1.{number}" for number in range(1, count + 1)]


def test_a_table_that_was_not_asked_for_them_has_nothing_of_them() -> None:
    def lines(*, services: bool) -> list[str]:
        table = PolicyTable(RULES, services=services)
        plug(table, "a", "10.244.0.1", "fd00::1", floating=(("10.9.0.1", "10.244.0.1"),))
        tell(table, attach("a"))
        return str(table.whole()).splitlines()

    names = ("services", "service_", "backends", "pick4_", "pick6_")
    rest = [line for line in lines(services=True) if not any(name in line for name in names)]
    assert lines(services=False) == rest


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3), (16, 15), (1, 5)])
def test_another_number_of_backends_is_a_change_of_elements_of_that_service(before: int, after: int) -> None:
    others = [
        fact for n in range(20) for fact in (service(f"s{n}", f"10.96.1.{n}"), slice_of(f"s{n}", *backends(1 + n % 4)))
    ]
    world = World(service("web", "10.96.0.1"), slice_of("web", *backends(before)), *others)
    changed = world.change(slice_of("web", *backends(after)))
    assert changed is not None
    assert changed.elements is not None
    keys = {key[:12] for command in changed.elements for key, _ in command.rows}
    assert keys == {service_key(bytes((10, 96, 0, 1)), 6, 80)}
    assert changed.weight <= 2 + abs(before - after)


def test_many_backends_have_a_chain_that_goes_with_them() -> None:
    world = World(service("web", "10.96.0.1"), slice_of("web", *backends(40)))
    assert "pick4_40" in world.kernel.chains
    world.change(slice_of("web", *backends(3)))
    assert "pick4_40" not in world.kernel.chains


def test_a_packet_that_was_led_to_a_backend_that_just_went_gets_another() -> None:
    world = World(service("web", "10.96.0.1"), slice_of("web", *backends(3)))
    late = service_key(bytes((10, 96, 0, 1)), 6, 80) + backend_index(2)
    world.kernel.run(str(Elements("delete", "backends4", BACKENDS4, ((late, ""),))))
    seen = world.kernel.send(Packet("10.244.0.1", "10.96.0.1", 6, port=80, in_link="tora", draw=2))
    assert seen.destination == "10.244.1.1 8080"


def test_nothing_changes_when_the_same_is_said_again() -> None:
    facts = (service("web", "10.96.0.1", session_affinity="ClientIP"), slice_of("web", *backends(3)))
    world = World(*facts)
    assert world.change(*facts) is None


@pytest.mark.parametrize(
    ("ip", "family", "client"), [("10.96.0.1", "IPv4", "10.244.0.1"), ("fd96::1", "IPv6", "fd00::1")]
)
def test_a_client_stays_with_its_backend_until_that_goes(ip: str, family: str, client: str) -> None:
    there = backends(3) if family == "IPv4" else ["fd00::11", "fd00::12", "fd00::13"]
    sticky = service("web", ip, session_affinity="ClientIP", session_affinity_timeout_s=90)
    world = World(sticky, slice_of("web", *there, family=family))

    def ask(draw: int, *remembered: str) -> tuple[str, str]:
        packet = Packet(client, ip, 6, port=80, in_link="tora", draw=draw, remembered=frozenset(remembered))
        seen = world.kernel.send(packet)
        (learned,) = seen.learned
        return seen.destination, learned

    first, clients = ask(1)
    assert first == f"{there[1]} 8080"
    assert [ask(draw, clients) for draw in range(3)] == [(first, clients)] * 3
    assert len({ask(draw)[0] for draw in range(3)}) == 3, "who is not known gets any"
    world.change(slice_of("web", there[0], there[2], family=family))
    assert clients not in world.kernel.sets
    assert {ask(draw, clients)[0] for draw in range(2)} == {f"{there[0]} 8080", f"{there[2]} 8080"}


def test_who_is_masqueraded() -> None:
    """Whose answer would not come by this node, and a pod that reached itself."""
    far, here = slice_of("far", "10.244.9.1"), slice_of("here", "10.244.0.1")
    world = World(service("far", "10.96.0.1"), far, service("here", "10.96.0.2"), here)

    def masqueraded(source: str, to: str, in_link: str, out_link: str) -> bool:
        path = "forward" if in_link else "output"
        packet = Packet(
            source,
            to,
            6,
            port=80,
            in_link=in_link,
            out_link=out_link,
            path=path,
            own=not in_link,  # type: ignore[arg-type]
        )
        seen = world.kernel.send(packet)
        assert seen.accepted
        return seen.masqueraded

    assert not masqueraded("10.244.0.1", "10.96.0.1", "tora", "vxlan.tortie")
    assert masqueraded("203.0.113.7", "10.96.0.1", "eth0", "vxlan.tortie")
    assert masqueraded("192.168.0.1", "10.96.0.1", "", "vxlan.tortie")
    assert not masqueraded("203.0.113.7", "10.96.0.2", "eth0", "tora")
    assert masqueraded("10.244.0.1", "10.96.0.2", "tora", "tora")
    assert not masqueraded("203.0.113.7", "10.244.0.1", "eth0", "tora"), "nothing was translated"


def test_policy_before_dnat_is_asked_of_the_address_that_was_asked_for() -> None:
    world = World(service("web", "10.96.0.1"), slice_of("web", "10.244.0.1"))
    before = direction(tier("closed", default="pass"))
    closed = rules("closed", ingress=[Rule(action="deny", destination=Match(nets=("10.96.0.0/16",)))])
    tell(world.table, hosted(host("uplink", "eth0", pre_dnat=before)), closed)
    world.change()

    def asks(address: str) -> bool:
        return world.kernel.send(Packet("203.0.113.7", address, 6, port=80, out_link="tora")).accepted

    assert not asks("10.96.0.1")
    assert asks("10.244.0.1")


def test_established_connections_are_left_alone() -> None:
    world = World(service("web", "10.96.0.1"), slice_of("web", *backends(1)))
    packet = Packet("10.244.0.1", "10.96.0.1", 6, port=80, in_link="tora", state="established")
    assert world.kernel.send(packet).destination == ""


def test_elements_with_values_are_read_back_as_they_were_written() -> None:
    key4 = service_key(bytes((10, 96, 0, 1)), 17, 53) + backend_index(7)
    key6 = service_key(bytes.fromhex("fd96" + "0" * 27 + "1"), 6, 80) + backend_index(0)
    assert BACKENDS4.spell(key4) == "10.96.0.1 . 17 . 53 . 7"
    assert BACKENDS6.spell(key6) == "fd96::1 . 6 . 80 . 0"
    for value in ("10.244.0.1 . 5353", "fd00::1 . 80"):
        assert spell_value(pack_value(value)) == value
    batch = encode.batch([Elements("add", "backends4", BACKENDS4, ((key4, "10.244.0.1 . 5353"),))])
    assert pack_value("10.244.0.1 . 5353") in batch[1]
