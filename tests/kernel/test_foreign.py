"""Nobody else's route, neighbour, forwarding entry, device or rule is touched, whatever the agent does."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.node_dataplane.core import Desired
from services.node_dataplane.fabric import Fabric
from services.node_dataplane.links import PodLinks
from services.node_dataplane.monitor import Heard, Monitor
from services.node_dataplane.nft.link_groups import LinkGroups
from services.node_dataplane.routes import BLACKHOLE, SPARE, Peer, Row, destination
from services.node_dataplane.tunnel import TunnelSpec
from tests.support import foreign
from tests.support.netns import Namespace, namespaces
from tortie.machine import ours, reading
from tortie.machine.carrying import carry_out

pytestmark = pytest.mark.root

GATEWAY = {4: ip_address("10.0.0.2").packed, 6: ip_address("fd00::2").packed}
VTEP, DEVICE = ip_address("10.244.0.129").packed, "vxlan.tortie"
SPEC = TunnelSpec(
    4, DEVICE, 4096, 4789, "66:00:00:00:00:01", 1450, ip_address("10.0.0.1").packed, "up0", ("10.244.0.1",)
)
BLOCKS = [f"10.244.{n}.{low}/26" for n in (0, 10, 50, 100) for low in (0, 64)]
BLOCKS6 = [f"fd00:244:{n}::{low:x}/122" for n in (0, 10, 50, 100) for low in (0, 64)]


def row(number: int, family: int) -> Row | None:
    return (
        None,
        BLACKHOLE,
        Row("up0", GATEWAY[family]),
        Row("up0", GATEWAY[family], metric=SPARE),
        Row(DEVICE, VTEP, onlink=True) if family == 4 else Row("up0", GATEWAY[6], onlink=True),
    )[number]


rows = st.tuples(*(st.integers(0, 4) for _ in BLOCKS))
act = st.one_of(
    st.tuples(st.just("rows"), rows),
    st.tuples(st.just("tunnel"), st.booleans()),
    st.tuples(st.sampled_from(["damage", "theft"]), st.integers(0, len(BLOCKS) - 1)),
    st.tuples(st.sampled_from(["check", "restart", "flush"]), st.none()),
)


@settings(max_examples=15, deadline=None, phases=(Phase.reuse, Phase.generate))  # To shrink one takes minutes.
@given(seed=st.integers(0, 10_000), acts=st.lists(act, min_size=3, max_size=10))
def test_whatever_happens_nothing_foreign_is_touched(
    tmp_path_factory: pytest.TempPathFactory, seed: int, acts: list[tuple[str, object]]
) -> None:
    with namespaces(1) as (node,):
        node.ip("link", "add", "up0", "type", "bridge")
        node.ip("address", "add", "10.0.0.1/24", "dev", "up0")
        node.ip("link", "set", "up0", "up")
        node.ip("-6", "address", "add", "fd00::1/64", "dev", "up0", "nodad")
        foreign.make(node, (*foreign.FIXED, *foreign.routes(seed, 60)))
        life = Life(node, tmp_path_factory.mktemp("node"))
        for what, argument in (("rows", (2, 2, 1, 4, 2, 3, 4, 1)), ("tunnel", True), *acts):
            getattr(life, what)(argument)
            assert foreign.snapshot(node) == life.others, (what, argument)
        life.cleanup()
        assert foreign.snapshot(node) == life.others
        assert not [line for family in ("-4", "-6") for line in node.ip(family, "route", "show", "proto", "84").split()]
        assert DEVICE not in node.ip("link")


class Life:
    def __init__(self, node: Namespace, directory: Path) -> None:
        self.node, self.directory = node, directory
        self.others = foreign.snapshot(node)
        """What is theirs now."""
        self.stolen: set[int] = set()
        self.desired = Desired(tunnels={DEVICE: SPEC}, peers={})
        self.begin()

    def begin(self) -> None:
        self.fabric = self.node.call(lambda: Fabric("auto", self.directory))
        self.links = self.node.call(PodLinks)
        self.monitor = self.node.call(lambda: Monitor([self.fabric.socket.port]))
        self.node.call(self.fabric.adopt)
        self.links.regroup(LinkGroups().right)
        self.apply()

    def end(self) -> None:
        for part in (self.monitor, self.links, self.fabric):
            part.close()

    def apply(self) -> None:
        self.node.call(lambda: self.fabric.apply(self.desired))

    def rows(self, numbers: tuple[int, ...]) -> None:
        self.desired.rows = {
            destination(cidr): row(number, family)
            for family, blocks in ((4, BLOCKS), (6, BLOCKS6))
            for cidr, number in zip(blocks, numbers, strict=True)
        }
        self.apply()

    def tunnel(self, on: bool) -> None:
        self.desired.tunnels = {DEVICE: SPEC if on else None}
        self.desired.peers = {DEVICE: frozenset({Peer(VTEP, "66:00:00:00:00:02", GATEWAY[4])} if on else ())}
        self.apply()

    def damage(self, number: int) -> None:
        """A route of ours is deleted, and whatever was heard of is mended."""
        for family, cidr in (("-4", BLOCKS[number]), ("-6", BLOCKS6[number])):
            self.node.ip(family, "route", "flush", "root", cidr, "proto", "84", "table", "main")
        self.hear()

    def hear(self) -> None:
        heard = Heard()
        self.monitor.drain(heard)
        self.node.call(lambda: self.fabric.mend(heard, lambda *event: None))

    def theft(self, number: int) -> None:
        """Somebody replaces routes of ours, and nobody has heard of it yet. Once each: `ip route replace` of what is
        there already, behind ours, is refused by the kernel."""
        if number in self.stolen:
            return
        self.stolen.add(number)
        self.node.ip("route", "replace", BLOCKS[number], "via", "10.0.0.9", "proto", "static")
        self.node.ip("-6", "route", "replace", BLOCKS6[number], "via", "fd00::9", "proto", "static")
        self.others = foreign.snapshot(self.node)

    def check(self, _: object) -> None:
        self.node.call(lambda: self.fabric.check(lambda *event: None))

    def flush(self, _: object) -> None:
        self.node.call(self.fabric.flush)

    def restart(self, _: object) -> None:
        self.end()
        self.begin()

    def cleanup(self) -> None:
        self.end()
        places = reading.Places(
            state_dir=self.directory,
            cni_socket=self.directory / "cni.sock",
            bin_dir=self.directory / "bin",
            conf_dir=self.directory / "net.d",
        )
        machine = self.node.call(lambda: reading.read(places))
        plan = ours.plan(machine, pods=False, state_dir="/none", cni_socket="/none", bin_dir="/none", conf_dir="/none")
        for step in plan.steps:
            assert self.node.call(lambda step=step: carry_out(step, places, self.directory)) == "", step  # type: ignore[misc]
