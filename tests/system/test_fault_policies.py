"""Policies that no door would let in, written by somebody else: what they may mean is closed, with real packets, and it
is said in /readyz, in the policy's status and in an event. When they are gone all is as before."""

from __future__ import annotations

import pytest

from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import Metadata, NetworkPolicy, Resource
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule, NetworkPolicySpec
from bus_schemas.subjects import DESIRED, EVENT, POLICY_STATUS
from tests.support.fault_streams import WEB, A
from tests.support.faults import World
from tests.support.waiting import within

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

NOBODY_KNOWS = EntityRule(selector="app ==")
NAME = "foreign"


def policy(*rules: CalicoRule, selector: str = "app == 'web'") -> NetworkPolicy:
    """Before all others of its tier."""
    spec = NetworkPolicySpec(order=1.0, selector=selector, types=("Ingress",), ingress=rules)
    return NetworkPolicy(metadata=Metadata(namespace=WEB.namespace, name=NAME), spec=spec)


OF_WHOM_NOBODY_KNOWS = policy(CalicoRule(action="Allow", protocol="TCP", source=NOBODY_KNOWS))
OF_ANOTHER_PORT = policy(
    CalicoRule(action="Allow", protocol="TCP", source=NOBODY_KNOWS, destination=EntityRule(ports=(81,)))
)
FOR_WHOM_NOBODY_KNOWS = policy(CalicoRule(action="Allow", protocol="TCP"), selector="app ==")


async def put(world: World, resource: Resource | None) -> None:
    family, key = DESIRED[NetworkPolicy], (WEB.namespace, NAME)
    if resource is None:
        await world.bus.delete(family, key)
    else:
        await world.bus.put(family, key, resource)


@pytest.mark.parametrize(
    ("broken", "path"),
    [(OF_WHOM_NOBODY_KNOWS, "spec.ingress[0].source.selector: "), (FOR_WHOM_NOBODY_KNOWS, "spec.selector: ")],
    ids=["a rule", "a subject"],
)
async def test_what_may_be_meant_is_closed_and_told(world: World, broken: NetworkPolicy, path: str) -> None:
    await world.allowed(A)
    async with world.hearing(EVENT) as events:
        await put(world, broken)
        await world.denied(A)

        async def told() -> bool:
            facts = (await events.next()).facts
            return any(fact.value.object == f"networkpolicy/{WEB.namespace}/{NAME}" for fact in facts)

        await within(told, "an event names the policy")
    status = await world.value(POLICY_STATUS, "networkpolicy", WEB.namespace, NAME)
    assert isinstance(status, PolicyStatus)
    assert status.faults[0].startswith(path)
    assert NAME in await world.note("policy-compiler", "not compiled")
    assert NAME in await world.note("agent-node1", "policies not understood")
    await put(world, None)
    await world.allowed(A)

    async def silent() -> bool:
        notes = [await world.note("policy-compiler", "not compiled")]
        notes.append(await world.note("agent-node1", "policies not understood"))
        assert notes == ["", ""], notes
        return True

    await within(silent, "nobody speaks of it any more")


async def test_what_it_cannot_mean_goes_on(world: World) -> None:
    async with world.watched():
        await put(world, OF_ANOTHER_PORT)

        async def named() -> bool:
            return NAME in await world.note("agent-node1", "policies not understood")

        await within(named, "the node has it")
        await world.allowed(A)
        await put(world, None)
        await world.converged("a policy that nobody understands")
