"""The programs of examples/, run as a user runs them, on a real bus."""

from __future__ import annotations

import ast
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from chassis.bus import Bus
from tests.support.listener import EXAMPLES, Listener, example, listening, say
from tests.support.nats import Nats
from tests.support.waiting import eventually, until

ROOT = EXAMPLES.parent
NPM = ROOT / ".venv" / "npm" / "node_modules"


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    async with nats.bus() as made:
        await made.connected()
        yield made


@pytest.mark.parametrize(
    ("file", "packages"),
    [
        ("python_subscriber.py", {"nats", "msgpack"}),
        ("durable_subscriber.py", {"nats", "msgpack"}),
        ("webhook_forwarder.py", {"nats", "msgpack", "aiohttp", "durable_subscriber"}),
    ],
)
def test_an_example_needs_what_it_says_and_nothing_of_ours(file: str, packages: set[str]) -> None:
    named = set()
    for node in ast.walk(ast.parse((EXAMPLES / file).read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add((node.module or "").partition(".")[0])
    assert named - sys.stdlib_module_names == packages


async def test_the_python_subscriber_prints_what_happens(nats: Nats, bus: Bus) -> None:
    async with listening(example("python_subscriber.py", "--server", nats.url, "tortie.v1.event.*.*.*")) as program:
        await program.complaint_with("listening")
        await say(bus, "policy", "denied", "shop/db", node="node1", severity="warning", advice="Look who knocks.")
        assert (await program.line())[9:] == (
            "warning policy.denied node1: shop/db it is. What to do: Look who knocks."
        )
        session = await bus.session()
        await session.publish("tortie.v1.event.policy.denied._", b"\xc1 no msgpack")
        assert "not understood" in await program.complaint_with("tortie.v1.event.policy.denied._")
        await nats.restart()
        await program.complaint_with("connected again")
        await bus.connected()
        await say(bus, "pod", "started", "shop/db")
        assert "info pod.started -: shop/db it is." in await program.line()
        assert await program.end() == 0


async def test_an_example_without_a_bus_says_so_once_and_waits(nats: Nats) -> None:
    await nats.stop()
    async with listening(example("python_subscriber.py", "--server", nats.url)) as program:
        assert "trying again" in await program.complaint()
        await nats.start()
        await program.complaint_with("listening")


# --- Node.js


@pytest.fixture
def node_subscriber(tmp_path: Path) -> Path:
    """A copy of the example with its packages beside it, as `npm install` puts them."""
    if shutil.which("node") is None or not NPM.exists():
        pytest.skip("no Node.js, or not its packages: `scripts/prepare dev` installs both")
    copy = tmp_path / "node_subscriber"
    shutil.copytree(EXAMPLES / "node_subscriber", copy)
    (copy / "node_modules").symlink_to(NPM)
    return copy


async def test_the_node_subscriber_prints_what_happens(nats: Nats, bus: Bus, node_subscriber: Path) -> None:
    command = ["node", "subscriber.js", nats.url, "tortie.v1.event.pod.>"]
    async with listening(command, directory=node_subscriber) as program:
        await program.complaint_with("listening")
        await say(bus, "node", "lost", "node2")
        await say(bus, "pod", "started", "shop/db", node="node1", addresses="10.244.0.1")
        shown = json.loads(await program.line())
        del shown["time"]
        assert shown == {
            "event": "pod.started",
            "severity": "info",
            "node": "node1",
            "object": "shop/db",
            "text": "shop/db it is.",
            "advice": "",
            "detail": {"addresses": "10.244.0.1"},
        }
        await nats.restart()
        await program.complaint_with("reconnect")
        await bus.connected()
        await say(bus, "pod", "stopped", "shop/db")
        assert json.loads(await program.line())["event"] == "pod.stopped"
        assert await program.end(signal.SIGTERM) == 0


def test_no_lock_file_names_a_registry() -> None:
    assert sorted(path.name for path in (EXAMPLES / "node_subscriber").iterdir()) == ["package.json", "subscriber.js"]


# --- the durable one


async def numbers(program: Listener, count: int) -> list[str]:
    return [json.loads(await program.line())["object"] for _ in range(count)]


async def test_the_durable_subscriber_misses_nothing_over_restarts(nats: Nats, bus: Bus) -> None:
    command = example("durable_subscriber.py", "--name", "test", "--server", nats.url, "tortie.v1.event.pod.>")
    await say(bus, "pod", "started", "before")
    async with listening(command) as program:
        assert await numbers(program, 1) == ["before"]
        await say(bus, "pod", "started", "first")
        assert await numbers(program, 1) == ["first"]
        await say(bus, "route", "changed", "not ours")
        assert await program.end(signal.SIGTERM) == 0
    for number in range(150):
        await say(bus, "pod", "started", f"away {number}")
    async with listening(command) as program:
        assert await numbers(program, 150) == [f"away {number}" for number in range(150)]
        await nats.kill()
        await program.complaint_with("gone")
        await nats.start()
        await bus.connected()
        for number in range(10):
            await say(bus, "pod", "started", f"again {number}")
        # a server that was killed may have forgotten what was acknowledged last: that comes once more
        handled: set[str] = set()
        while not handled.issuperset(f"again {number}" for number in range(10)):
            handled.update(await numbers(program, 1))


async def test_the_durable_subscriber_killed_at_any_moment_handles_the_rest(nats: Nats, bus: Bus) -> None:
    for number in range(60):
        await say(bus, "pod", "started", str(number))
    command = example("durable_subscriber.py", "--name", "test", "--server", nats.url, "--ack-wait", "2")
    async with listening(command) as program:
        handled = await numbers(program, 20)
        assert await program.end(signal.SIGKILL) == -signal.SIGKILL
        handled += [json.loads(line)["object"] for line in await program.rest()]
    async with listening(command) as program:
        while len(set(handled)) < 60:
            handled += await numbers(program, 1)
    assert set(handled) == {str(number) for number in range(60)}


async def test_a_durable_subscriber_waits_for_a_bus_and_begins_anew_on_one_that_was_wiped(nats: Nats, bus: Bus) -> None:
    await nats.stop()
    command = example("durable_subscriber.py", "--name", "test", "--server", nats.url)
    async with listening(command) as program:
        await program.complaint_with("trying again")
        await nats.start()
        await bus.connected()
        await say(bus, "pod", "started", "one")
        assert await numbers(program, 1) == ["one"]
        await nats.wipe()
        await bus.connected()
        await say(bus, "pod", "started", "two")
        assert await numbers(program, 1) == ["two"]


async def test_a_name_that_reads_something_else_is_refused(nats: Nats, bus: Bus) -> None:
    first = example("durable_subscriber.py", "--name", "test", "--server", nats.url, "tortie.v1.event.pod.>")
    async with listening(first) as program:
        await program.complaint_with("test reads")
    async with listening(example("durable_subscriber.py", "--name", "test", "--server", nats.url)) as program:
        _, complaints = await program.process.communicate()
        assert program.process.returncode == 1
        assert "choose another --name" in complaints.decode()


# --- the webhook


class Target:
    """A web server that takes or refuses what it is told to."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        """For the next requests; then 200."""
        self.seen: list[tuple[str, str, int]] = []
        """Idempotency key, object, answer."""
        self.url = ""

    async def hook(self, request: web.Request) -> web.Response:
        event: dict[str, Any] = await request.json()
        status = self.answers.pop(0) if self.answers else 200
        self.seen.append((request.headers["Idempotency-Key"], event["object"], status))
        return web.Response(status=status)

    def taken(self) -> list[str]:
        return [object_ for _, object_, status in self.seen if status == 200]


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    made = Target()
    app = web.Application()
    app.router.add_post("/hook", made.hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


def forwarder(nats: Nats, url: str, dead: Path, *more: str) -> list[str]:
    arguments = ("--name", "hook", "--server", nats.url, "--target", url, "--dead-letters", str(dead))
    return example("webhook_forwarder.py", *arguments, *more)


async def test_the_forwarder_tries_again_keeps_order_and_marks_what_comes_twice(
    nats: Nats, bus: Bus, target: Target, tmp_path: Path
) -> None:
    target.answers = [503, 429, 200]
    sequence = await say(bus, "node", "lost", "node1")
    await say(bus, "node", "lost", "node2")
    async with listening(forwarder(nats, target.url, tmp_path / "dead")) as program:

        async def both() -> bool:
            return target.taken() == ["node1", "node2"]

        await until(both, "both events are taken, in order")
        keys = [(key, status) for key, object_, status in target.seen if object_ == "node1"]
        assert keys == [(f"tortie-{sequence}", status) for status in (503, 429, 200)]
        assert await program.end(signal.SIGTERM) == 0
    assert (tmp_path / "dead").read_text() == ""


async def test_what_a_target_refuses_for_good_holds_up_nothing(
    nats: Nats, bus: Bus, target: Target, tmp_path: Path
) -> None:
    target.answers = [400]
    sequence = await say(bus, "node", "lost", "bad")
    await say(bus, "node", "lost", "good")
    async with listening(forwarder(nats, target.url, tmp_path / "dead")) as program:
        assert f"event {sequence} is given up (it answered 400)" in await program.complaint_with("given up")

        async def good() -> bool:
            return target.taken() == ["good"]

        await until(good, "the next event is taken")
    (letter,) = map(json.loads, (tmp_path / "dead").read_text().splitlines())
    assert (letter["sequence"], letter["why"], letter["event"]["object"]) == (sequence, "it answered 400", "bad")


async def test_a_dead_target_is_given_up_and_found_again(nats: Nats, bus: Bus, target: Target, tmp_path: Path) -> None:
    for number in range(3):
        await say(bus, "node", "lost", f"lost {number}")
    target.answers = [500] * 4  # the first twice or more, as long as --give-up allows, the others once
    async with listening(forwarder(nats, target.url, tmp_path / "dead", "--give-up", "0.6")) as program:
        await program.complaint_with("given up")
        target.answers = [500, 500]

        async def letters() -> bool:
            return len((tmp_path / "dead").read_text().splitlines()) == 3

        await until(letters, "all three are given up")
        assert [status for _, object_, status in target.seen if object_ != "lost 0"] == [500, 500]
        await say(bus, "node", "found", "alive")
        await program.complaint_with("takes events again")
        assert target.taken() == ["alive"]


async def test_a_killed_forwarder_forwards_what_it_had_under_way(
    nats: Nats, bus: Bus, target: Target, tmp_path: Path
) -> None:
    target.answers = [503]
    sequence = await say(bus, "node", "lost", "node1")
    async with listening(forwarder(nats, target.url, tmp_path / "dead", "--ack-wait", "2")) as program:
        await program.complaint_with("again in")
        assert await program.end(signal.SIGKILL) == -signal.SIGKILL
    async with listening(forwarder(nats, target.url, tmp_path / "dead", "--ack-wait", "2")):
        # the server gives it again once nobody acknowledged it for --ack-wait
        await eventually(lambda: target.taken() == ["node1"], within_s=120)
        assert target.seen[-1][0] == f"tortie-{sequence}"
