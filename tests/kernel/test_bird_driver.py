"""The driver against real BIRDs: two nodes that tell each other their blocks."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.node_dataplane.bird.driver import BirdDriver
from services.node_dataplane.errors import BirdError
from tests.support import bird_pair as bird
from tests.support.bird_pair import configuration, needs_bird, session
from tests.support.netns import Namespace, namespaces, veth
from tests.support.waiting import eventually, until

pytestmark = [pytest.mark.root, needs_bird]

LEFT, RIGHT, THIRD = "10.9.0.1", "10.9.0.2", "10.9.0.3"
BLOCKS = {LEFT: "10.1.0.0/24", RIGHT: "10.2.0.0/24"}


@dataclass
class Speaker:
    namespace: Namespace
    path: Path
    driver: BirdDriver = field(init=False)

    def __post_init__(self) -> None:
        self.agent_starts()

    def agent_starts(self) -> None:
        self.driver = bird.driver(self.path, self.namespace)

    async def runs(self, text: str | None) -> None:
        self.driver.wanted = text
        with self.namespace.inside():
            await self.driver.converge()

    async def established(self) -> dict[str, float]:
        """Neighbour -> since when."""
        return {s.neighbour: s.since for s in await self.driver.sessions() if s.established}

    async def has_established(self) -> bool:
        return bool(await self.established())

    def log(self) -> str:
        return self.driver.process.log.read_text()

    def learnt(self) -> set[str]:
        return set(bird.routes(self.namespace))


@dataclass
class Pair:
    left: Speaker
    right: Speaker

    async def up(self) -> None:
        await self.left.runs(
            configuration(LEFT, BLOCKS[LEFT], session(LEFT, RIGHT), log=str(self.left.driver.process.log))
        )
        await self.right.runs(configuration(RIGHT, BLOCKS[RIGHT], session(RIGHT, LEFT)))
        await eventually(lambda: BLOCKS[RIGHT] in self.left.learnt() and BLOCKS[LEFT] in self.right.learnt())


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    with ExitStack() as stack:
        left, right = stack.enter_context(namespaces(2))
        veth(left, "up0", right, "up0", addresses=(f"{LEFT}/24", f"{RIGHT}/24"))
        path = stack.enter_context(bird.directory())
        made = Pair(Speaker(left, path / "left"), Speaker(right, path / "right"))
        yield made
        made.left.driver.close()
        made.right.driver.close()


async def test_two_nodes_learn_each_others_blocks(pair: Pair) -> None:
    await pair.up()
    [told] = await pair.left.driver.sessions()
    assert (told.neighbour, told.state, told.info, told.remote_as) == (RIGHT, "up", "Established", 64512)
    assert told.imported == 1
    assert bird.routes(pair.left.namespace)[BLOCKS[RIGHT]]["gateway"] == RIGHT
    assert pair.left.driver.version.startswith("2.")


async def test_a_session_that_did_not_change_stays_up(pair: Pair) -> None:
    await pair.up()
    before = await pair.left.established()
    text = configuration(LEFT, BLOCKS[LEFT], session(LEFT, RIGHT), session(LEFT, THIRD))
    await pair.left.runs(text)
    assert {s.neighbour for s in await pair.left.driver.sessions()} == {RIGHT, THIRD}
    assert await pair.left.established() == before
    await pair.left.runs(text.replace("import all", "import where net ~ [ 10.0.0.0/8+ ]"))
    assert await pair.left.established() == before, "a filter is exchanged without a new session"


async def test_a_refused_configuration_leaves_the_last_good_one(pair: Pair) -> None:
    await pair.up()
    before = await pair.left.established()
    good = pair.left.driver.wanted
    assert good is not None
    await pair.left.runs(good + 'protocol bgp Node_x { password "secret"; nonsense; }\n')
    assert "nonsense" in pair.left.driver.refusal
    assert "line " in pair.left.driver.refusal
    assert "secret" not in pair.left.driver.refusal
    assert await pair.left.established() == before
    await pair.left.runs(good)
    assert pair.left.driver.refusal == ""


async def test_a_bird_is_not_started_with_what_it_cannot_read(pair: Pair) -> None:
    await pair.left.runs("nonsense\n")
    assert "line 1, 'nonsense'" in pair.left.driver.refusal
    assert not pair.left.driver.running


async def test_another_life_of_the_agent_adopts_it(pair: Pair) -> None:
    await pair.up()
    before = await pair.left.established()
    pid = pair.left.driver.process.pid()
    text = pair.left.driver.wanted
    pair.left.driver.close()
    pair.left.agent_starts()
    assert pair.left.driver.wanted == text, "until the bus says something else"
    await pair.left.runs(text)
    assert pair.left.driver.process.pid() == pid
    assert await pair.left.established() == before


async def test_a_bird_that_was_killed_comes_back_and_no_route_leaves(pair: Pair) -> None:
    await pair.up()
    pid = pair.left.driver.process.pid()
    assert pid is not None

    async def both_have_routes() -> None:
        while True:
            assert BLOCKS[RIGHT] in pair.left.learnt()
            assert BLOCKS[LEFT] in pair.right.learnt()
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(both_have_routes())
        os.kill(pid, signal.SIGKILL)
        await pair.left.driver.ended()
        assert not pair.left.driver.running
        await pair.left.runs(pair.left.driver.wanted)
        await until(pair.left.has_established, "the session is back")
        await eventually(lambda: "Graceful restart done" in pair.left.log())
        watch.cancel()
    assert pair.left.driver.deaths == 1


async def test_no_speaker_no_bird_no_routes(pair: Pair) -> None:
    await pair.up()
    await pair.left.runs(None)
    assert not pair.left.driver.running
    assert pair.left.learnt() == set()
    assert pair.left.driver.process.pid() is None
    assert pair.left.driver.process.text() is None
    await eventually(lambda: pair.right.learnt() == set())


async def test_what_a_dead_bird_left_is_taken_away_too(pair: Pair) -> None:
    await pair.up()
    pid = pair.left.driver.process.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await pair.left.driver.ended()
    assert pair.left.learnt()
    await pair.left.runs(None)
    assert pair.left.learnt() == set()


async def test_a_peer_that_is_down_is_told_with_its_reason(pair: Pair) -> None:
    await pair.left.runs(configuration(LEFT, BLOCKS[LEFT], session(LEFT, RIGHT)))

    async def told() -> bool:
        [session] = await pair.left.driver.sessions()
        return "refused" in session.info and not session.established

    await until(told, "the reason is told")


async def test_a_wrong_password_keeps_the_session_down(pair: Pair) -> None:
    def text(own: str, peer: str, password: str) -> str:
        return configuration(own, BLOCKS[own], session(own, peer, extra=f'password "{password}";'))

    await pair.left.runs(text(LEFT, RIGHT, "tabby"))
    await pair.right.runs(text(RIGHT, LEFT, "tuxedo"))
    await asyncio.sleep(0)
    assert await pair.left.established() == {}
    await pair.right.runs(text(RIGHT, LEFT, "tabby"))
    await until(pair.left.has_established, "the same password at both ends")


async def test_nobody_listens_at_the_socket(pair: Pair) -> None:
    await pair.left.runs(configuration(LEFT, BLOCKS[LEFT]))
    pair.left.driver.process.socket.unlink()
    pair.left.driver.close()
    pid = pair.left.driver.process.pid()
    pair.left.agent_starts()
    await pair.left.runs(pair.left.driver.wanted)
    assert pair.left.driver.running
    assert pair.left.driver.process.pid() != pid


async def test_a_missing_bird_is_named(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.node_dataplane.bird.process.PROGRAM", "no-such-bird")
    with pytest.raises(BirdError, match="bird2"):
        await pair.left.runs(configuration(LEFT, BLOCKS[LEFT]))
