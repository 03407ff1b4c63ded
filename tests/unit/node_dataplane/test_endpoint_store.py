"""What survives the agent: endpoints and debts, one durable step each."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, PodKey
from services.node_dataplane.endpoint_store import FILE, EndpointStore, Plugin
from services.node_dataplane.errors import StoreError


def plugin(name: str, container: str = "c1") -> Plugin:
    endpoint = Endpoint(
        node=NodeName("node1"),
        namespace="default",
        name=name,
        container=container,
        link=f"tor{name}",
        addresses=("10.244.0.5",),
    )
    return Plugin(
        endpoint=endpoint, handle=HandleId(f"net.{container}"), interface="eth0", netns="/n", mac="", mtu=1500
    )


async def test_a_new_life_finds_what_was_saved(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path / "new")
    store.put(plugin("a"))
    store.owe(HandleId("net.gone"))
    await store.save()

    reborn = EndpointStore(tmp_path / "new")
    assert reborn.all() == [plugin("a")]
    assert reborn.owed == ("net.gone",)
    assert reborn.of_container("c1") == plugin("a")
    assert reborn.of_container("c2") is None


async def test_what_was_not_saved_never_was(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path)
    store.put(plugin("a"))
    assert EndpointStore(tmp_path).all() == []


async def test_an_address_in_use_again_is_not_owed(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path)
    store.owe(HandleId("net.c1"))
    store.put(plugin("a"))
    assert store.owed == ()


async def test_removal_and_debt_are_one_step(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path)
    store.put(plugin("a"))
    await store.save()
    store.remove(PodKey("default", "a"))
    store.owe(HandleId("net.c1"))
    await store.save()

    reborn = EndpointStore(tmp_path)
    assert (reborn.all(), reborn.owed) == ([], ("net.c1",))
    reborn.paid(HandleId("net.c1"))
    await reborn.save()
    assert EndpointStore(tmp_path).owed == ()


async def test_concurrent_savers_share_writes_and_all_are_durable(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path)

    async def one(number: int) -> None:
        store.put(plugin(f"p{number}", f"c{number}"))
        await store.save()
        assert EndpointStore(tmp_path).of_container(f"c{number}") is not None

    await asyncio.gather(*(one(number) for number in range(16)))
    assert len(EndpointStore(tmp_path).all()) == 16


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"version": 99}'])
def test_an_unreadable_file_is_a_sentence_and_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=FILE):
        EndpointStore(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


async def test_a_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    store = EndpointStore(tmp_path / "d")
    store.put(plugin("a"))
    (tmp_path / "d").rmdir()
    with pytest.raises(StoreError, match="cannot write"):
        await store.save()


async def test_a_write_that_nobody_awaits_any_more_does_not_meet_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EndpointStore(tmp_path)
    began, go_on = threading.Event(), threading.Event()
    write = EndpointStore._write
    running: list[bytes] = []

    def slow(self: EndpointStore, data: bytes) -> None:
        assert not running, "two writers in one file"
        running.append(data)
        began.set()
        assert go_on.wait(10)
        write(self, data)
        running.clear()

    monkeypatch.setattr(EndpointStore, "_write", slow)
    store.put(plugin("a"))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(store.save())
        await asyncio.to_thread(began.wait, 10)
        first.cancel()
        store.remove(PodKey("default", "a"))
        tasks.create_task(store.save())
        await asyncio.sleep(0)
        go_on.set()
    assert EndpointStore(tmp_path).all() == []
