"""The pure parts of a session."""

from __future__ import annotations

import asyncio

import pytest

from chassis.delivery import place, server_address
from chassis.session import heedful


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.TORTIE_ROUTES.tortie-1.1.42.7.1795238004002607926.3",
        "$JS.ACK.hub.ACCOUNT.TORTIE_ROUTES.tortie-1.1.42.7.1795238004002607926.3.rAnDoM",
    ],
)
def test_place_of_a_consumers_message(reply: str) -> None:
    assert place(reply) == ("tortie-1", 42, 7, 3)


def test_address_without_the_password() -> None:
    assert server_address("tls://user:secret@nats.example:4222/") == "nats.example:4222"


async def test_a_swallowed_cancellation_is_heeded() -> None:
    async def swallowing() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError from None  # as the client library may

    async def work() -> None:
        with heedful():
            await swallowing()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_a_timeout_ends_what_swallows_cancellations() -> None:
    async def swallowing() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def work() -> None:
        async with asyncio.timeout(0.01):
            with heedful():
                await swallowing()

    with pytest.raises(TimeoutError):
        await work()
