"""Handles every event of a Tortie cluster, also those that came while it was not there. Needs nats-py and msgpack.

    pip install nats-py msgpack
    python durable_subscriber.py --name billing 'tortie.v1.event.pod.>'

The server keeps the place under the name (a durable JetStream consumer on the stream TORTIE_EVENTS), so a restart of
this program or of the server loses nothing that the stream still holds: events are kept for seven days. An event is
acknowledged after it was handled; one that was handled when the program was killed comes once more, with the same
sequence. Here, to handle is to print one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

STREAM = "TORTIE_EVENTS"
EVERYTHING = "tortie.v1.event.>"
BATCH = 100
WAIT_S = 5.0
"""How long one request waits for news. It is also how long a request that the server lost is waited for."""
PAUSE_S = 0.5
ACK_WAIT_S = 30.0
"""What is not acknowledged for so long comes again (unless --ack-wait says otherwise)."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Told:
    """What was said last of the bus: the same is not said twice."""

    text = ""


async def failed(error: Exception) -> None:
    text = str(error) or type(error).__name__
    if text != Told.text:
        say(f"bus: {text}; trying again")
    Told.text = text


async def gone() -> None:
    say("bus: gone; trying again")


async def back() -> None:
    Told.text = ""
    say("bus: connected again")


async def connected(server: str, credentials: str | None, name: str) -> Client:
    """Waits for the bus for as long as it takes, and comes back to it whenever it was away."""
    return await nats.connect(
        server,
        name=name,
        user_credentials=credentials,
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        reconnect_time_wait=PAUSE_S,
        error_cb=failed,
        disconnected_cb=gone,
        reconnected_cb=back,
    )


async def pulled(client: Client, name: str, subject: str, ack_wait_s: float) -> JetStreamContext.PullSubscription:
    """The durable consumer, made if it is not there. It begins with the oldest event that the stream holds. Raises
    when there is no stream yet, or the name is in use for another subject."""
    stream = client.jetstream()
    try:
        found = await stream.consumer_info(STREAM, name)
        if found.config.filter_subject != subject:
            raise SystemExit(f"{name} reads {found.config.filter_subject}: choose another --name for {subject}")
    except NotFoundError:
        config = ConsumerConfig(
            durable_name=name,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            deliver_policy=DeliverPolicy.ALL,
        )
        await stream.add_consumer(STREAM, config)
    return await stream.pull_subscribe_bind(name, STREAM)


async def messages(
    client: Client,
    name: str,
    subject: str,
    ended: asyncio.Event,
    *,
    batch: int = BATCH,
    ack_wait_s: float = ACK_WAIT_S,
) -> AsyncIterator[Msg]:
    """For ever: whatever comes, through every outage. A `batch` is to be handled within `ack_wait_s`."""
    subscription: JetStreamContext.PullSubscription | None = None
    told = False
    while not ended.is_set():
        try:
            if subscription is None:
                subscription = await pulled(client, name, subject, ack_wait_s)
                say(f"{name} reads {subject}")
                told = False
            for message in await subscription.fetch(batch, timeout=WAIT_S):
                yield message
                if ended.is_set():
                    return
        except (TimeoutError, nats.errors.TimeoutError):
            if subscription is not None and not await _exists(client, name):
                subscription = None  # the server lost it with its store: it is made again
        except (OSError, nats.errors.Error, nats.js.errors.Error) as error:
            if not told:
                say(f"bus: {error or type(error).__name__}; trying again")
            told = True
            subscription = None
            await asyncio.sleep(PAUSE_S)


async def _exists(client: Client, name: str) -> bool:
    try:
        await client.jetstream().consumer_info(STREAM, name)
    except NotFoundError:
        return False
    except (TimeoutError, OSError, nats.errors.Error, nats.js.errors.Error):
        return True  # nobody says so: it is asked again
    return True


async def handle(event: dict[str, Any], sequence: int) -> None:
    """Your work. Whatever it raises makes the event come again."""
    print(json.dumps({"sequence": sequence, **event}), flush=True)


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("subject", nargs="?", default=EVERYTHING, help="which events (default: %(default)s)")
    options.add_argument("--name", required=True, help="of the durable consumer: one for each program")
    options.add_argument("--server", default="nats://127.0.0.1:4222", help="the bus (default: %(default)s)")
    options.add_argument("--credentials", help="a file with NATS credentials")
    options.add_argument(
        "--ack-wait",
        type=float,
        default=ACK_WAIT_S,
        help="seconds until what a killed program had "
        "under way comes again; counts when the consumer is made (default: %(default)s)",
    )
    given = options.parse_args()

    ended = asyncio.Event()
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: (ended.set(), task and task.cancel()))
    client = await connected(given.server, given.credentials, given.name)
    try:
        async for message in messages(client, given.name, given.subject, ended, ack_wait_s=given.ack_wait):
            try:
                event = msgpack.unpackb(message.data)
                await handle(event, message.metadata.sequence.stream)
            except (ValueError, msgpack.UnpackException) as error:
                say(f"{message.subject}: not understood: {error}")
            # Acknowledged and confirmed: it will not come again. An answer that is lost makes it come once more.
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
                await message.ack_sync(timeout=WAIT_S)
    except asyncio.CancelledError:
        if not ended.is_set():
            raise
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, asyncio.TimeoutError):
            await client.close()


if __name__ == "__main__":
    asyncio.run(main())
