"""A command inside a pod: its namespace, and no more privileges than a container has by default.

The node's root could leave the pod's namespace and undo its policy. So what runs in a pod loses the capabilities for
that, as containers do: the bounding set is what Docker leaves a container. Settings of Tortie's services are no
business of pods and leave their environment.

Source: capabilities(7), https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from tortie import netns
from tortie.pods import shim
from tortie.pods.errors import CannotRun

KEPT = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
"""CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
AUDIT_WRITE, SETFCAP."""
_HIGHEST = 63
_PR_CAPBSET_DROP = 24
_LOOK_EVERY_S = 0.02
_libc = ctypes.CDLL(None, use_errno=True)


def step_in(namespace: str) -> None:
    """The calling process is in the pod, and with its next exec it has a pod's privileges. Raises OSError."""
    netns.enter(namespace)
    for capability in range(_HIGHEST + 1):
        if capability not in KEPT and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            if number != errno.EINVAL:  # the kernel knows fewer
                raise OSError(number, f"cannot give up capability {capability}: {os.strerror(number)}")


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TORTIE_")}


def become(namespace: str, command: Sequence[str]) -> None:
    """The calling process becomes the command, inside the pod. Raises CannotRun."""
    try:
        step_in(namespace)
        sys.stdout.flush()
        os.execvpe(command[0], list(command), environment())
    except OSError as error:
        raise _cannot_run(command, error) from error


def attached(namespace: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """The command as our child, with our standard streams; it ends when we do. Raises CannotRun."""

    def before_exec() -> None:
        netns.die_with_parent(signal.SIGKILL)
        step_in(namespace)

    try:
        return subprocess.Popen(list(command), env=environment(), preexec_fn=before_exec)
    except (OSError, subprocess.SubprocessError) as error:
        raise _cannot_run(command, error) from error


def detached(namespace: str, command: Sequence[str], log: Path, exit_file: Path) -> int:
    """The command in the background; the process that waits for it and writes its exit code. Raises CannotRun."""
    waiting = [sys.executable, "-I", "-S", shim.__file__, str(exit_file), "--", *command]
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                waiting,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: step_in(namespace),
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise _cannot_run(command, error) from error
    child.returncode = 0  # it is nobody's child from here on: it outlives us
    return child.pid


def running(namespace: str, waiter: int = 0) -> list[int]:
    """The processes of a pod, but for the one that waits for them."""
    return [pid for pid in netns.inhabitants([namespace]) if pid != waiter]


def end(namespace: str, *, grace_s: float, waiter: int = 0) -> None:
    """Ends everything in the pod: SIGTERM, and SIGKILL for what is left after `grace_s`. Raises TimeoutError when the
    kernel does not get rid of it."""
    _signal(running(namespace, waiter), signal.SIGTERM)
    if not _gone(namespace, waiter, grace_s):
        _signal(running(namespace, waiter), signal.SIGKILL)
        if not _gone(namespace, waiter, 10.0):
            raise TimeoutError(f"processes {running(namespace, waiter)} do not end")
    if waiter and not _gone(namespace, 0, 2.0):  # it only writes a number down now
        _signal([pid for pid in running(namespace) if pid == waiter], signal.SIGKILL)
        _gone(namespace, 0, 2.0)


def _signal(processes: Collection[int], number: signal.Signals) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _gone(namespace: str, waiter: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while running(namespace, waiter):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _cannot_run(command: Sequence[str], error: Exception) -> CannotRun:
    return CannotRun(f"cannot run {command[0]}: {getattr(error, 'strerror', None) or error}")
