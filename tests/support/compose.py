"""The containers of compose/ on a machine of their own, where a Docker is started by hand; what README.md and
docs/compose.md say is what runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import netns
from tests.support.agent import REPOSITORY
from tests.support.machine import GROUP, Failed, Machine, missing
from tests.support.netns import namespaces

DIRECTORY = REPOSITORY / "compose"
SECTION = "Containers"
PROGRAMS = ("dockerd", "docker-compose", "debootstrap", "iptables", "script")
SERVICES = ("api", "ipam", "route-distribution", "policy-compiler")
NODES = ("node1", "node2", "node3")
NATS3 = ("-f", "docker-compose.yml", "-f", "docker-compose.nats3.yml")
BASE = "tortie-base"
PATIENCE_S = 240.0


def absent() -> list[str]:
    return missing(*PROGRAMS)


def commands(page: Path = REPOSITORY / "README.md", heading: str = SECTION) -> list[str]:
    """What a user types: the lines that begin with `$` below a heading, without the comments behind them."""
    for section in re.split(r"^(?=#+ )", page.read_text(), flags=re.MULTILINE):
        if section.partition("\n")[0].lstrip("# ") == heading:
            return [re.sub(r"\s+#.*", "", line) for line in re.findall(r"^\$ (.*)$", section, flags=re.MULTILINE)]
    raise AssertionError(f"{page} has no section {heading!r}")


class Stack:
    """A machine with a Docker; `overlay` are compose's arguments that name further files."""

    def __init__(self, machine: Machine, wheels: Path) -> None:
        self.machine = machine
        self.overlay: Sequence[str] = ()
        self._environment = {
            "BASE": BASE,
            "TORTIE_WHEELS": str(wheels),
            "DOCKER_BUILD": "--network none",
            "DOCKER_BUILDKIT": "0",
        }
        """With which `make image` fetches nothing."""

    def typed(self, line: str, *, before: str = "", where: Path = DIRECTORY) -> subprocess.CompletedProcess[str]:
        """One line of a page, in a shell that ran `before` (assignments) first."""
        script = f"cd {where}\n{before}\n{line}"
        return self.machine.try_("bash", "-c", script, env=self._environment, limit_s=600.0)

    # --- compose

    def try_(
        self, *arguments: str, text: str | None = None, limit_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """`docker-compose`, whatever comes of it."""
        command = ("docker-compose", "--project-directory", ".", *self.overlay, *arguments)
        return self.machine.try_(*_in_place(*command), text=text, limit_s=limit_s)

    def run(self, *arguments: str, text: str | None = None) -> str:
        done = self.try_(*arguments, text=text)
        if done.returncode:
            raise Failed(f"docker-compose {' '.join(arguments)}: {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def up(self, *arguments: str) -> None:
        """All of it is ready afterwards."""
        self.run("up", "-d", *arguments)
        self.settle()

    def settle(self) -> None:
        """Returns when every component that was started says of itself that it is ready, and every node's agent too."""
        self.until(lambda: not self.unready(), lambda: f"ready are all but {self.unready()}")

    def unready(self) -> list[str]:
        """Containers that should run and are not healthy."""
        containers = self.containers()
        found = [name for name, state in containers.items() if state not in ("healthy", "exited 0")]
        return found or ([] if len(containers) >= len(SERVICES) + len(NODES) + 2 else ["some"])

    def containers(self) -> dict[str, str]:
        """Name -> `healthy`, or what it is instead."""
        names = self.machine.run("docker", "ps", "-aq").split()
        found = {}
        for container in json.loads(self.machine.run("docker", "inspect", *names)) if names else ():
            state = container["State"]
            health = state.get("Health", {}).get("Status", "no health check")
            found[container["Name"].lstrip("/")] = health if state["Running"] else f"exited {state['ExitCode']}"
        return found

    def inspect(self, container: str) -> Any:
        return json.loads(self.machine.run("docker", "inspect", container))[0]

    def crash(self, container: str) -> None:
        """kill -9 of its first process, as from outside."""
        self.machine.run("kill", "-9", str(self.inspect(container)["State"]["Pid"]))

    def name(self, service: str, number: int = 1) -> str:
        """As docker-compose calls a container."""
        return f"tortie_{service}_{number}"

    # --- tortie

    def try_on(self, node: str, *command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.machine.try_("docker", "exec", "-i", self.name(node), *command, text=text, limit_s=300.0)

    def on(self, node: str, *command: str, text: str | None = None) -> str:
        done = self.try_on(node, *command, text=text)
        if done.returncode:
            raise Failed(f"{node}: {' '.join(command)}: {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def address(self, node: str, pod: str) -> str:
        return self.on(node, "tortie", "pod", "ip", pod).strip()

    def fetches(self, node: str, *options: str, url: str) -> bool:
        """Whether a new pod on a node gets an answer within seconds."""
        name = f"once{os.urandom(3).hex()}"
        done = self.try_on(node, *_words("tortie pod run", name, *options, "-- curl -sS -m 3 -o /dev/null", url))
        assert done.returncode in (0, 7, 28), done.stderr
        return done.returncode == 0

    def stream(self, node: str, pod: str, url: str, still: str) -> subprocess.Popen[str]:
        """From a running pod, for some seconds: new connections to a server, and echo requests to an address that
        answers in the kernel. What is lost of either is in its output, see `lost`."""
        tries = (
            f"ping -q -n -i 0.1 -c 60 {still} & for i in $(seq 20); do "
            f"curl -s -m 60 -o /dev/null {url} || echo no connection; sleep 0.2; done; wait"
        )
        words = ("docker", "exec", self.name(node), "tortie", "pod", "exec", pod, "--", "sh", "-c", tries)
        return self.machine.popen(*words)

    # --- waiting

    def until(self, condition: Callable[[], object], what: str | Callable[[], str]) -> None:
        def holds() -> bool:
            try:
                return bool(condition())
            except Failed:
                return False

        try:
            netns.wait_for(holds, what if isinstance(what, str) else "", PATIENCE_S)
        except AssertionError as error:
            said = self.try_("logs", "--no-color", "--tail", "15").stdout
            raise AssertionError(f"never: {what if isinstance(what, str) else what()}\n{said}") from error


def lost(stream: subprocess.Popen[str]) -> str:
    """Empty when nothing was."""
    said, _ = stream.communicate(timeout=PATIENCE_S)
    return "" if " 0% packet loss" in said and "no connection" not in said else said


def _in_place(*command: str) -> tuple[str, ...]:
    return ("env", "-C", str(DIRECTORY), *command)


def _words(*parts: str) -> list[str]:
    return [word for part in parts for word in part.split()]


@contextmanager
def docker(logs: Path) -> Iterator[Machine]:
    """A machine with a Docker of its own; all of it is gone afterwards."""
    with namespaces(1) as (network,), Machine(network) as machine:
        machine.write("/run/daemon.json", "{}")
        machine.start(
            *("dockerd", "--config-file", "/run/daemon.json", "--bridge", "none", "--cgroup-parent", GROUP),
            log=logs / "dockerd.log",
        )
        try:
            netns.wait_for(lambda: machine.try_("docker", "version").returncode == 0, "dockerd answers", 60.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{(logs / 'dockerd.log').read_text()[-3000:]}") from error
        yield machine


def script(name: str, *arguments: str) -> None:
    """One of scripts/, on this machine."""
    done = subprocess.run(
        (str(REPOSITORY / "scripts" / name), *arguments), capture_output=True, text=True, check=False, timeout=1200.0
    )
    assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stderr[-3000:]}"
