"""Host endpoints on real packets: what a node, and what is behind it, can be reached for.

world --- near  [        ]       192.168.0.9
far   --- away  [  node  ]       192.168.1.9       both have the node for their router
pod a --- tora  [        ]       10.244.0.1
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus_schemas.policy import Direction, HostAttachment, Match, Rule
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.failsafe import TCP as FAILSAFE_TCP
from services.node_dataplane.nft.failsafe import Failsafe
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.host_worlds import host, hosted, unhosted
from tests.support.netns import Namespace, bind_udp, connect, listen, namespaces, ping, tcp, udp, veth
from tests.support.nft_worlds import (
    OPEN,
    TCP,
    allow,
    attach,
    direction,
    link,
    plug,
    ports,
    rules,
    tell,
    tier,
)

pytestmark = pytest.mark.root

NODE, WORLD = "192.168.0.1", "192.168.0.9"
NODE_FAR, FAR = "192.168.1.1", "192.168.1.9"
NODE6, WORLD6 = "fd01::1", "fd01::9"
POD = "10.244.0.1"
SERVICE = "10.96.0.1"
MAC = "ee:ee:ee:ee:ee:ee"
REFUSED_S = 0.1
"""How long to wait for what should not arrive: delivery between two ends of a link takes microseconds."""
SETTINGS = NodeRules(nodes=(NODE,), vxlan_port=4789)
WEB, NODE_PORT, SSH = 80, 30080, 22

POLICIES = {
    "web in": rules("web in", ingress=[allow(protocol=TCP, destination=Match(ports=ports(WEB)))]),
    "web out": rules("web out", egress=[allow(protocol=TCP, destination=Match(ports=ports(WEB)))]),
    "answers out": rules("answers out", egress=[allow(protocol=TCP, source=Match(ports=ports(WEB)))]),
    "answers in": rules("answers in", ingress=[allow(protocol=TCP, source=Match(ports=ports(WEB)))]),
    "node port": rules("node port", ingress=[allow(protocol=TCP, destination=Match(ports=ports(NODE_PORT)))]),
    "to far": rules("to far", egress=[allow(destination=Match(nets=(f"{FAR}/32",)))]),
    "all": rules("all", ingress=[Rule(action="allow")], egress=[Rule(action="allow")]),
    "none": rules("none", ingress=[Rule(action="deny")], egress=[Rule(action="deny")]),
    "nothing": rules("nothing"),
    "ping": rules(
        "ping",
        ingress=[Rule(action="allow", ip_version=6, protocol=58)],
        egress=[Rule(action="allow", ip_version=6, protocol=58)],
    ),
}


class Lab:
    def __init__(self, node: Namespace, world: Namespace, far: Namespace, pod: Namespace, stack: ExitStack) -> None:
        self.node, self.world, self.far, self.pod = node, world, far, pod
        self._keep = stack
        node.forward()
        veth(node, "near", world, "near", addresses=(f"{NODE}/24", f"{WORLD}/24"))
        veth(node, "away", far, "away", addresses=(f"{NODE_FAR}/24", f"{FAR}/24"))
        node.ip("address", "add", f"{NODE6}/64", "dev", "near", "nodad")
        world.ip("address", "add", f"{WORLD6}/64", "dev", "near", "nodad")
        world.ip("route", "add", "default", "via", NODE)
        far.ip("route", "add", "default", "via", NODE_FAR)
        self._plug_pod()
        self.table = PolicyTable(SETTINGS)
        self.driver = stack.enter_context(node.call(NftDriver))
        tell(self.table, *POLICIES.values(), attach("a"))
        plug(self.table, "a", POD)
        self.devices = {
            "lo": frozenset({"127.0.0.1", "::1"}),
            "near": frozenset({NODE, NODE6}),
            "away": frozenset({NODE_FAR}),
        }
        self.table.set_devices(self.devices)
        for namespace, address, port in (
            (node, NODE, WEB),
            (node, NODE, SSH),
            (node, NODE_FAR, WEB),
            (node, "127.0.0.1", WEB),
            (world, WORLD, WEB),
            (world, WORLD, 179),
            (far, FAR, WEB),
            (pod, POD, WEB),
        ):
            self.listen(namespace, address, port)
        self.settle()

    def _plug_pod(self) -> None:
        veth(self.node, link("a"), self.pod, "eth0")
        self.node.ip("link", "set", link("a"), "address", MAC)
        self.node.ip("route", "add", POD, "dev", link("a"))
        self.pod.ip("address", "add", f"{POD}/32", "dev", "eth0")
        self.pod.ip("route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        self.pod.ip("neighbour", "add", "169.254.1.1", "lladdr", MAC, "dev", "eth0")
        self.pod.ip("route", "add", "default", "via", "169.254.1.1")

    def hosts(self, *attachments: HostAttachment) -> None:
        tell(self.table, *map(hosted, attachments))
        self.settle()

    def gone(self, *names: str) -> None:
        tell(self.table, *map(unhosted, names))
        self.settle()

    def pod_policy(self, ingress: str = "", egress: str = "") -> None:
        into, out = (direction(tier(name)) if name else OPEN for name in (ingress, egress))
        tell(self.table, attach("a", into, out))
        self.settle()

    def configure(self, **settings: Any) -> None:
        self.table.set_node(msgspec.structs.replace(SETTINGS, **settings))
        self.settle()

    def settle(self) -> None:
        flush = self.table.flush()
        if flush.transaction is not None:
            self.driver.commit(flush.transaction)
            self.table.committed(flush.transaction)

    def listen(self, namespace: Namespace, address: str, port: int) -> None:
        self._keep.enter_context(listen(namespace, address, port))

    def bind(self, namespace: Namespace, address: str, port: int) -> socket.socket:
        return self._keep.enter_context(bind_udp(namespace, address, port))

    def redirect(self, hook: str, address: str, port: int, to: str) -> None:
        """What a service proxy would do."""
        priority = {"prerouting": "dstnat", "output": "-100"}[hook]
        rule = f"ip daddr {address} tcp dport {port} dnat to {to}"
        script = (
            f"add table ip proxy\n"
            f"add chain ip proxy {hook} {{ type nat hook {hook} priority {priority}; }}\n"
            f"add rule ip proxy {hook} {rule}\n"
        )
        self.node.run("nft", "-f", "-", text=script)

    def tracked(self) -> int:
        """Connections that the node's kernel knows."""
        with self.node.inside():
            return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())

    def chains(self) -> set[str]:
        listed = self.node.run("nft", "list", "chains", "inet").splitlines()
        return {line.split()[1] for line in listed if line.split()[:1] == ["chain"]}

    def damage(self) -> list[str] | None:
        expected = self.table.expected()
        assert expected is not None
        with self.node.inside():
            return self.driver.verify(expected)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with namespaces(4) as (node, world, far, pod), ExitStack() as stack:
        yield Lab(node, world, far, pod, stack)


