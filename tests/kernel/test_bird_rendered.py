"""Rendered configurations at work: real BIRDs in namespaces speak, and the kernels show what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.bgp import Secret
from bus_schemas.resources.bgp import BGPPassword, PrefixAdvertisement, SecretKeyRef
from bus_schemas.subjects import Fact
from services.node_dataplane.bird.render import render
from tests.support.bird import BIRD, BIRDC, Bird
from tests.support.netns import Namespace, namespaces, veth, wait_for
from tests.support.routes import pool
from tests.support.speakers import Told, configuration, peer, speaking

DEADLINE_S = 30.0

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(BIRD is None or BIRDC is None, reason="no bird on this machine (Debian: bird2)"),
]

POOLS = (pool("plain", "10.244.0.0/16"), pool("vx", "10.245.0.0/16", vxlan="Always"), pool("six", "fd10::/48"))
MESH_PASSWORD = BGPPassword(secret_key_ref=SecretKeyRef(name="bgp", key="mesh"))
PASSWORDS = {Secret(name="bgp", key="mesh"): "of the mesh"}


class Fabric:
    """Namespaces on one bridge, the i-th with 192.0.2.i and fd00::i."""

    def __init__(self, stack: ExitStack, directory: Path, count: int) -> None:
        switch, *self.nodes = stack.enter_context(namespaces(count + 1))
        self._stack, self._directory = stack, directory
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "up")
        for number, node in enumerate(self.nodes, 1):
            veth(node, "eth0", switch, f"p{number}", addresses=(f"192.0.2.{number}/24", "192.0.2.250/32"))
            node.ip("address", "add", f"fd00::{number}/64", "dev", "eth0", "nodad")
            switch.ip("link", "set", f"p{number}", "master", "br0")

    def start(self, number: int, configuration: str) -> Bird:
        bird = Bird(self.nodes[number - 1], self._directory / f"{number}", configuration)
        self._stack.callback(bird.close)
        return bird


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def node(number: int, **more: Any) -> Fact:
    return speaking(f"n{number}", f"192.0.2.{number}/24", f"fd00::{number}/64", **more)


def kernel(namespace: Namespace, family: int = 4) -> dict[str, tuple[str, str, int]]:
    """Routes with a gateway, or that drop: destination -> (gateway, protocol, metric)."""
    found = json.loads(namespace.ip(f"-{family}", "-json", "route", "show"))
    return {
        route["dst"]: (route.get("gateway", route.get("type", "")), route["protocol"], route.get("metric", 0))
        for route in found
        if "gateway" in route or route.get("type") == "blackhole"
    }


def established(bird: Bird, count: int) -> bool:
    return len(re.findall(r" Established", bird.ask("show protocols"))) == count


def test_a_mesh_with_a_password(stack: ExitStack, tmp_path: Path) -> None:
    fabric = Fabric(stack, tmp_path, 2)
    told = Told(
        node(1),
        node(2),
        *POOLS,
        configuration(
            node_mesh_password=MESH_PASSWORD,
            prefix_advertisements=(PrefixAdvertisement(cidr="10.244.0.0/16", communities=("64512:7",)),),
        ),
    )
    for cidr, owner in {
        "10.244.1.0/26": "n1",
        "10.245.1.0/26": "n1",
        "fd10::/122": "n1",
        "10.244.2.0/26": "n2",
    }.items():
        told.lead(cidr, owner)
    told.lead("10.244.2.9/32", "n1", borrowed=True)
    first, second = fabric.nodes
    first.ip("route", "add", "blackhole", "10.244.1.0/26", "proto", "84")
    first.ip("route", "add", "10.244.3.0/26", "via", "192.0.2.250", "proto", "84", "onlink", "dev", "eth0")
    birds = [fabric.start(i, render(told.whole(f"n{i}"), PASSWORDS)) for i in (1, 2)]
    wait_for(lambda: all(established(bird, 2) for bird in birds), "the sessions of both families", DEADLINE_S)

    wait_for(lambda: "10.244.2.9" in kernel(second), "the borrowed address", DEADLINE_S)
    assert kernel(second) == {
        "10.244.1.0/26": ("192.0.2.1", "bird", 1024),
        "10.244.2.9": ("192.0.2.1", "bird", 1024),
    }, "tunnelled blocks are the agent's, and so are the blackholes of its own"
    wait_for(lambda: "fd10::/122" in kernel(second, 6), "the block of the other family", DEADLINE_S)
    assert kernel(second, 6)["fd10::/122"][:2] == ("fd00::1", "bird")
    assert kernel(first)["10.244.2.0/26"] == ("192.0.2.2", "bird", 1024)
    heard = birds[1].ask("show route all for 10.244.1.1")
    assert "BGP.community: (64512,7)" in heard
    assert "10.245.1.0/26" in birds[1].ask("show route"), "announced all the same"
    assert "10.244.3.0/26" not in birds[0].ask("show route"), "what the agent programmed is not learnt"


def test_a_wrong_password_keeps_them_apart(stack: ExitStack, tmp_path: Path) -> None:
    fabric = Fabric(stack, tmp_path, 2)
    told = Told(node(1), node(2), configuration(node_mesh_password=MESH_PASSWORD))
    bird = fabric.start(1, render(told.whole("n1"), PASSWORDS))
    fabric.start(2, render(told.whole("n2"), {}))
    assert established(bird, 0)
    assert len(re.findall(r"BGP +--- +down", birds_view := bird.ask("show protocols"))) == 0, birds_view


def test_a_reflector_passes_routes_on(stack: ExitStack, tmp_path: Path) -> None:
    fabric = Fabric(stack, tmp_path, 3)
    told = Told(
        node(1),
        node(2),
        node(3, labels={"rr": ""}, cluster="1.1.1.1"),
        *POOLS,
        configuration(node_to_node_mesh_enabled=False),
        peer("rr", node_selector="!has(rr)", peer_selector="has(rr)"),
    )
    told.lead("10.244.1.0/26", "n1")
    told.lead("10.244.2.0/26", "n2")
    birds = [fabric.start(i, render(told.whole(f"n{i}"), {})) for i in (1, 2, 3)]
    wait_for(lambda: established(birds[2], 4), "the reflector's sessions", DEADLINE_S)
    wait_for(lambda: "10.244.1.0/26" in kernel(fabric.nodes[1]), "the block of the other client", DEADLINE_S)
    assert kernel(fabric.nodes[1])["10.244.1.0/26"] == ("192.0.2.1", "bird", 1024), "its owner is the next hop"


def test_one_more_peer_leaves_the_sessions(stack: ExitStack, tmp_path: Path) -> None:
    fabric = Fabric(stack, tmp_path, 2)
    told = Told(node(1), node(2), configuration())
    first, second = (fabric.start(i, render(told.whole(f"n{i}"), {})) for i in (1, 2))
    wait_for(lambda: established(first, 2) and established(second, 2), "the mesh", DEADLINE_S)
    before = first.ask("show protocols Mesh_192_0_2_2")
    told.tell(node(3), *POOLS, peer("tor", node="n1", peer_ip="192.0.2.99", as_number=65001))
    told.lead("10.244.1.0/26", "n1")
    assert "Reconfigured" in first.configure(render(told.whole("n1"), {}))
    assert first.ask("show protocols Mesh_192_0_2_2") == before
    wait_for(lambda: "10.244.1.0/26" in kernel(fabric.nodes[1]), "the new block", DEADLINE_S)
