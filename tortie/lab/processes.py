"""The bus, the services and the agents as processes, started as users start them, each inside its namespace.

A child steps into its namespace between fork and exec, asks the kernel to be killed when the lab's owner ends, and
writes its log to a file. Ready means that its own `/readyz` says so, asked over a unix socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import tortie
from tortie import netns
from tortie.lab.errors import CannotDo, ProcessEnded
from tortie.lab.pace import SLOWNESS

READY_DEADLINE_S = 30.0 * SLOWNESS
STOP_GRACE_S = 3.0 * SLOWNESS
_ASK_EVERY_S = 0.03


class Process:
    """One running child."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path, health: Path | None) -> None:
        self.name = name
        self.log = log
        self._child = child
        self._health = health
        self._stopping = False

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.returncode is None

    @property
    def fate(self) -> str:
        """Empty while it runs or was told to stop; else how it ended."""
        code = self._child.returncode
        return "" if code is None or self._stopping else f"{self.name} ended with {code}, see {self.log}"

    async def ready(self) -> None:
        """Returns when it is. Raises ProcessEnded when it ends first, or not in time."""
        assert self._health is not None, f"{self.name} has no health socket"
        cause = "no answer from its health socket"
        try:
            async with asyncio.timeout(READY_DEADLINE_S):
                while True:
                    if self._child.returncode is not None:
                        raise ProcessEnded(f"{self.name} ended with {self._child.returncode}\n{self.tail()}")
                    status, body = await self.readyz()
                    if status == 200:
                        return
                    cause = body.strip() or cause
                    await asyncio.sleep(_ASK_EVERY_S)
        except TimeoutError:
            raise ProcessEnded(
                f"{self.name} is not ready after {READY_DEADLINE_S:g} s: {cause}\n{self.tail()}"
            ) from None

    async def readyz(self) -> tuple[int, str]:
        """Status and body of its `/readyz`; (0, why) while nobody answers."""
        assert self._health is not None, f"{self.name} has no health socket"
        return await _readyz(self._health)

    def tail(self, lines: int = 12) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([f"the end of {self.log}:", *(f"  {line}" for line in text.splitlines()[-lines:])])

    async def stop(self) -> None:
        """By SIGTERM, and when it takes too long by SIGKILL."""
        self._stopping = True
        if self._child.returncode is None:
            with suppress(ProcessLookupError):
                self._child.terminate()
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()

    async def kill(self) -> None:
        """As a crash would."""
        self._stopping = True
        with suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()


async def serve(
    service: str,
    *,
    name: str,
    namespace: str,
    log: Path,
    settings: Mapping[str, str],
    arguments: tuple[str, ...] = (),
    health: Path | None = None,
) -> Process:
    """`tortie serve <service>` inside the namespace, with these `TORTIE_*` settings."""
    environment = clean_environment() | dict(settings)
    if health is not None:
        environment["TORTIE_HEALTH_LISTEN"] = f"unix:{health}"
    command = tortie_command("serve", service, *arguments)
    return await start(command, name=name, namespace=namespace, log=log, environment=environment, health=health)


async def start(
    command: Sequence[str],
    *,
    name: str,
    namespace: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    health: Path | None = None,
) -> Process:
    """Any program inside the namespace. Raises CannotDo when there is no such program."""

    def before_exec() -> None:
        netns.die_with_parent(signal.SIGKILL)
        netns.enter(namespace)
        os.setpgid(0, 0)  # the terminal's Ctrl-C is for the owner, who stops its children in order

    with log.open("ab") as output:
        try:
            child = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=before_exec,
            )
        except FileNotFoundError as error:
            raise CannotDo(f"{name}: there is no program {command[0]} on this machine") from error
    return Process(name, child, log, health)


async def appears(path: Path) -> None:
    """Returns when there is such a file. Raises CannotDo."""
    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            while not path.exists():  # noqa: ASYNC110 - a program of others, which tells nobody
                await asyncio.sleep(_ASK_EVERY_S)
    except TimeoutError:
        raise CannotDo(f"{path} did not appear within {READY_DEADLINE_S:g} s") from None


def tortie_command(*arguments: str) -> list[str]:
    """The `tortie` command of the same code that runs here."""
    return [sys.executable, "-m", "tortie", *arguments]


def clean_environment() -> dict[str, str]:
    """Ours without any setting of a service, and with the place that this code was loaded from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORTIE_")}
    home = str(Path(tortie.__file__).parents[1])
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (home, kept.get("PYTHONPATH", ""))))}


async def _readyz(socket: Path) -> tuple[int, str]:
    """Status and body of `GET /readyz`; (0, why) while nobody answers."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        return 0, f"its health socket: {error.strerror}"
    try:
        writer.write(b"GET /readyz HTTP/1.0\r\nHost: lab\r\n\r\n")
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    except ConnectionError as error:
        return 0, str(error)
    finally:
        writer.close()
    words = head.split(None, 2)
    return int(words[1]) if len(words) > 1 else 0, body.decode(errors="replace")