def reaches(source: Namespace, address: str, port: int = WEB) -> bool:
    return tcp(source, address, port)


def refused(source: Namespace, address: str, port: int = WEB) -> bool:
    return not tcp(source, address, port, wait_s=REFUSED_S)


def by(*policies: str, default: str = "deny") -> Direction:
    """One tier of these policies, with what follows the last tier."""
    return direction(tier(*policies), default=default)


def early(*policies: str) -> Direction:
    """As the compiler writes the stages that others follow."""
    return direction(tier(*policies, default="pass"))


# --- normal policy


def test_a_node_without_host_endpoints_pays_nothing(lab: Lab) -> None:
    assert not {chain for chain in lab.chains() if chain.startswith("host")}
    lab.hosts(host("near", "near"))
    assert {chain for chain in lab.chains() if chain.startswith("host")}
    assert lab.damage() == []
    lab.gone("near")
    assert not {chain for chain in lab.chains() if chain.startswith("host")}
    assert lab.damage() == []


def test_a_host_endpoint_without_policy_closes_the_node_and_nothing_else(lab: Lab) -> None:
    lab.hosts(host("near", "near"))
    assert refused(lab.world, NODE)
    assert refused(lab.node, WORLD)
    assert reaches(lab.world, NODE, SSH), "a failsafe port"
    assert reaches(lab.node, WORLD, 179), "a failsafe port outwards"
    assert reaches(lab.far, NODE_FAR), "another device"
    assert reaches(lab.node, FAR)
    assert reaches(lab.world, FAR), "through the node"
    assert reaches(lab.world, POD)
    assert reaches(lab.pod, WORLD)
    assert reaches(lab.pod, NODE), "whose address it is does not matter: it came by the pod's link"
    assert reaches(lab.node, POD)
    assert reaches(lab.node, "127.0.0.1")
    lab.gone("near")
    assert reaches(lab.world, NODE)
    assert reaches(lab.node, WORLD)


def test_policy_opens_each_way_by_itself(lab: Lab) -> None:
    lab.hosts(host("near", "near", ingress=by("web in")))
    assert reaches(lab.world, NODE)
    assert refused(lab.node, WORLD)
    lab.hosts(host("near", "near", egress=by("web out")))
    assert refused(lab.world, NODE)
    assert reaches(lab.node, WORLD)
    lab.hosts(host("near", "near", ingress=OPEN, egress=OPEN))
    assert reaches(lab.world, NODE), "a profile that allows everything"
    assert reaches(lab.node, WORLD)


