"""What the kernel says of a node's devices, and what is done to them: read, tried out, switched and read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from bus_schemas.ids import NodeName
from services.node_dataplane import interfaces, offload
from services.node_dataplane.autodetection import asked
from services.node_dataplane.core import NodeCore
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.offload_trial import trial
from services.node_dataplane.overlay import Overlay
from services.node_dataplane.reach import Reaches
from services.node_dataplane.tunnel import TunnelSpec
from services.node_dataplane.tunnel_checksums import BY_HAND, TunnelChecksums
from tests.support.netns import Namespace, namespaces, veth

pytestmark = pytest.mark.root


@contextmanager
def machine() -> Iterator[Namespace]:
    """Two ways out, eth0 with the default route, eth1 with a larger MTU; beside them a bridge of containers, and one
    that is down."""
    with namespaces(2) as (node, far):
        veth(node, "eth0", far, "far0", addresses=("10.0.0.15/24", "10.0.0.1/24"))
        veth(node, "eth1", far, "far1", addresses=("10.1.0.15/24", "10.1.0.1/24"))
        for end, name in ((node, "eth1"), (far, "far1")):
            end.ip("link", "set", name, "mtu", "9000")
        node.ip("address", "add", "2001:db8::15/64", "dev", "eth0", "nodad")
        node.ip("route", "add", "default", "via", "10.0.0.1")
        node.ip("route", "add", "192.0.2.0/24", "via", "10.1.0.1")
        node.ip("link", "add", "docker0", "type", "bridge")
        node.ip("address", "add", "172.17.0.1/16", "dev", "docker0")
        node.ip("link", "set", "docker0", "up")
        node.ip("link", "add", "eth7", "type", "bridge")
        node.ip("address", "add", "10.7.0.15/24", "dev", "eth7")
        yield node


def found(node: Namespace, method: str) -> dict[int, str]:
    """Device and address of each family, as an agent that starts finds them."""

    def look() -> dict[int, str]:
        settings = {
            4: asked(4, "TORTIE_IP", "autodetect", method, ""),
            6: asked(6, "TORTIE_IP6", "autodetect", method, ""),
        }
        core = NodeCore(NodeName("node1"), settings)
        reaches = Reaches(settings, core.set_reach)
        kernel = NetlinkSocket(NETLINK_ROUTE)
        try:
            core.set_interfaces(interfaces.observe(kernel).uplinks)
            reaches.look()
            core.flush(1.0)
        finally:
            kernel.close()
        return {f: f"{u.device} {u.network} {u.mtu}" for f, u in core.whereabouts.uplinks.items()}

    return node.call(look)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("first-found", {4: "eth0 10.0.0.15/24 1500", 6: "eth0 2001:db8::15/64 1500"}),
        ("auto", {4: "eth0 10.0.0.15/24 1500", 6: "eth0 2001:db8::15/64 1500"}),
        ("interface=eth1", {4: "eth1 10.1.0.15/24 9000"}),
        ("interface=eth7", {}),
        ("skip-interface=eth0", {4: "eth1 10.1.0.15/24 9000"}),
        ("cidr=10.1.0.0/16,2001:db8::/32", {4: "eth1 10.1.0.15/24 9000", 6: "eth0 2001:db8::15/64 1500"}),
        ("can-reach=192.0.2.7", {4: "eth1 10.1.0.15/24 9000"}),
        ("can-reach=8.8.8.8", {4: "eth0 10.0.0.15/24 1500"}),
        ("can-reach=2001:db8::99", {6: "eth0 2001:db8::15/64 1500"}),
        ("kubernetes-internal-ip", {}),
    ],
)
def test_each_method_on_a_real_machine(method: str, expected: dict[int, str]) -> None:
    with machine() as node:
        assert found(node, method) == expected


def test_a_name_that_cannot_be_resolved_is_a_reason() -> None:
    told: dict[int, str] = {}
    settings = {4: asked(4, "TORTIE_IP", "autodetect", "can-reach=no-such-host.invalid", "")}
    reaches = Reaches(settings, lambda family, reach: told.update({family: reach.trouble}))
    with namespaces(1) as (node,):
        assert node.call(reaches.resolve) is False
        node.call(reaches.look)
    assert told[4].startswith("the name cannot be resolved: ")


def test_an_address_in_doubt_is_not_told_to_others() -> None:
    with namespaces(1) as (node,):
        node.ip("link", "add", "eth0", "type", "bridge")
        node.ip("link", "set", "eth0", "up")
        node.ip("address", "add", "2001:db8::1/64", "dev", "eth0", "nodad", "preferred_lft", "0")
        node.ip("address", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
        assert found(node, "first-found") == {6: "eth0 2001:db8::2/64 1500"}


# --- checksum offload


def test_the_trial_tells_right_from_wrong() -> None:
    """A tunnel whose outer packets have checksums is what this kernel spoils when it masquerades: the trial sees it,
    and sees that switching offload off mends it. Ours have none, and need no mending where the kernel is new enough."""
    spoiled = trial(outer_checksum=True)
    if spoiled.corrupts is None:
        pytest.skip(spoiled.text)
    if not spoiled.corrupts:
        pytest.skip("this kernel gets even those right, so nothing wrong can be shown to the trial")
    assert trial(outer_checksum=True, leave_to_device=False).corrupts is False
    assert trial(leave_to_device=False).corrupts is False
    assert trial().corrupts is False, "this kernel is newer than 5.7"


@contextmanager
def tunnel() -> Iterator[tuple[Namespace, TunnelSpec, NetlinkSocket]]:
    with namespaces(2) as (node, far):
        veth(node, "up0", far, "far0", addresses=("10.0.0.1/24", "10.0.0.2/24"))
        spec = TunnelSpec(
            family=4,
            device="vxlan.tortie",
            vni=4096,
            port=4789,
            mac="66:00:00:00:00:01",
            mtu=1450,
            local=bytes((10, 0, 0, 1)),
            underlay="up0",
        )
        kernel = node.call(lambda: NetlinkSocket(NETLINK_ROUTE))
        overlay = Overlay(kernel, spec.device, 4)
        overlay.want(spec, [])
        overlay.reconcile()
        try:
            yield node, spec, kernel
        finally:
            kernel.close()


def test_offload_follows_what_is_set_and_is_read_back() -> None:
    with tunnel() as (node, spec, _):

        def state() -> bool:
            return node.call(lambda: offload.state(spec.device))

        assert state(), "as the kernel makes it"
        off = TunnelChecksums("off")
        assert node.call(lambda: off.settle(spec)) is True
        assert node.call(lambda: off.settle(spec)) is False
        assert (state(), off.facts[spec.device].on, off.facts[spec.device].evidence) == (False, False, "set")
        assert off.sentence == "vxlan.tortie: off (set: TORTIE_VXLAN_CHECKSUM_OFFLOAD is off)"
        node.call(lambda: offload.switch(spec.device, on=True))
        assert node.call(lambda: off.settle(spec)) is True, "somebody else switched it on"
        on = TunnelChecksums("on")
        assert node.call(lambda: on.settle(spec)) is True
        assert state()


def test_what_felix_is_told_counts_and_can_be_taken_back() -> None:
    with tunnel() as (node, spec, _):
        auto = TunnelChecksums("auto")
        assert node.call(lambda: auto.settle(replace(spec, checksums_broken=True))) is True
        assert auto.facts[spec.device].reason == "featureDetectOverride has ChecksumOffloadBroken=true"
        assert node.call(lambda: auto.settle(spec)) is True
        assert auto.facts[spec.device].on is True


def test_offload_that_somebody_switched_off_by_hand_stays_off() -> None:
    with tunnel() as (node, spec, _):
        auto = TunnelChecksums("auto")
        node.call(lambda: offload.switch(spec.device, on=False))
        assert node.call(lambda: auto.settle(spec)) is False
        fact = auto.facts[spec.device]
        assert (fact.on, fact.wanted) == (False, True)
        assert fact.reason.endswith(BY_HAND)


def test_the_driver_of_a_device_is_known() -> None:
    with tunnel() as (node, _, _kernel):
        assert node.call(lambda: offload.drivers("up0")) == ("veth",)
