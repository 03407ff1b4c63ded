"""`tortie events tail` as people run it: what it shows, how it ends, what it does when the api or the bus goes away."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.bus import Bus
from tests.support.api_server import running
from tests.support.listener import listening, say, tortie
from tests.support.nats import Nats
from tests.support.waiting import until
from tortie.cli.event_lines import FIELDS


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    async with nats.bus() as made:
        yield made


async def objects(*arguments: str) -> list[str]:
    """What a tail that does not follow shows, by object."""
    async with listening(tortie("events", "tail", "-o", "json", "--no-follow", *arguments)) as reader:
        shown, complaints = await reader.process.communicate()
        assert reader.process.returncode == 0, complaints.decode()
    return [json.loads(line)["object"] for line in shown.decode().splitlines()]


ALL = "NetworkPolicy/guarded/all"
FILTERS = {
    "what is wanted of the past": (["-n", "1", "-d", "ipam", "-d", "node", "--severity", "info"], ["node2"]),
    "what is wanted since": (["--since", "1h", "--what", "policy.denied", "--node", "node2"], ["shop/db"]),
    "whom it concerns": (["--pod", "other/client", "--namespace", "shop"], ["shop/db"]),
    "everything": (["--since", "1h"], ["shop/web", "shop/db", "node2", ALL]),
}


async def test_filters_by_api_and_by_bus(nats: Nats, bus: Bus, tmp_path: Path) -> None:
    await say(bus, "ipam", "assigned", "shop/web")
    await say(bus, "policy", "denied", "shop/db", node="node2", peer_pod="other/client")
    await say(bus, "node", "lost", "node2", node="node2", severity="error")
    await say(bus, "policy", "in_force", ALL, node="node1")
    async with running(nats.url, tmp_path) as api:
        for name, (arguments, expected) in FILTERS.items():
            by_api, by_bus = await asyncio.gather(
                objects(*arguments, "--api", api.address), objects(*arguments, "--bus", nats.url)
            )
            assert by_api == by_bus == expected, name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--domain", "polizy"], "there is no domain polizy: pod, ipam, route, bgp, policy, node"),
        (["--bus", "nats://127.0.0.1:1"], "no bus at nats://127.0.0.1:1"),
        (["--bus", "nats://"], "--bus"),
    ],
)
async def test_what_cannot_be_is_said(arguments: list[str], says: str) -> None:
    async with listening(tortie("events", "tail", *arguments)) as reader:
        _, complaints = await reader.process.communicate()
        assert (reader.process.returncode, says in complaints.decode()) == (2, True), complaints.decode()


async def test_every_json_line_has_the_same_names(nats: Nats, bus: Bus) -> None:
    sequence = await say(bus, "ipam", "assigned", "shop/web")
    async with listening(tortie("events", "tail", "-o", "json", "--bus", nats.url)) as reader:
        shown = json.loads(await reader.line())
        assert list(shown) == list(FIELDS)
        assert (shown["sequence"], shown["severity"], shown["node"], shown["detail"]) == (sequence, "info", None, {})
        assert await reader.end() == 130


async def test_a_line_says_what_to_do_and_no_name_moves_the_cursor(nats: Nats, bus: Bus) -> None:
    async with listening(tortie("events", "tail", "--bus", nats.url)) as reader:
        await say(bus, "node", "link_gone", "shop/\x1b[2Jdb", node="n1", severity="error", advice="Restart the pod.")
        line = await reader.line()
        assert "\x1b" not in line
        assert line.endswith("node.link_gone      n1  shop/?[2Jdb  error: shop/?[2Jdb it is.  -> Restart the pod."), (
            line
        )


@pytest.mark.parametrize("by", ["api", "bus"])
async def test_nothing_is_missed_nor_told_twice_while_the_bus_restarts(
    nats: Nats, bus: Bus, tmp_path: Path, by: str
) -> None:
    async with running(nats.url, tmp_path) as api:
        source = ("--api", api.address) if by == "api" else ("--bus", nats.url)
        async with listening(tortie("events", "tail", "-o", "json", "--since", "1h", *source)) as reader:
            for number in range(5):
                await say(bus, "route", "changed", f"10.0.{number}.0/24")
            assert json.loads(await reader.line())["object"] == "10.0.0.0/24"
            await nats.kill()
            await until(lambda: _away(bus), "the bus is away")
            await nats.start()
            for number in range(5, 10):
                await say_again(bus, f"10.0.{number}.0/24")
            shown = [json.loads(await reader.line())["object"] for _ in range(9)]
            assert shown == [f"10.0.{number}.0/24" for number in range(1, 10)]
            assert await reader.end(signal.SIGINT) == 130


async def test_nothing_is_missed_nor_told_twice_while_the_api_restarts(nats: Nats, bus: Bus, tmp_path: Path) -> None:
    socket = f"unix:{tmp_path}/api.sock"
    async with running(nats.url, tmp_path):
        reader_context = listening(tortie("events", "tail", "-o", "json", "--api", socket))
        reader = await reader_context.__aenter__()
        await say(bus, "route", "changed", "before")
        assert json.loads(await reader.line())["object"] == "before"
    try:
        assert "trying again" in await reader.complaint()
        await say(bus, "route", "changed", "meanwhile")
        async with running(nats.url, tmp_path):
            assert json.loads(await reader.line())["object"] == "meanwhile"
            assert "connected again" in await reader.complaint()
            await say(bus, "route", "changed", "after")
            assert json.loads(await reader.line())["object"] == "after"
    finally:
        await reader_context.__aexit__(None, None, None)


async def test_what_the_bus_does_not_hold_any_more_is_named(nats: Nats, bus: Bus, tmp_path: Path) -> None:
    async with listening(tortie("events", "tail", "-o", "json", "--bus", nats.url)) as reader:
        await say(bus, "route", "changed", "before")
        assert json.loads(await reader.line())["object"] == "before"
        await nats.wipe()
        await say_again(bus, "after")
        assert json.loads(await reader.line())["object"] == "after"
        await reader.complaint_with("does not hold them any more")


async def test_whoever_has_seen_enough_may_close_the_pipe(nats: Nats, bus: Bus) -> None:
    for number in range(50):
        await say(bus, "route", "changed", f"10.0.{number}.0/24")
    command = f"{' '.join(tortie('events', 'tail', '--since', '1h', '--bus', nats.url))} | head -n 1"
    async with listening(["bash", "-c", f"set -o pipefail; {command}"]) as reader:
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(reader.process.communicate())
            while not ended.done():  # the reader finds the pipe closed with what it writes next
                await say(bus, "route", "changed", "10.1.0.0/24")
                await asyncio.wait({ended}, timeout=0.1)
        shown, complaints = ended.result()
    assert (shown.count(b"\n"), complaints) == (1, b"")


async def _away(bus: Bus) -> bool:
    return "bus" in bus.health.causes


async def say_again(bus: Bus, object_: str) -> None:
    """Once the bus is there."""
    await bus.connected()
    await say(bus, "route", "changed", object_)
