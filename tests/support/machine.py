"""A Linux machine of its own, for programs that know only one place for their things.

A container runtime keeps its state in /run and /var/lib and reads /etc/cni and /opt/cni. Here such directories are
memory that only the machine's processes see; its processes and its network are its own, too, and the rest of the disk
is the real one. When the machine ends, or the test does, however it does, the kernel kills every process in it and
frees all of that.

    with namespaces(1) as (network,), Machine(network) as machine:
        machine.run("podman", "ps")
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.agent import REPOSITORY
from tests.support.netns import Namespace

EMPTY = ("/run", "/var/lib", "/var/tmp", "/opt", "/etc/cni")
GROUP = f"tortie-test-{os.getpid()}"
"""A control group for daemons that can be told theirs."""
COPIED = ("/etc/containers", "/etc/containerd")
"""As the machine's packages left them."""

_PREPARE = f"""
set -e
for directory in {" ".join(COPIED)}; do
    mkdir -p "/tmp/$1$directory" && cp -a "$directory/." "/tmp/$1$directory" || exit 1
done
for directory in {" ".join(EMPTY)}; do mount -t tmpfs tmpfs "$directory"; done
for directory in {" ".join(COPIED)}; do
    mount -t tmpfs tmpfs "$directory" && cp -a "/tmp/$1$directory/." "$directory"
done
rm -r "/tmp/$1"
mkdir -p /var/lib/containers /etc/cni/net.d
echo ready
read -r
"""
"""Then it is the first process of the machine, which ends when its standard input does."""


class Failed(AssertionError):
    """A command that should have succeeded."""


class Machine:
    def __init__(self, network: Namespace) -> None:
        self.network = network
        self._groups = {path for path in _groups() if path.exists()}
        self._started: list[subprocess.Popen[bytes]] = []
        with network.inside():
            self._first = subprocess.Popen(
                (
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("bash", "-c", _PREPARE, "bash", f"machine-{os.getpid()}-{id(self)}"),
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        own = f"/proc/{self._first.pid}/ns"
        self._enter = (*("nsenter", f"--mount={own}/mnt", f"--pid={own}/pid_for_children", f"--net={own}/net", "--"),)
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == "ready\n", "the machine's directories cannot be made"

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._first.communicate()
        for process in self._started:
            process.wait()
        for group in _groups():
            if group not in self._groups:
                _remove_group(group)

    @property
    def first(self) -> int:
        """The process, as seen from outside, from which all others of the machine descend."""
        return self._first.pid

    def try_(
        self, *command: str, text: str | None = None, env: Mapping[str, str] | None = None, limit_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """The outcome of a command, whatever it is."""
        return subprocess.run(
            (*self._enter, *command),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            env=environment() | dict(env or {}),
            timeout=limit_s,
            check=False,
        )

    def run(
        self, *command: str, text: str | None = None, env: Mapping[str, str] | None = None, limit_s: float = 120.0
    ) -> str:
        """The standard output of a command. Raises Failed with its complaint."""
        done = self.try_(*command, text=text, env=env, limit_s=limit_s)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}")
        return done.stdout

    def shell(self, script: str, *, env: Mapping[str, str] | None = None, limit_s: float = 120.0) -> str:
        """As a user types it: ends at the first command that fails, which raises Failed."""
        return self.run("bash", "-euo", "pipefail", "-c", script, env=env, limit_s=limit_s)

    def start(self, *command: str, log: Path, env: Mapping[str, str] | None = None) -> None:
        """A process that stays until the machine ends."""
        with log.open("ab") as output:
            self._started.append(
                subprocess.Popen(
                    (*self._enter, *command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment() | dict(env or {}),
                )
            )

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """A process whose end, and output, the caller waits for."""
        return subprocess.Popen(
            (*self._enter, *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat >"$0"', path, text=text)

    def mount(self, source: Path, target: str) -> None:
        """A directory of the real disk appears in the machine."""
        self.run("mount", "--bind", str(source), target)


def environment() -> dict[str, str]:
    """Of a root shell, in which `tortie` is the code that is tested."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "PYTHONPATH": str(REPOSITORY),
    }


def missing(*programs: str) -> list[str]:
    return [name for name in programs if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]


# --- control groups: the one thing of a machine that the kernel does not take back by itself


def _groups() -> Iterator[Path]:
    """Where podman, containerd and docker put their containers, in every hierarchy: at its top, or below the group that
    this process is in."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        for mount in (
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/unified",
            f"/sys/fs/cgroup/{controllers.removeprefix('name=')}",
        ):
            for top in {Path(mount), Path(mount + own)}:
                yield from (top / group for group in ("libpod_parent", "default", "docker", GROUP))


def _remove_group(group: Path) -> None:
    """Those below first; one in which a process lives stays."""
    for path, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(path)
