"""Network namespaces by name: make, remove, and open things inside them.

A namespace is a property of a thread, and a socket belongs for ever to the one it was opened in. So the owner of a lab
steps in, opens a socket, and steps out (some 30 us), and then drives the sockets of all pods from one event loop.
`inside` never spans an await: its body is synchronous by construction.

Source: setns(2), namespaces(7), ip-netns(8).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

DIRECTORY = Path("/run/netns")
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def path(name: str) -> Path:
    return DIRECTORY / name


def exists(name: str) -> bool:
    return path(name).exists()


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def enter(name: str) -> None:
    """Moves the calling thread into the namespace, for good. Raises OSError."""
    fd = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(fd)
    finally:
        os.close(fd)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """The body runs in the namespace, and the thread comes back. Must not await."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(name)
        try:
            yield
        finally:
            try:
                _setns(home)
            except OSError:
                os.abort()  # a process that does not know where it is must not go on
    finally:
        os.close(home)


def die_with_parent(signal: int) -> None:
    """The calling process gets `signal` when the thread that started it ends, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)


def named(prefix: str) -> list[str]:
    """Every namespace whose name begins so."""
    if not DIRECTORY.is_dir():
        return []
    return sorted(entry.name for entry in DIRECTORY.iterdir() if entry.name.startswith(prefix))


def inhabitants(names: Iterable[str]) -> list[int]:
    """Processes that live in these namespaces."""
    homes = {(found.st_dev, found.st_ino) for found in (_identity(path(name)) for name in names) if found is not None}
    everyone = (
        (entry.name, _identity(entry / "ns/net")) for entry in Path("/proc").iterdir() if entry.name.isdecimal()
    )
    return [int(pid) for pid, found in everyone if found is not None and (found.st_dev, found.st_ino) in homes]


def _identity(namespace: Path) -> os.stat_result | None:
    try:
        return namespace.stat()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def write_sysctl(name: str, key: str, value: str) -> None:
    """One network sysctl (`net/ipv4/ip_forward`) of the namespace."""
    with inside(name):
        Path("/proc/sys", key).write_text(value)