def test_established_connections_survive(lab: Lab) -> None:
    with listen(lab.node, NODE, 8080) as listener:
        client = connect(lab.world, NODE, 8080)
        assert client is not None
        with client, listener.accept()[0] as served:
            served.settimeout(1)
            for attachment in (host("near", "near"), host("near", "near", ingress=by("none"), egress=by("none"))):
                lab.hosts(attachment)
                assert refused(lab.world, NODE, 8080)
                client.sendall(b"still here")
                assert served.recv(100) == b"still here"


def test_neighbours_are_found_whatever_the_policy(lab: Lab) -> None:
    lab.hosts(host("near", "near", ingress=by("ping"), egress=by("ping"), pre_dnat=early("nothing")))
    for namespace in (lab.node, lab.world):
        namespace.ip("-6", "neighbour", "flush", "all")
    assert ping(lab.world, NODE6)
    lab.listen(lab.node, NODE6, SSH)
    lab.hosts(
        host(
            "near",
            "near",
            pre_dnat=early("none"),
            untracked_ingress=early("none"),
            untracked_egress=early("none"),
        )
    )
    for namespace in (lab.node, lab.world):
        namespace.ip("-6", "neighbour", "flush", "all")
    assert not ping(lab.world, NODE6, wait_s=REFUSED_S)
    assert reaches(lab.world, NODE6, SSH)


def test_what_the_node_redirects_is_judged_by_where_it_goes(lab: Lab) -> None:
    """The service's address leads to `near`, the address behind it to `away`."""
    lab.node.ip("route", "add", SERVICE, "via", WORLD)
    lab.redirect("output", SERVICE, WEB, f"{FAR}:{WEB}")
    assert reaches(lab.node, SERVICE)
    lab.hosts(host("near", "near"))
    assert reaches(lab.node, SERVICE), "it does not leave by that device"
    lab.hosts(host("away", "away"))
    assert refused(lab.node, SERVICE)
    lab.hosts(host("away", "away", egress=by("to far")))
    assert reaches(lab.node, SERVICE)
    lab.hosts(host("near", "*"), host("away", "away"))
    assert refused(lab.node, SERVICE)


def test_a_node_reaches_its_pod_by_a_service(lab: Lab) -> None:
    lab.node.ip("route", "add", SERVICE, "via", WORLD)
    lab.redirect("output", SERVICE, WEB, f"{POD}:{WEB}")
    lab.hosts(host("all", "*"))
    assert reaches(lab.node, SERVICE)


# --- which device


def test_all_devices_but_those_of_others(lab: Lab) -> None:
    lab.hosts(host("all", "*"))
    assert refused(lab.world, NODE)
    assert refused(lab.far, NODE_FAR)
    assert refused(lab.node, FAR)
    assert reaches(lab.world, NODE, SSH)
    assert reaches(lab.node, POD)
    assert reaches(lab.pod, NODE)
    assert reaches(lab.node, "127.0.0.1")
    assert reaches(lab.world, FAR)
    lab.hosts(host("away", "away", ingress=by("web in")))
    assert refused(lab.world, NODE)
    assert reaches(lab.far, NODE_FAR)
    assert refused(lab.node, FAR), "its own host endpoint has no policy for that"
    lab.gone("all")
    assert reaches(lab.world, NODE)
    assert lab.damage() == []


def test_one_of_all_devices_leaves_pods_and_their_node_to_the_pods_policy(lab: Lab) -> None:
    lab.hosts(host("all", "*", ingress=by("none"), egress=by("none")))
    assert reaches(lab.pod, NODE)
    assert reaches(lab.node, POD)
    assert reaches(lab.pod, WORLD)
    lab.pod_policy(ingress="nothing", egress="nothing")
    assert refused(lab.pod, NODE)
    assert reaches(lab.node, POD)


def test_one_of_all_devices_governs_what_enters_and_leaves_by_pods(lab: Lab) -> None:
    lab.hosts(host("all", "*", ingress=OPEN, egress=OPEN, pre_dnat=early("none")))
    assert refused(lab.pod, NODE)
    assert refused(lab.pod, WORLD)
    assert reaches(lab.node, POD)
    lab.hosts(host("all", "*", forward_ingress=by("none")), host("away", "away"), host("near", "near"))
    assert refused(lab.pod, FAR), "it entered by the pod's link"
    assert reaches(lab.world, POD), "it entered by a device with a host endpoint of its own"
    lab.hosts(host("all", "*", forward_egress=by("none")))
    assert refused(lab.world, POD)
    assert reaches(lab.pod, FAR)
    assert reaches(lab.node, POD)


