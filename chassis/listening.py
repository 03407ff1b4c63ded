"""Where a process listens, as its settings say it: `host:port` or `unix:/path`.

What cannot be had is the operator's to mend, so it is one sentence (`CannotServe`) and no traceback. A socket file that
a former process left is taken away; one that somebody still answers at is not.
"""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chassis.errors import CannotServe

if TYPE_CHECKING:
    from aiohttp import web

SHUTDOWN_S = 1.0
"""How long open requests may take to end once the service stops."""

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: stop that one, or choose another address",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
    errno.EACCES: "not permitted: choose another one, or start with the permission",
    errno.ENOENT: "the directory does not exist",
    errno.ENOTDIR: "the directory does not exist",
}


@asynccontextmanager
async def listening(app: web.Application, listen: str, *, setting: str) -> AsyncIterator[str]:
    """The application at `listen`; gives the address as it is (port 0 chooses one). Raises CannotServe, which names
    the setting."""
    from aiohttp import web

    path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
    host, _, port = listen.rpartition(":")
    if path is None and not (host and port.isdecimal() and int(port) < 1 << 16):
        raise CannotServe(f"{setting}: {listen!r} is neither host:port nor unix:/path")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    ours = False
    try:
        try:
            if path is not None:
                claim(path)
                await web.UnixSite(runner, str(path)).start()
                ours = True
                path.chmod(0o660)
            else:
                await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise cannot_listen(f"{setting}: {listen}", error) from error
        yield listen if path is not None else _address(runner.addresses[0])
    finally:
        await runner.cleanup()
        if ours and path is not None:
            path.unlink(missing_ok=True)


def claim(path: Path) -> None:
    """Makes way for a socket at `path`. Raises OSError when somebody answers there, or when it is no socket."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(ConnectionRefusedError):
        probe.setblocking(False)
        with suppress(BlockingIOError):  # so many wait there that it must be alive
            probe.connect(str(path))
        raise OSError(errno.EADDRINUSE, "another process answers there")
    path.unlink()


def cannot_listen(where: str, error: OSError) -> CannotServe:
    """The sentence for whoever chose the place."""
    reason = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return CannotServe(f"cannot listen at {where}: {reason}")


def _address(bound: tuple[str, int]) -> str:
    host, port = bound[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
