"""Other projects' truth tables and probes, judged four times: by a naive reading of the manifests, by the compiled
policy, by the rendered rules, by real packets.

One lab serves all cases. By default a spread of them runs (`tests.support.packet_cases` says which); `make conformance`
runs them all. SCTP goes by raw packets, whether or not the kernel has SCTP sockets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import pytest_asyncio

from bus_schemas.resources import Resource
from tests.support import packet_cases
from tests.support.packet_lab import PacketLab
from tests.support.policy_judges import JUDGES, Judge
from tests.support.truth_tables import Case, Step
from tortie.lab import requirements

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[PacketLab]:
    await requirements.check_machine()
    async with PacketLab.running() as running:
        yield running


@pytest.mark.parametrize("case", packet_cases.parameters())
async def test_truth_table(case: Case, lab: PacketLab, tmp_path: Path) -> None:
    judges: dict[str, Judge] = {name: make() for name, make in JUDGES.items()}
    world = {_where(resource): resource for resource in case.start}
    for judge, resource in product(judges.values(), case.start):
        judge.put(resource)
    for number, step in enumerate(case.steps, 1):
        for resource in step.delete:
            del world[_where(resource)]
        world |= {_where(resource): resource for resource in step.put}
        opinions = {name: _opinion(judge, step) for name, judge in judges.items()}
        await lab.become(world.values(), gone=step.delete)
        opinions["packets"] = await lab.shows(step)
        if any(opinions.values()):
            pytest.fail(
                "\n".join(
                    (
                        f"{case.id}, step {number}: {case.description}",
                        *(f"--- {name}: {wrong or 'as expected'}" for name, wrong in opinions.items()),
                        await lab.evidence(tmp_path),
                    )
                ),
                pytrace=False,
            )


def _opinion(judge: Judge, step: Step) -> str:
    """Where the judge and the tables differ after the step."""
    for resource in step.delete:
        judge.delete(resource)
    for resource in step.put:
        judge.put(resource)
    judge.settle()
    wrong = [table.difference(partial(judge.reaches, table)) for table in step.tables]
    wrong += [f"  not so: {probe}" for probe in step.probes if not judge.agrees(probe)]
    return "\n".join(filter(None, wrong))


def _where(resource: Resource) -> tuple[type[Resource], str, str]:
    return (type(resource), *resource.key)
