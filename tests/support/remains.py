"""What a machine with a Docker could leave behind on the real one, and must not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support import netns
from tests.support.machine import GROUP, Machine

KINDS = ("mnt", "net", "pid", "ipc", "uts")


@contextmanager
def nothing_remains(directory: Path) -> Iterator[Callable[[Machine], None]]:
    """What it yields is told of the machine shortly before that ends. Afterwards there is no process of it or of its
    containers, no control group, no mount, no network device and no rule of Docker."""
    lived: set[int] = set()
    namespaces: set[str] = set()

    def tell(machine: Machine) -> None:
        lived.update(_below(machine.first))
        namespaces.update(name for pid in lived for name in _namespaces(pid))
        namespaces.difference_update(_namespaces(os.getpid()))

    links, rules, groups = _links(), _rules(), _groups()
    yield tell
    assert len(namespaces) >= 3, "the machine had namespaces of its own"
    netns.wait_for(lambda: not _entered(namespaces), "the last process in a namespace of Docker's ends", 30.0)
    assert _groups() == groups
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "docker" in line]
    assert not [line for line in mounts if "overlay" in line or "/netns/" in line]
    assert not [line for line in mounts if str(directory) in line]
    assert _links() == links
    assert _rules() == rules


def _below(pid: int) -> set[int]:
    """A process and all that descend from it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, more = set[int](), {pid}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in more} - found
    return found


def _namespaces(pid: int) -> set[str]:
    found = set()
    for kind in KINDS:
        with suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def _entered(namespaces: set[str]) -> set[int]:
    """Processes in any of them."""
    pids = {int(path.name) for path in Path("/proc").glob("[0-9]*")}
    return {pid for pid in pids if _namespaces(pid) & namespaces}


def _links() -> set[str]:
    """The bridges that Docker makes are called so."""
    return {name for name in os.listdir("/sys/class/net") if name.startswith(("docker", "br-"))}


def _groups() -> set[Path]:
    """Control groups of this test, and those that Docker makes without being asked."""
    return {path for name in (GROUP, "docker") for path in Path("/sys/fs/cgroup").rglob(name)}


def _rules() -> list[str]:
    done = subprocess.run(("nft", "list", "ruleset"), capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "DOCKER" in line]
