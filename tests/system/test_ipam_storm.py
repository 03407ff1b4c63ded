"""Every fault of the bus in the middle of an address storm: everybody is answered, and nothing is given twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.ipam import pool
from tests.support.ipam_storm import EACH, NODES, Storm, ready_again, storm_of

WIDE = pool("wide", "10.0.0.0/16", block_size=28)
SCARCE = pool("scarce", "10.9.0.0/24", block_size=29)

Fault = Callable[[Storm], Awaitable[None]]


async def server_killed(storm: Storm) -> None:
    await storm.nats.restart()


async def agents_cut_off(storm: Storm) -> None:
    storm.agents.cut()


async def replica_cut_off(storm: Storm) -> None:
    storm.behind.cut()


async def replies_lost(storm: Storm) -> None:
    """The agents do not hear; when they notice, and connect again, it is well."""
    storm.agents.lose_answers()


async def replica_deaf(storm: Storm) -> None:
    """A replica writes, and does not hear whether it was done."""
    storm.behind.lose_answers()


async def replica_killed(storm: Storm) -> None:
    storm.replicas[0].kill()


async def replica_paused(storm: Storm) -> None:
    storm.replicas[0].send_signal(signal.SIGSTOP)


FAULTS: tuple[Fault, ...] = (
    server_killed,
    agents_cut_off,
    replica_cut_off,
    replies_lost,
    replica_deaf,
    replica_killed,
    replica_paused,
)


async def through(storm: Storm, fault: Fault, *, copies: int = 1) -> None:
    """The storm, and the fault when some of it is answered."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(storm.run(copies=copies))
        await storm.some_answered.wait()
        await fault(storm)
    if fault is replica_paused:
        storm.replicas[0].send_signal(signal.SIGCONT)  # it goes on with what it believed then
    await ready_again(storm)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_fault_in_the_middle(tmp_path: Path, fault: Fault) -> None:
    async with storm_of(tmp_path, 2, WIDE) as storm:
        await through(storm, fault)
        assert storm.given == NODES * EACH
        await storm.is_over()


async def test_every_request_three_times_and_a_replica_dies(tmp_path: Path) -> None:
    async with storm_of(tmp_path, 3, WIDE) as storm:
        await through(storm, replica_killed, copies=3)
        assert storm.given == NODES * EACH
        await storm.is_over()


async def test_fewer_addresses_than_requests(tmp_path: Path) -> None:
    async with storm_of(tmp_path, 2, SCARCE) as storm:
        await through(storm, replica_killed)
        await storm.is_over()
        assert storm.given == 256 < NODES * EACH