def test_a_named_device_is_not_asked_what_the_others_are(lab: Lab) -> None:
    closed = {"forward_ingress": by("none"), "forward_egress": by("none"), "pre_dnat": early("none")}
    lab.hosts(
        host("all", "*", **closed), host("away", "away", ingress=OPEN, egress=OPEN), host("near", "near", **closed)
    )
    assert refused(lab.world, FAR)
    lab.hosts(host("near", "near"))
    assert reaches(lab.world, FAR), "both devices have host endpoints that let it pass"
    assert reaches(lab.far, NODE_FAR)


def test_devices_by_address_come_and_go(lab: Lab) -> None:
    lab.hosts(host("by-address", "", NODE))
    assert refused(lab.world, NODE)
    assert reaches(lab.far, NODE_FAR)
    lab.table.set_devices({**lab.devices, "near": frozenset(), "away": frozenset({NODE, NODE_FAR})})
    lab.settle()
    assert reaches(lab.world, NODE)
    assert refused(lab.far, NODE_FAR)
    lab.table.set_devices({})
    lab.settle()
    assert reaches(lab.far, NODE_FAR)


# --- failsafe ports, tunnels


def test_failsafe_ports_are_as_configured(lab: Lab) -> None:
    lab.hosts(host("near", "near", pre_dnat=early("none")))
    assert reaches(lab.world, NODE, SSH)
    lab.configure(failsafe_inbound=(Failsafe(FAILSAFE_TCP, WEB, f"{WORLD}/32"),), failsafe_outbound=())
    assert refused(lab.world, NODE, SSH)
    assert reaches(lab.world, NODE)
    assert refused(lab.node, WORLD, 179)
    lab.configure(failsafe_inbound=(Failsafe(FAILSAFE_TCP, WEB, f"{FAR}/32"),), failsafe_outbound=())
    assert refused(lab.world, NODE)


@pytest.mark.parametrize("device", ["near", "*"])
def test_failsafe_ports_stand_over_untracked_policy(lab: Lab, device: str) -> None:
    closed = early("none")
    lab.hosts(host("near", device, pre_dnat=closed, untracked_ingress=closed, untracked_egress=closed))
    assert refused(lab.world, NODE)
    assert reaches(lab.world, NODE, SSH)
    assert reaches(lab.node, WORLD, 179)


def test_the_tunnel_is_not_cut(lab: Lab) -> None:
    closed = early("none")
    lab.hosts(host("near", "near", pre_dnat=closed, untracked_ingress=closed, untracked_egress=closed))
    here, there = lab.bind(lab.node, NODE, 4789), lab.bind(lab.world, WORLD, 4789)
    assert udp(lab.world, here, NODE, 4789, wait_s=REFUSED_S) is None
    assert udp(lab.node, there, WORLD, 4789, wait_s=REFUSED_S) is None
    lab.configure(nodes=(NODE, WORLD))
    assert udp(lab.world, here, NODE, 4789) == WORLD
    assert udp(lab.node, there, WORLD, 4789) == NODE


# --- forwarded


def test_what_is_forwarded_is_asked_where_it_enters_and_leaves(lab: Lab) -> None:
    lab.hosts(host("near", "near", forward_ingress=by("nothing")))
    assert refused(lab.world, FAR)
    assert refused(lab.world, POD)
    assert reaches(lab.far, WORLD), "only what enters is governed"
    assert reaches(lab.pod, WORLD)
    lab.hosts(host("near", "near", forward_ingress=by("web in")))
    assert reaches(lab.world, FAR)
    assert reaches(lab.world, POD)
    lab.hosts(host("near", "near", forward_egress=by("nothing")))
    assert refused(lab.far, WORLD)
    assert refused(lab.pod, WORLD)
    assert reaches(lab.world, FAR)
    lab.hosts(host("near", "near", forward_egress=by("web out")), host("away", "away", forward_ingress=by("nothing")))
    assert refused(lab.far, WORLD)
    assert reaches(lab.pod, WORLD)
    lab.hosts(host("away", "away", forward_ingress=by("web in")))
    assert reaches(lab.far, WORLD)


def test_forwarding_has_no_failsafe_ports(lab: Lab) -> None:
    lab.listen(lab.far, FAR, SSH)
    lab.hosts(host("near", "near", forward_ingress=by("nothing")))
    assert refused(lab.world, FAR, SSH)


