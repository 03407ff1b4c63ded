"""Forwards the events of a Tortie cluster to a webhook, each at least once. Needs nats-py, msgpack and aiohttp.

    pip install nats-py msgpack aiohttp
    python webhook_forwarder.py --name pager --target https://example.org/hook --dead-letters dead.jsonl \\
        'tortie.v1.event.node.>'

    TORTIE_EVENTS --durable consumer--> POST, JSON --2xx--> acknowledged
                                          |  no answer, 408, 425, 429, 5xx: again, later and later
                                          |  another 4xx: it will never be taken
                                          +--> after --give-up seconds, or at once: a line in --dead-letters

An event that comes twice (after a crash, or a lost answer) has the same `Idempotency-Key` both times. The
order is kept. A target that is dead holds up nothing for ever: after the first event that was given up, each of the
next is tried once, until one is taken again. What is given up is on the disk before it is acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgpack
import nats
from durable_subscriber import ACK_WAIT_S, EVERYTHING, WAIT_S, connected, messages, say
from nats.aio.msg import Msg

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
REQUEST_S = 10.0
AGAIN = frozenset({408, 425, 429})
"""Refusals of 4xx that may be none the next time."""


class Outcome(NamedTuple):
    taken: bool
    again: bool
    """To try again may help."""
    text: str
    pause_s: float = 0.0
    """The target asks to be left alone for so long."""


class Forwarder:
    def __init__(
        self, session: aiohttp.ClientSession, target: str, dead_letters: Path, give_up_s: float, ack_wait_s: float
    ) -> None:
        self._session = session
        self._target = target
        self._dead_letters = dead_letters
        self._give_up_s = give_up_s
        self._ack_wait_s = ack_wait_s
        self._dead = False
        """The last event was given up: the target gets one attempt for each until it takes one."""

    async def forward(self, message: Msg) -> None:
        """Returns when the event was taken, or is among the dead letters. Raises OSError when it cannot be written
        there."""
        sequence = message.metadata.sequence.stream
        try:
            body = json.dumps({"sequence": sequence, **msgpack.unpackb(message.data)})
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            self._bury(sequence, message.data.hex(), f"not understood: {error}")
            return
        loop = asyncio.get_running_loop()
        ends = loop.time() + (0 if self._dead else self._give_up_s)
        pause = FIRST_PAUSE_S
        while True:
            outcome = await self._post(body, f"tortie-{sequence}")
            if outcome.taken:
                if self._dead:
                    say(f"{self._target} takes events again")
                self._dead = False
                return
            wait = min(max(outcome.pause_s, pause * random.uniform(0.5, 1.0)), LONGEST_PAUSE_S)
            if not outcome.again or loop.time() + wait > ends:
                self._bury(sequence, body, outcome.text)
                self._dead = self._dead or outcome.again
                return
            say(f"{self._target}: {outcome.text}; again in {wait:.1f} s")
            await _held(message, wait, self._ack_wait_s / 3)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _post(self, body: str, key: str) -> Outcome:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            async with self._session.post(self._target, data=body.encode(), headers=headers) as answer:
                status = answer.status
                asked = answer.headers.get("Retry-After", "")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Outcome(False, True, str(error) or type(error).__name__)
        pause = float(asked) if asked.isdecimal() else 0.0
        return Outcome(200 <= status < 300, status in AGAIN or status >= 500, f"it answered {status}", pause)

    def _bury(self, sequence: int, body: str, why: str) -> None:
        with self._dead_letters.open("a") as file:
            file.write(json.dumps({"sequence": sequence, "why": why, "event": _parsed(body)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        say(f"event {sequence} is given up ({why}): it is in {self._dead_letters}")


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


async def _held(message: Msg, seconds: float, every_s: float) -> None:
    """Waits, and tells the server every now and then that the event is still being worked on."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while (left := ends - loop.time()) > 0:
        with contextlib.suppress(nats.errors.Error):
            await message.in_progress()
        await asyncio.sleep(min(left, every_s))


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("subject", nargs="?", default=EVERYTHING, help="which events (default: %(default)s)")
    options.add_argument("--target", required=True, help="where the events are posted to, http(s)://")
    options.add_argument("--dead-letters", required=True, type=Path, help="a file for what was not taken")
    options.add_argument("--give-up", type=float, default=300.0, help="seconds for one event (default: %(default)s)")
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
    with given.dead_letters.open("a"):
        pass  # it can be written: better known now than when it is needed

    ended = asyncio.Event()
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: (ended.set(), task and task.cancel()))
    client = await connected(given.server, given.credentials, given.name)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S)) as session:
            forwarder = Forwarder(session, given.target, given.dead_letters, given.give_up, given.ack_wait)
            forwarded = messages(client, given.name, given.subject, ended, batch=1, ack_wait_s=given.ack_wait)
            async for message in forwarded:
                await forwarder.forward(message)
                with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
                    await message.ack_sync(timeout=WAIT_S)
    except asyncio.CancelledError:
        if not ended.is_set():
            raise
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, asyncio.TimeoutError):
            await client.close()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except OSError as error:
        sys.exit(str(error))
