"""BIRD as a process of its own: started, found again, and ended, by the files in its directory.

    bird.conf   what it runs with; present exactly while this node is to speak BGP
    bird.new    what it is asked to run with, until it has said yes
    bird.ctl    its control socket: who answers there is our BIRD, whoever started it
    bird.pid    its process
    bird.log    what it says

It detaches itself, so an agent that ends leaves it running and the next one finds it by its socket. It is never told to
end but when the node has nothing to say by BGP any more: its routes, and those that the peers have from it, outlive us.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from pathlib import Path

from services.node_dataplane.bird.control import Control
from services.node_dataplane.errors import BirdError

PROGRAM = "bird"
_PATHS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
START_DEADLINE_S = 10.0
END_DEADLINE_S = 5.0
_ASK_EVERY_S = 0.02
_PERSIST = re.compile(r"^\s*persist;", re.MULTILINE)


class Refused(BirdError):
    """BIRD cannot read a configuration; the text names its line."""


class BirdProcess:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.configuration = directory / "bird.conf"
        self.candidate = directory / "bird.new"
        self.socket = directory / "bird.ctl"
        self.log = directory / "bird.log"
        self._pid_file = directory / "bird.pid"

    # --- configuration

    def text(self) -> str | None:
        """What BIRD was last given and took; None: nothing, or it has been told to leave."""
        try:
            return self.configuration.read_text()
        except FileNotFoundError:
            return None

    def propose(self, text: str) -> None:
        """Write the candidate, which may hold passwords. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.candidate, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)

    def accept(self) -> None:
        """The candidate is what BIRD runs with."""
        os.replace(self.candidate, self.configuration)

    def forget(self) -> None:
        for path in (self.configuration, self.candidate):
            path.unlink(missing_ok=True)

    async def check(self) -> None:
        """Have the candidate read by a BIRD that does not start. Raises Refused, BirdError."""
        await self._run("-p", "-c", str(self.candidate), refusal=True)

    # --- life

    async def start(self, *, recover: bool) -> Control:
        """With the accepted configuration; a connection to it. `recover`: BIRD's routes of an earlier life are still in
        the kernel and stay until the peers have told theirs again (RFC 4724). Raises BirdError."""
        self.kill()
        options = ("-R",) if recover else ()
        await self._run("-c", str(self.configuration), "-s", str(self.socket), "-P", str(self._pid_file), *options)
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                while True:
                    try:
                        return await Control.connect(self.socket)
                    except BirdError:
                        if self.pid() is None and self._pid_file.exists():
                            raise
                        await asyncio.sleep(_ASK_EVERY_S)
        except TimeoutError as error:
            raise BirdError(f"BIRD started and does not answer at {self.socket}, see {self.log}") from error

    async def leave(self, control: Control) -> None:
        """End it, and have it take its routes along. Raises BirdError."""
        text = self.text() or ""
        self.propose(_PERSIST.sub("", text))
        await control.ask(f'configure "{self.candidate}"')
        await control.ask("down")
        try:
            async with asyncio.timeout(END_DEADLINE_S):
                await control.ended()
                while self.pid() is not None:  # noqa: ASYNC110 - a process that is not our child tells nobody
                    await asyncio.sleep(_ASK_EVERY_S)
        except TimeoutError:
            self.kill()
        self.forget()

    def pid(self) -> int | None:
        """Of a running BIRD of this directory."""
        try:
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if str(self.socket).encode() in words else None

    def kill(self) -> None:
        """End a BIRD that does not listen any more: nobody else can. Its routes stay."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    async def _run(self, *arguments: str, refusal: bool = False) -> None:
        program = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=os.pathsep.join(_PATHS))
        if program is None:
            raise BirdError("this node is to speak BGP and has no BIRD: install the package bird2")
        child = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                said, _ = await child.communicate()
        except TimeoutError as error:
            raise BirdError(f"`{PROGRAM} {' '.join(arguments)}` takes longer than {START_DEADLINE_S:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            text = said.decode(errors="replace").strip() or f"it ended with {child.returncode}"
            raise (Refused if refusal else BirdError)(text)
