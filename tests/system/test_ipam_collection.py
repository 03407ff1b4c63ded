"""Forgotten addresses come back, with evidence and by the word of real agents; what somebody may still use does not."""

from __future__ import annotations

from pathlib import Path

from bus_schemas.ipam import Assigned, Candidate
from bus_schemas.subjects import BLOCK, CANDIDATE, ENDPOINT, HANDLE, HOLDING
from tests.support.ipam import ask
from tests.support.ipam_world import IpamWorld, ipam_world
from tests.support.waiting import within

QUICK = {"leak_grace_s": "1", "collect_interval_s": "0.3"}


async def candidate(world: IpamWorld, handle: str, saying: str = "") -> Candidate:
    async def found() -> Candidate | None:
        value: Candidate | None = (await world.bus.get(CANDIDATE, (handle,))).value
        return value if value is not None and saying in value.reason else None

    one = await within(found, f"{handle} is a candidate ({saying})")
    assert one is not None
    return one


async def collected(world: IpamWorld, handle: str) -> None:
    async def gone() -> bool:
        return (await world.bus.get(HANDLE, (handle,))).value is None

    await within(gone, f"{handle} is collected")

    async def settled() -> bool:
        return (await world.bus.get(CANDIDATE, (handle,))).value is None

    await within(settled, f"{handle} is no candidate any more")


async def test_a_leak_is_shown_and_comes_back_and_nothing_else_does(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, replicas=2, **QUICK) as world:
        made = await world.add_node("n0")
        await world.opened()
        await world.add("n0", "stays")
        [leaked] = await world.add("n0", "leaks", families=(4,))
        # given, and its answer lost: nobody ever heard of it
        lost = await made.ask(ask("net.lost", "n0", families=(4,)))
        assert isinstance(lost, Assigned)
        await made.forget("leaks")
        one = await candidate(world, "net.leaks")
        assert one.addresses == (leaked,)
        assert one.pod == "leaks"
        assert one.due == one.since + 1
        await collected(world, "net.leaks")
        await collected(world, "net.lost")
        await world.books_agree()


async def test_nothing_of_a_silent_agent_is_taken(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, **QUICK) as world:
        made = await world.add_node("n0")
        await world.opened()
        await world.add("n0", "stays")
        await made.ask(ask("net.lost", "n0", families=(4,)))
        await world.kill_agent("n0")
        one = await candidate(world, "net.lost", "it waits: the agent of node n0 is silent")
        assert one.observations <= 1
        await world.start_agent("n0")
        await collected(world, "net.lost")
        await world.books_agree()


async def test_a_deleted_node_gives_back_everything_once_its_agent_is_dead(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, leak_grace_s="900", collect_interval_s="0.3") as world:
        await world.add_node("n0")
        await world.add_node("n1")
        await world.opened()
        await world.add("n0", "web")
        await world.add("n1", "stays")
        await world.agents["n0"].ask(ask("net.lost", "n0", families=(4,)))
        await world.remove_node("n0")
        await candidate(world, "net.lost", "node n0 has no resource, but its agent is alive")
        assert (await world.bus.get(HANDLE, ("net.web",))).value is not None
        await world.kill_agent("n0")
        await collected(world, "net.lost")
        await collected(world, "net.web")

        async def forgotten() -> bool:
            found = await world.snapshot(BLOCK, ENDPOINT, HOLDING)
            assert [key for key in found[ENDPOINT] if key[0] == "n0"] == []
            assert ("n0",) not in found[HOLDING]
            assert {block.node for block in found[BLOCK].values()} == {"n1"}
            return True

        await within(forgotten, "nothing is left of n0")
        await world.books_agree()


async def test_further_empty_blocks_are_given_back(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, ip_cooldown_s="0", **QUICK) as world:
        made = await world.add_node("n0")
        await world.opened()
        for i in range(40):
            await made.ask(ask(f"h{i}", "n0", families=(4,)))
        blocks = (await world.snapshot(BLOCK))[BLOCK]
        assert len(blocks) > 2

        async def one_left() -> bool:
            return len((await world.snapshot(BLOCK))[BLOCK]) == 1

        await within(one_left, "what is forgotten is collected, and of the empty blocks one is kept")


async def test_who_takes_the_lease_goes_on_with_the_candidates(tmp_path: Path) -> None:
    async with ipam_world(tmp_path, replicas=1, leak_grace_s="900", collect_interval_s="0.3") as world:
        made = await world.add_node("n0")
        await world.opened()
        await made.ask(ask("net.lost", "n0", families=(4,)))

        async def counted() -> Candidate | None:
            one = await candidate(world, "net.lost")
            return one if one.observations == 2 else None

        before = await within(counted, "it was seen twice")
        await world.kill_ipam("ipam-0")
        await world.start_ipam("ipam-1")

        async def goes_on() -> bool:
            return (await world.bus.get(CANDIDATE, ("x",))).value is not None

        await world.add("n0", "awake")
        await made.ask(ask("x", "n0", families=(4,)))
        await within(goes_on, "the other replica looks")
        assert await candidate(world, "net.lost") == before
