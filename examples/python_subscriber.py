"""Prints the events of a Tortie cluster as they happen. Needs nats-py and msgpack, nothing of Tortie.

    pip install nats-py msgpack
    python python_subscriber.py --server nats://127.0.0.1:4222 'tortie.v1.event.policy.>'

What happens while it is not there, it does not see: durable_subscriber.py misses nothing. docs/events.md lists every
event, its subject and its fields.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from typing import Any

import msgpack
import nats
from nats.aio.msg import Msg

EVERYTHING = "tortie.v1.event.>"


def line(event: dict[str, Any]) -> str:
    """A field that has its default is not in the message: ask with `get`. Whatever else is there, ignore."""
    when = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    where = event.get("node") or "-"
    severity = event.get("severity", "info")
    advice = event.get("advice", "")
    told = f"{when} {severity} {event['domain']}.{event['what']} {where}: {event['message']}"
    return f"{told} What to do: {advice}" if advice else told


async def show(message: Msg) -> None:
    try:
        event = msgpack.unpackb(message.data)
        if event.get("type") != "event/1":
            raise ValueError(f"it is a {event.get('type')}")  # a new version: not ours to understand
        print(line(event), flush=True)
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        print(f"{message.subject}: not understood: {error}", file=sys.stderr, flush=True)


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
    say("bus: connected again; what came meanwhile was not seen")


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("subject", nargs="?", default=EVERYTHING, help="which events (default: %(default)s)")
    options.add_argument("--server", default="nats://127.0.0.1:4222", help="the bus (default: %(default)s)")
    options.add_argument("--credentials", help="a file with NATS credentials")
    given = options.parse_args()

    connection = await nats.connect(
        given.server,
        allow_reconnect=True,
        name="python-subscriber",
        user_credentials=given.credentials,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.5,
        error_cb=failed,
        disconnected_cb=gone,
        reconnected_cb=back,
    )
    await connection.subscribe(given.subject, cb=show)
    await connection.flush()  # the server has it: from here on nothing is missed
    say(f"listening to {given.subject}")

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
        await connection.drain()


if __name__ == "__main__":
    asyncio.run(main())
