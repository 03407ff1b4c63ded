"""Who owns a lab, and what to do with one whose owner is gone.

A lab is a directory `/run/tortie-lab/<name>` and the namespaces `tl-<name>-*`. Its owner holds a lock on the file
`<name>.lock` beside the directory from before the first of them exists until after the last is removed. So whoever gets
the lock may remove everything of that name: nobody alive needs it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tortie import netns
from tortie.lab import fabric, routers
from tortie.lab.errors import LabBusy
from tortie.lab.topology import prefix

ROOT = Path("/run/tortie-lab")


def directory(lab: str) -> Path:
    return ROOT / lab


def control_socket(lab: str) -> Path:
    return directory(lab) / "control.sock"


def api_address(lab: str) -> str:
    return f"unix:{directory(lab) / 'api.sock'}"


def _lock_file(lab: str) -> Path:
    return ROOT / f"{lab}.lock"


@contextmanager
def owned(lab: str) -> Iterator[Path]:
    """The body owns the lab; yields its directory, empty. Raises LabBusy."""
    prefix(lab)  # refuses what is no lab's name
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = _lock(lab)
    try:
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        yield directory(lab)
    finally:
        _lock_file(lab).unlink(missing_ok=True)
        os.close(fd)


def _lock(lab: str) -> int:
    while True:
        fd = os.open(_lock_file(lab), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise LabBusy(f"the lab {lab!r} belongs to process {owner(lab)}: `tortie lab down {lab}` ends it") from None
        try:
            if os.fstat(fd).st_ino == _lock_file(lab).stat().st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)  # its last owner unlinked it between our two calls


def owner(lab: str) -> int | None:
    """The process that owns the lab, None when nobody does."""
    try:
        fd = os.open(_lock_file(lab), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(fd, 32) or b"0")
    finally:
        os.close(fd)
    return None


def labs() -> list[str]:
    """Every lab of which there is a trace on this machine, alive or not."""
    traces = {name.removeprefix("tl-").partition("-")[0] for name in netns.named("tl-")}
    if ROOT.is_dir():
        traces |= {entry.name.removesuffix(".lock") for entry in ROOT.iterdir()}
    return sorted(traces)


async def erase(lab: str) -> None:
    """Removes everything of the lab but the lock. Only for its owner."""
    names = netns.named(prefix(lab))
    for pid in netns.inhabitants(names):  # such as a BIRD, which outlives its agent
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await fabric.remove_namespaces(names)
    routers.erase(prefix(lab))
    shutil.rmtree(directory(lab), ignore_errors=True)


async def erase_ownerless(lab: str) -> bool:
    """Removes what a dead owner left behind; False when the owner lives."""
    try:
        with owned(lab):
            await erase(lab)
    except LabBusy:
        return False
    return True
