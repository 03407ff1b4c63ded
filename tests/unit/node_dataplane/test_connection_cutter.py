"""When the kernel is asked for connections, and when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from bus_schemas.ids import PodKey
from bus_schemas.policy import Match
from bus_schemas.subjects import Fact
from chassis.health import Health
from services.node_dataplane import connection_cutter
from services.node_dataplane.connection_cutter import CAUSE, ConnectionCutter, Kernel
from services.node_dataplane.cutting import Changes
from services.node_dataplane.denials import Told
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.nft.table import PolicyTable
from tests.support.nft_worlds import TCP, allow, attach, direction, group, groups, plug, pod, rules, tier
from tests.support.waiting import eventually

A, FAR = ip_address("10.244.0.1").packed, ip_address("10.9.9.9").packed
CONNECTION = Tracked(FAR, A, TCP, 40000, 80, None, None, b"entry")


class PlayedKernel(Kernel):
    def __init__(self) -> None:
        self.dumps = 0
        self.gone: list[Tracked] = []
        self.broken = False

    def close(self) -> None: ...

    def connections(self, addresses: Any) -> tuple[list[Tracked], frozenset[bytes]]:
        self.dumps += 1
        if self.broken:
            raise OSError(5, "the kernel is broken")
        return [CONNECTION], frozenset()

    def cut(self, connections: Any) -> None:
        self.gone += connections


class Node:
    """One pod `a`, governed at ingress by a policy that cuts."""

    def __init__(self) -> None:
        self.table = PolicyTable()
        self.changes = Changes(self.table)
        self.kernel: PlayedKernel
        self.health = Health()
        self.told: list[Told] = []
        self.programmed: set[PodKey] = {pod("a")}
        self.cutter = ConnectionCutter(
            self.changes,
            self.table,
            lambda: {pod("a"): ("10.244.0.1",)},
            lambda: self.programmed,
            health=self.health,
            tell=self.told.append,
        )
        plug(self.table, "a", "10.244.0.1")
        self.change(attach("a", ingress=direction(tier("web"))), self.web(allow()))
        self.changes.take()

    def web(self, *allowed: Any, cut: bool = True) -> Fact:
        fact = rules("web", ingress=allowed)
        return fact._replace(value=msgspec.structs.replace(fact.value, cut=cut))

    def change(self, *facts: Fact) -> None:
        """In the kernel at once."""
        for fact in facts:
            self.changes.note(fact)
            self.table.apply(fact)
        self.table.wanted()
        self.changes.begin()
        if self.changes.committed():
            self.cutter.wake()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.cutter.run())
            yield
            task.cancel()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(connection_cutter, "PAUSE_S", 0.0)
    monkeypatch.setattr(connection_cutter, "Kernel", PlayedKernel)
    made = Node()
    made.kernel = made.cutter._kernel  # type: ignore[assignment]
    return made


async def test_changes_that_come_together_are_one_look(node: Node) -> None:
    for port in range(20):
        node.change(node.web(allow(protocol=port)))
    node.change(node.web())
    async with node.running():
        await eventually(lambda: node.told)
    assert node.kernel.dumps == 1
    assert node.kernel.gone == [CONNECTION]


async def test_a_change_during_a_look_has_its_own(node: Node) -> None:
    async with node.running():
        node.change(node.web(allow(), allow()))
        await eventually(lambda: node.kernel.dumps == 1)
        node.change(node.web())
        await eventually(lambda: node.kernel.gone)


async def test_a_kernel_that_fails_is_named_and_asked_again(node: Node) -> None:
    node.kernel.broken = True
    node.change(node.web())
    async with node.running():
        await eventually(lambda: "broken" in node.health.notes.get(CAUSE, ""))
        node.kernel.broken = False
        await eventually(lambda: node.kernel.gone)
        await eventually(lambda: CAUSE not in node.health.notes)


async def test_a_pod_of_whose_policy_something_is_missing_waits_for_it(node: Node) -> None:
    from_s = allow(source=Match(groups=groups("s:s")))
    node.programmed.clear()
    async with node.running():
        node.change(node.web(from_s))
        await eventually(lambda: node.changes._due)
        assert node.kernel.dumps == 0
        node.programmed.add(pod("a"))
        node.change(group("s:s", "10.1.1.1"))
        await eventually(lambda: node.kernel.gone)


async def test_without_a_policy_that_cuts_the_kernel_is_never_asked(node: Node) -> None:
    node.change(node.web(allow(), cut=False))
    node.changes.take()
    async with node.running():
        node.change(node.web(cut=False), group("s:s"))
        node.cutter.wake()
        await eventually(lambda: not node.cutter._woken.is_set())
    assert node.kernel.dumps == 0
