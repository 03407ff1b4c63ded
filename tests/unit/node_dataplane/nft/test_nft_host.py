"""Host endpoints in the table, on the model of the kernel."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

import pytest

from bus_schemas.policy import Direction, HostAttachment, Match, Rule
from bus_schemas.subjects import Fact
from services.node_dataplane.nft.failsafe import UDP as FAILSAFE_UDP
from services.node_dataplane.nft.failsafe import Failsafe
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.host_worlds import host, hosted, unhosted
from tests.support.nft_evaluator import Nftables, Outcome, Packet
from tests.support.nft_worlds import (
    ICMPV6,
    OPEN,
    TCP,
    UDP,
    allow,
    attach,
    direction,
    no_rules,
    plug,
    ports,
    rules,
    settle,
    tell,
    tier,
)

NODE, WORLD, FAR, POD = "192.168.0.1", "192.168.0.9", "192.168.1.9", "10.244.0.1"
IN = Packet(WORLD, NODE, TCP, 80, path="input", out_link="")
OUT = Packet(NODE, WORLD, TCP, 80, path="output", in_link="")
THROUGH = Packet(WORLD, FAR, TCP, 80, in_link="eth0", out_link="eth1")
TO_POD = Packet(WORLD, POD, TCP, 80, in_link="eth0", out_link="tora")
FROM_POD = Packet(POD, WORLD, TCP, 80, in_link="tora", out_link="eth0")
DEVICES = {"lo": frozenset({"127.0.0.1"}), "eth0": frozenset({NODE}), "eth1": frozenset({"192.168.1.1"})}
POLICIES = (
    rules("all", ingress=[Rule(action="allow")], egress=[Rule(action="allow")]),
    rules("none", ingress=[Rule(action="deny")], egress=[Rule(action="deny")]),
    rules("pass", ingress=[Rule(action="pass")], egress=[Rule(action="pass")]),
    rules("nothing"),
    rules("web", ingress=[allow(protocol=TCP, destination=Match(ports=ports(80)))]),
)


class World:
    def __init__(self, node: NodeRules | None = None) -> None:
        self.table, self.kernel = PolicyTable(node or NodeRules()), Nftables()
        self.table.set_devices(DEVICES)
        plug(self.table, "a", POD)
        self.tell(*POLICIES, attach("a"))

    def tell(self, *facts: Fact) -> None:
        tell(self.table, *facts)
        self.settle()

    def hosts(self, *attachments: HostAttachment) -> None:
        self.tell(*map(hosted, attachments))

    def settle(self) -> None:
        settle(self.table, self.kernel)

    def send(self, packet: Packet) -> Outcome:
        return self.kernel.send(packet)

    def accepts(self, packet: Packet) -> bool:
        return self.send(packet).accepted


@pytest.fixture
def world() -> World:
    return World()


def by(*policies: str) -> Direction:
    return direction(tier(*policies))


def test_what_governs_nothing_leaves_nothing_in_the_kernel(world: World) -> None:
    before = world.kernel.snapshot()
    world.hosts(host("a", "", "192.168.9.9"))
    assert world.kernel.snapshot() == before
    assert world.table.host_faults() == ("HostEndpoint/a governs nothing: no device carries any of its addresses",)
    world.hosts(host("a", "*", pre_dnat=by("all"), untracked_ingress=by("all")), host("b", "eth0"))
    assert world.kernel.snapshot() != before
    world.tell(unhosted("a"), unhosted("b"))
    assert world.kernel.snapshot() == before
    assert not world.table.host_faults()


def test_the_order_in_which_it_becomes_known_makes_no_difference() -> None:
    facts = [
        hosted(host("a", "*", forward_ingress=by("none"))),
        hosted(host("b", "eth1", ingress=by("web"))),
        POLICIES[4],
    ]
    seen = []
    for order in permutations(facts):
        world = World()
        for fact in order:
            world.tell(fact)
        seen.append(world.kernel.snapshot())
    assert all(one == seen[0] for one in seen)


def test_the_policies_of_host_endpoints_are_wanted(world: World) -> None:
    assert not world.table.wanted().rules
    world.hosts(host("a", "eth0", ingress=by("web"), pre_dnat=by("nothing"), forward_egress=by("none")))
    assert world.table.wanted().rules == {"web", "nothing", "none"}
    world.hosts(host("a", "eth7"))
    assert not world.table.wanted().rules


def test_without_policy_only_what_ends_in_the_node_is_closed(world: World) -> None:
    world.hosts(host("a", "eth0"))
    assert not world.accepts(IN)
    assert not world.accepts(OUT)
    assert world.accepts(replace(IN, port=22))
    assert world.accepts(replace(OUT, port=6443))
    assert world.accepts(replace(IN, state="established"))
    assert world.accepts(replace(IN, in_link="eth1"))
    assert world.accepts(replace(IN, in_link="lo"))
    assert world.accepts(replace(IN, source=POD, in_link="tora"))
    assert world.accepts(replace(OUT, destination=POD, out_link="tora"))
    assert all(map(world.accepts, (THROUGH, TO_POD, FROM_POD)))


@pytest.mark.parametrize("type_", [133, 134, 135, 136])
def test_neighbour_discovery(world: World, type_: int) -> None:
    closed = by("none")
    world.hosts(host("a", "eth0", pre_dnat=closed, untracked_ingress=closed, untracked_egress=closed))
    for packet in (IN, OUT):
        packet = replace(packet, source="fe80::1", destination="fe80::2", protocol=ICMPV6, icmp_type=type_)
        assert world.accepts(packet)
        assert not world.accepts(replace(packet, icmp_type=128))


@pytest.mark.parametrize("state", ["new", "untracked", "invalid"])
def test_what_is_allowed_early_is_allowed(world: World, state: str) -> None:
    world.hosts(host("a", "eth0", pre_dnat=by("web"), forward_ingress=by("none")))
    for packet in (IN, THROUGH, TO_POD):
        assert world.accepts(replace(packet, state=state)) is (state != "invalid")
        assert not world.accepts(replace(packet, port=81, state=state))
        assert not world.accepts(replace(packet, port=81, mark=0xFFFFFFFF)), "whatever mark it came with"


def test_a_pass_before_the_replacement_goes_on(world: World) -> None:
    world.hosts(host("a", "eth0", pre_dnat=direction(tier("pass", "none"), tier("web")), ingress=by("nothing")))
    assert world.accepts(IN)
    assert not world.accepts(replace(IN, port=81))
    world.hosts(host("a", "eth0", pre_dnat=direction(tier("pass", "none")), ingress=OPEN))
    assert world.accepts(replace(IN, port=81))


def test_only_what_an_untracked_policy_allows_is_not_tracked(world: World) -> None:
    world.hosts(host("a", "eth0", untracked_ingress=by("web"), ingress=OPEN, egress=OPEN))
    assert not world.send(IN).tracked
    assert world.send(IN).accepted
    assert world.send(replace(IN, port=81)).tracked
    assert world.send(replace(IN, port=22)).tracked
    assert world.send(OUT).tracked
    assert world.send(replace(IN, in_link="eth1")).tracked
    assert not world.send(TO_POD).tracked


def test_what_is_redirected_is_asked_when_it_leaves(world: World) -> None:
    world.hosts(host("a", "eth0"), host("b", "eth1", egress=by("all")))
    redirected = replace(OUT, status="dnat")
    assert not world.accepts(redirected)
    assert world.accepts(replace(redirected, out_link="eth1"))
    assert world.accepts(replace(FROM_POD, status="dnat")), "forwarded: none of what the node itself sends"
    assert not world.accepts(replace(OUT, status="")), "asked at once"


def test_the_tunnel(world: World) -> None:
    world.table.set_node(NodeRules(vxlan_port=4789, nodes=(NODE, WORLD)))
    closed = by("none")
    world.hosts(host("a", "eth0", pre_dnat=closed, untracked_ingress=closed, untracked_egress=closed))
    for packet in (IN, OUT):
        packet = replace(packet, protocol=UDP, port=4789)
        assert world.accepts(packet)
        assert not world.accepts(replace(packet, source=FAR, destination=FAR))


def test_failsafe_ports_change_with_the_configuration(world: World) -> None:
    world.hosts(host("a", "eth0"))
    world.table.set_node(NodeRules(failsafe_inbound=(Failsafe(FAILSAFE_UDP, 99, f"{WORLD}/32"),), failsafe_outbound=()))
    world.settle()
    assert world.accepts(replace(IN, protocol=UDP, port=99))
    assert not world.accepts(replace(IN, protocol=UDP, port=99, source=FAR))
    assert not world.accepts(replace(IN, port=22))
    assert not world.accepts(replace(OUT, port=6443))


def test_devices_without_anything_to_say_where_all_others_have(world: World) -> None:
    closed = by("none")
    world.hosts(
        host("a", "*", pre_dnat=closed, forward_ingress=closed, forward_egress=closed), host("b", "eth1", ingress=OPEN)
    )
    assert world.accepts(replace(IN, in_link="eth1"))
    assert world.accepts(replace(THROUGH, in_link="eth1", out_link="eth1"))
    assert not world.accepts(THROUGH)
    assert not world.accepts(replace(THROUGH, in_link="eth1", out_link="eth7")), "a device that nobody has heard of"
    assert not world.accepts(TO_POD)
    assert not world.accepts(FROM_POD)


def test_all_devices_have_no_untracked_policy(world: World) -> None:
    world.hosts(host("a", "*", ingress=OPEN, untracked_ingress=by("none")))
    assert world.accepts(IN)
    assert world.table.host_faults() == ("HostEndpoint/a: doNotTrack policies do not apply to the interface *",)


def test_a_policy_that_is_not_known_closes_and_is_named(world: World) -> None:
    world.hosts(host("a", "eth0", ingress=by("web")))
    world.tell(no_rules("web"))
    assert not world.accepts(IN)
    assert world.accepts(replace(IN, port=22))
    assert world.table.host_faults() == ("HostEndpoint/a: policy not known yet: web",)
    assert not world.table.flush().blocked, "pods have nothing to do with it"


def test_pods_and_host_endpoints_share_policies(world: World) -> None:
    world.hosts(host("a", "eth0", ingress=by("web")))
    world.tell(attach("a", by("web")))
    assert world.accepts(IN)
    assert world.accepts(TO_POD)
    world.tell(rules("web"))
    assert not world.accepts(IN)
    assert not world.accepts(TO_POD)
    world.tell(unhosted("a"))
    assert world.accepts(IN)
    assert not world.accepts(TO_POD)


@pytest.mark.parametrize("stage", ["ingress", "forward_ingress", "pre_dnat", "untracked_ingress"])
def test_a_staged_policy_is_only_reported(world: World, stage: str) -> None:
    staged = Direction(tiers=(), default="allow", preview=(tier("none"),))
    world.hosts(host("a", "eth0", **{"ingress": OPEN, stage: staged}))
    packet = THROUGH if stage == "forward_ingress" else IN
    outcome = world.send(packet)
    assert outcome.accepted
    assert outcome.tracked
    counted = [world.table.counted()[name] for name in outcome.counted if name in world.table.counted()]
    assert ("none", "ingress", "would_deny") in counted


def test_what_a_host_endpoint_denies_is_counted_and_told(world: World) -> None:
    world.hosts(host("a", "eth0", ingress=by("none")), host("b", "*", egress=by("nothing")))
    outcome = world.send(IN)
    assert [world.table.counted()[name] for name in outcome.counted] == [("none", "ingress", "deny")]
    denial = world.table.denial(outcome.reported[0])
    assert denial is not None
    assert (denial.kind, denial.way, denial.rules, denial.tier) == ("denied", "ingress", "none", "default")
    assert world.table.host_endpoint("eth0") == "a"
    assert world.table.host_endpoint("eth7") == "b"


SIDES = ("ingress", "egress", "forward_ingress", "forward_egress", "pre_dnat", "untracked_ingress", "untracked_egress")
SAID = (OPEN, by("web"), by("none", "web"), direction(tier("pass", "web"), tier("all", name="b"), default="deny"))
CONFIGURATIONS = (NodeRules(), NodeRules(failsafe_inbound=()), NodeRules(vxlan_port=4789, nodes=(NODE,)))
PLACES = (("*",), ("eth0",), ("eth1",), ("", NODE), ("", "192.168.1.1", NODE))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_came_before_the_table_is_that_of_what_holds_now(seed: int) -> None:
    rng = random.Random(seed)
    lived, facts, devices, node = World(), {}, DEVICES, NodeRules()
    for _ in range(60):
        match rng.randrange(5):
            case 0:
                devices = {name: carried for name, carried in DEVICES.items() if rng.random() < 0.7}
                lived.table.set_devices(devices)
            case 1:
                node = rng.choice(
                    [NodeRules(), NodeRules(failsafe_inbound=()), NodeRules(vxlan_port=4789, nodes=(NODE,))]
                )
                lived.table.set_node(node)
            case 2:
                fact = rng.choice([rules("web"), no_rules("web"), POLICIES[4]])
                facts["web"] = fact
                tell(lived.table, fact)
            case _:
                name = rng.choice("abc")
                interface, *addresses = rng.choice(
                    [("*",), ("eth0",), ("eth1",), ("", NODE), ("", "192.168.1.1", NODE)]
                )
                directions = {side: rng.choice(SAID) for side in SIDES}
                fact = unhosted(name) if rng.random() < 0.3 else hosted(host(name, interface, *addresses, **directions))
                facts[name] = fact
                tell(lived.table, fact)
        if rng.random() < 0.6:
            lived.settle()
    lived.settle()
    fresh = World(node)
    fresh.table.set_devices(devices)
    fresh.tell(*facts.values())
    assert lived.kernel.snapshot() == fresh.kernel.snapshot()
    assert lived.table.wanted() == fresh.table.wanted()
    assert lived.table.host_faults() == fresh.table.host_faults()
