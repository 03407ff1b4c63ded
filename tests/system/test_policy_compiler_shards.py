"""Two policy compilers, two shards, processes of their own: one is killed, the number of shards changes."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.policy import rules_id
from bus_schemas.resources import KubernetesNetworkPolicy
from bus_schemas.subjects import GROUP, LEASE, RULES, Fact, Key
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.feed import Interest
from chassis.health import Health
from chassis.lease import TTL_S
from chassis.settings import ServiceSettings
from chassis.shares import PARTITIONS
from services.policy_compiler.core import WRITES, Core
from services.policy_compiler.references import names
from tests.support.mirror import Mirror, mirror
from tests.support.policy_worlds import endpoint, manifests, namespace, pod
from tests.support.waiting import eventually

SPACES = 12
RUN = """
from chassis.runner import run
from services.policy_compiler.service import serve
from services.policy_compiler.settings import Settings
raise SystemExit(run("policy_compiler", Settings, serve))
"""


def policy(n: int, peer: str = "client") -> Fact:
    (fact,) = manifests(f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web, namespace: s{n}}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {peer}}}}}}}]}}]
""")
    return fact


def world() -> list[Fact]:
    facts: list[Fact] = []
    for n in range(SPACES):
        facts += [namespace(f"s{n}"), policy(n)]
        for at, app in enumerate(("web", "client", "other"), 1):
            facts += [pod(f"s{n}/{app}", {"app": app}), endpoint(f"s{n}/{app}", f"10.0.{n}.{at}")]
    return facts


def compiled(facts: list[Fact]) -> dict[Key, Any]:
    """What is to be on the bus and nothing else."""
    core = Core()
    for fact in facts:
        core.apply(fact)
    changes = core.flush()
    return {
        **{(segment.group, str(segment.segment)): group for segment, group in changes.groups.items()},
        **{(uid,): rules for uid, rules in changes.rules.items()},
        **{(id,): direction for id, direction in changes.directions.items()},
        **{tuple(key): attachment for key, attachment in changes.attachments.items()},
    }


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path) as running:
        yield running


@asynccontextmanager
async def compiler(server: EmbeddedNats, instance: str, shards: int) -> AsyncIterator[Process]:
    environ = {
        "TORTIE_NATS_URL": server.url,
        "TORTIE_INSTANCE": instance,
        "TORTIE_HEALTH_LISTEN": "",
        "TORTIE_POLICY_SHARDS": str(shards),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN), env=os.environ | environ, cwd=Path(__file__).parents[2], stderr=DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0


@asynccontextmanager
async def observed(server: EmbeddedNats, facts: list[Fact]) -> AsyncIterator[tuple[Bus, Mirror, Mirror]]:
    """The bus, what is compiled on it, and the leases."""
    settings = ServiceSettings(nats_url=server.url, instance="test", health_listen="")
    async with Bus.connect(settings, name="test", health=Health()) as bus:
        await bus.connected()
        for fact in facts:
            await bus.put(fact.family, fact.key, fact.value)
        async with mirror(bus, *map(Interest, WRITES)) as written, mirror(bus, Interest(LEASE)) as leases:
            yield bus, written, leases


def holdings(leases: Mirror) -> dict[str, int]:
    """Instance -> how many partitions it writes."""
    counts: dict[str, int] = {}
    for (name,), lease in leases.values.items():
        if "-at-" not in name:
            counts[lease.holder] = counts.get(lease.holder, 0) + 1
    return counts


def assert_in_order(written: Mirror) -> None:
    """At no moment did anything on the bus name what was not there."""
    there: set[str] = set()
    naming: dict[Key, set[str]] = {}
    for fact in written.facts:
        if fact.family in (GROUP, RULES) and fact.value is None:
            there.discard(fact.key[0])
        elif fact.family in (GROUP, RULES):
            there.add(fact.key[0])
        naming[fact.key] = set(names(fact.value)) if fact.value is not None else set()
        dangling = {key: named - there for key, named in naming.items() if named - there}
        assert not dangling, f"after {fact.key}: {dangling}"


async def test_a_killed_replica_is_replaced_within_the_lease(server: EmbeddedNats) -> None:
    facts = world()
    half = PARTITIONS // 2
    async with (
        observed(server, facts) as (bus, written, leases),
        compiler(server, "one", 2) as one,
        compiler(server, "two", 2),
    ):
        await eventually(lambda: holdings(leases) == {"one": half, "two": half})
        await eventually(lambda: written.values == compiled(facts))
        one.kill()
        await one.wait()
        began = asyncio.get_running_loop().time()
        for n in range(SPACES):
            facts[facts.index(policy(n))] = policy(n, "other")
            await bus.put(*policy(n, "other")[:3])
        await eventually(lambda: written.values == compiled(facts))
        assert asyncio.get_running_loop().time() - began < 4 * TTL_S  # the lease, and a busy machine
        await eventually(lambda: holdings(leases) == {"two": PARTITIONS})
        assert_in_order(written)


async def test_another_number_of_shards_loses_nothing_and_leaves_nothing(server: EmbeddedNats) -> None:
    facts = world()
    async with observed(server, facts) as (bus, written, leases):
        async with compiler(server, "one", 1):
            await eventually(lambda: written.values == compiled(facts))
            web = written.sequences[rules_id(KubernetesNetworkPolicy.TOKEN, "s0", "web"),]
            async with compiler(server, "two", 4):
                await eventually(lambda: ("policy_compiler-at-two",) in leases.values)
                facts.remove(policy(1))
                await bus.delete(*policy(1)[:2])
                await eventually(lambda: written.values == compiled(facts))
        async with compiler(server, "one", 4), compiler(server, "two", 4):
            await eventually(lambda: len(holdings(leases)) == 2 and sum(holdings(leases).values()) == PARTITIONS)
            facts.remove(policy(2))
            await bus.delete(*policy(2)[:2])
            await eventually(lambda: written.values == compiled(facts))
        assert written.sequences[rules_id(KubernetesNetworkPolicy.TOKEN, "s0", "web"),] == web
        assert_in_order(written)
