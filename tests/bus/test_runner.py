"""A service as a process: its end, its exit code, and a server that dies with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from bus_schemas.subjects import STATUS
from chassis.embedded import EmbeddedNats
from chassis.feed import Interest
from tests.support.mirror import mirror
from tests.support.nats import Nats
from tests.support.waiting import eventually

SERVICE = """
import asyncio, sys, threading
from chassis import runner
from chassis.errors import CannotServe
from chassis.runner import Context, run
from chassis.settings import ServiceSettings

async def orderly(context):
    print("serving", flush=True)
    await context.stopping.wait()
    print("stopping", flush=True)

async def stubborn(context):
    print("serving", flush=True)
    await asyncio.Event().wait()

async def stuck(context):
    runner.END_S = 1.0
    waiting = asyncio.create_task(asyncio.to_thread(threading.Event().wait))
    print("serving", flush=True)
    await context.stopping.wait()
    waiting.cancel()

async def broken(context):
    assert 1 + 1 == 3, "an invariant"

async def obstructed(context):
    async with asyncio.TaskGroup():
        raise CannotServe("cannot listen: the port is taken")

async def secretive(context):
    password = "geh" + "eim"
    raise RuntimeError("a bug")

sys.exit(run("sample", ServiceSettings, globals()[sys.argv[1]]))
"""
ROOT = Path(__file__).parents[2]


async def start(kind: str, **variables: str) -> Process:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TORTIE_INSTANCE": "a", **variables}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, kind, stdout=PIPE, stderr=PIPE, env=environ
    )


async def serving(process: Process) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == b"serving\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_ends_cleanly(nats: Nats, number: signal.Signals) -> None:
    process = await start("orderly", TORTIE_NATS_URL=nats.url)
    await serving(process)
    async with nats.bus() as bus, mirror(bus, Interest(STATUS)) as seen:
        await eventually(lambda: ("sample", "a") in seen.values)
    process.send_signal(number)
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"stopping\n")


async def test_it_ends_cleanly_without_a_bus_too() -> None:
    process = await start("orderly", TORTIE_NATS_URL="nats://127.0.0.1:1")
    await serving(process)
    process.terminate()
    await process.communicate()
    assert process.returncode == 0


async def test_a_thread_that_does_not_end_is_named_and_left_behind(nats: Nats) -> None:
    process = await start("stuck", TORTIE_NATS_URL=nats.url)
    await serving(process)
    process.terminate()
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"in wait" in err


async def test_a_broken_invariant_ends_it_with_1(nats: Nats) -> None:
    process = await start("broken", TORTIE_NATS_URL=nats.url)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"an invariant" in err


async def test_what_the_operator_has_to_mend_is_one_sentence(nats: Nats) -> None:
    process = await start("obstructed", TORTIE_NATS_URL=nats.url)
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"tortie sample: cannot listen: the port is taken\n" in err
    assert b"Traceback" not in err
    assert b"exception" not in err


async def test_a_traceback_does_not_tell_the_values_of_variables(nats: Nats) -> None:
    process = await start("secretive", TORTIE_NATS_URL=nats.url)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"a bug" in err
    assert b"geheim" not in err


async def test_bad_settings_end_it_with_2() -> None:
    process = await start("orderly", TORTIE_NATS_REPLICAS="x", TORTIE_NATS_ULR="y")
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"did you mean TORTIE_NATS_URL?" in err
    assert b"TORTIE_NATS_REPLICAS" in err


async def test_a_second_signal_ends_it_at_once(nats: Nats) -> None:
    process = await start("stubborn", TORTIE_NATS_URL=nats.url)
    await serving(process)
    process.terminate()
    assert process.stderr is not None
    while b"stopping" not in await process.stderr.readline():
        assert process.returncode is None
    process.terminate()
    await process.communicate()
    assert process.returncode == 130


PARENT = """
import asyncio, sys
from chassis.embedded import EmbeddedNats

async def main():
    async with EmbeddedNats(sys.argv[1]) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_embedded_server_dies_with_its_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=PIPE, env={"PYTHONPATH": str(ROOT)}
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    await parent.communicate()
    await eventually(lambda: not alive(pid))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_the_embedded_server_keeps_its_port_and_store(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path)
    await server.start()
    url = server.url
    await server.stop()
    await server.start()
    assert server.url == url
    await server.kill()