def test_a_pods_policy_decides_after_the_devices(lab: Lab) -> None:
    lab.hosts(host("near", "near", forward_ingress=by("all"), pre_dnat=early("all")))
    lab.pod_policy(ingress="nothing")
    assert refused(lab.world, POD)


# --- before a service's address is replaced


def test_node_ports_are_governed_before_they_are_replaced(lab: Lab) -> None:
    lab.redirect("prerouting", NODE, NODE_PORT, f"{POD}:{WEB}")
    assert reaches(lab.world, NODE, NODE_PORT)
    lab.hosts(host("near", "near", pre_dnat=early("none")))
    assert refused(lab.world, NODE, NODE_PORT)
    assert refused(lab.world, POD)
    lab.hosts(host("near", "near", pre_dnat=early("node port", "none")))
    assert reaches(lab.world, NODE, NODE_PORT)
    assert refused(lab.world, POD), "by the address behind it"
    lab.hosts(host("near", "near", pre_dnat=early("node port")))
    assert reaches(lab.world, POD), "what no such policy decides goes on"
    assert reaches(lab.pod, WORLD), "and only what enters is governed"


def test_an_allow_before_the_replacement_holds_for_the_device_it_entered_by(lab: Lab) -> None:
    lab.redirect("prerouting", NODE, NODE_PORT, f"{FAR}:{WEB}")
    lab.hosts(host("near", "near", pre_dnat=early("node port"), forward_ingress=by("none")))
    assert reaches(lab.world, NODE, NODE_PORT)
    assert refused(lab.world, FAR)
    lab.hosts(host("away", "away", forward_egress=by("none")))
    assert refused(lab.world, NODE, NODE_PORT), "the device that it leaves by was not asked"


def test_an_allow_before_the_replacement_opens_the_node(lab: Lab) -> None:
    lab.hosts(host("near", "near", pre_dnat=early("web in")))
    assert reaches(lab.world, NODE)
    assert refused(lab.node, WORLD)


def test_a_tier_before_the_replacement_has_no_default(lab: Lab) -> None:
    lab.hosts(host("near", "near", ingress=by("web in"), pre_dnat=direction(tier("nothing"), default="deny")))
    assert reaches(lab.world, NODE)


# --- without tracking


def test_untracked_policy_is_written_both_ways(lab: Lab) -> None:
    lab.hosts(host("near", "near", untracked_ingress=early("web in"), untracked_egress=early("answers out")))
    before = lab.tracked()
    assert reaches(lab.world, NODE)
    assert lab.tracked() == before
    assert refused(lab.node, WORLD)
    lab.hosts(host("near", "near", untracked_ingress=early("web in")))
    assert refused(lab.world, NODE), "the answer is no connection's"
    lab.hosts(host("near", "near", untracked_ingress=early("answers in"), untracked_egress=early("web out")))
    before = lab.tracked()
    assert reaches(lab.node, WORLD)
    assert lab.tracked() == before


def test_an_untracked_deny_stands_over_everything_later(lab: Lab) -> None:
    lab.hosts(host("near", "near", ingress=OPEN, egress=OPEN, pre_dnat=early("all"), untracked_ingress=early("none")))
    assert refused(lab.world, NODE)
    assert refused(lab.world, FAR)
    lab.hosts(host("near", "near", ingress=OPEN, egress=OPEN, untracked_ingress=early("nothing")))
    assert reaches(lab.world, NODE), "what no untracked policy decides is tracked and goes on"


def test_an_untracked_allow_skips_the_devices_later_policy(lab: Lab) -> None:
    both = {"untracked_ingress": early("web in", "answers in")}
    lab.hosts(
        host("near", "near", pre_dnat=early("none"), forward_ingress=by("none"), **both), host("away", "away", **both)
    )
    before = lab.tracked()
    assert reaches(lab.world, FAR)
    assert lab.tracked() == before
    lab.pod_policy(ingress="nothing")
    assert refused(lab.world, POD), "a pod's policy is another's"


def test_all_devices_have_no_untracked_policy(lab: Lab) -> None:
    lab.hosts(host("all", "*", ingress=OPEN, untracked_ingress=early("none")))
    assert reaches(lab.world, NODE)


# --- what is not known


def test_a_policy_that_is_not_known_is_closed(lab: Lab) -> None:
    lab.hosts(host("near", "near", ingress=by("web in", "unheard of", default="allow")))
    assert reaches(lab.world, NODE)
    lab.hosts(host("near", "near", ingress=by("unheard of", "web in", default="allow")))
    assert refused(lab.world, NODE)
    assert reaches(lab.world, NODE, SSH)
