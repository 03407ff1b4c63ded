"""The containers of compose/ on a machine of their own, where a Docker is started by hand; what README.md and
docs/compose.md say is what runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import netns
from tests.support.agent import REPOSITORY
from tests.support.machine import GROUP, Failed, Machine, missing
from tests.support.netns import namespaces
from tests.support.remains import nothing_remains

DIRECTORY = REPOSITORY / "compose"
PLUGINS = REPOSITORY / ".venv" / "docker"
"""Docker's configuration directory, in which scripts/prepare puts version 2 of compose."""
COMPOSE2 = PLUGINS / "cli-plugins" / "docker-compose"
PROGRAMS = ("dockerd", "docker-compose", "debootstrap", "iptables", "script")
SERVICES = ("api", "ipam", "route-distribution", "policy-compiler")
NODES = ("node1", "node2", "node3")
ONE = "docker-compose.yml"
THREE = f"{ONE}:docker-compose.nats3.yml"
"""What COMPOSE_FILE says for one and for three servers of the bus."""
IMAGE = "tortie"
FRONT = "/usr/lib/tortie/cni/tortie"
"""Where the image has the static CNI front end."""
PATIENCE_S = 240.0


def absent() -> list[str]:
    return missing(*PROGRAMS)


class Stack:
    """A machine with a Docker. `version` of compose is 1 (`docker-compose`) or 2 (`docker compose`); `files` are what
    it reads."""

    def __init__(self, machine: Machine, wheels: Path) -> None:
        self.machine = machine
        self.version = 1
        self.files = ONE
        self._build = {
            "BASE": "tortie-base",
            "BUILDER": "tortie-builder",
            "TORTIE_WHEELS": str(wheels),
            "DOCKER_BUILD": "--network none",
            "DOCKER_BUILDKIT": "0",
        }
        """With which `make image` fetches nothing."""

    def typed(self, line: str, *, before: str = "", where: Path = DIRECTORY) -> subprocess.CompletedProcess[str]:
        """One line of a page, in a shell that ran `before` (assignments) first."""
        return self.machine.try_(*self._shell(f"{before}\n{line}", where), env=self._environment, limit_s=600.0)

    def typed_and_left(self, line: str, log: Path) -> None:
        """One line of a page, at a terminal that stays."""
        words = self._shell(f"exec script -qefc {shlex.quote(self._spelled(line))} /dev/null")
        self.machine.start(*words, log=log, env=self._environment)

    def _shell(self, script: str, where: Path = DIRECTORY) -> tuple[str, ...]:
        return ("env", "-C", str(where), "bash", "-c", self._spelled(script))

    def _spelled(self, line: str) -> str:
        """As a user of the other version types what the pages say."""
        return line if self.version == 1 else re.sub(r"\bdocker-compose ", "docker compose ", line)

    @property
    def _environment(self) -> dict[str, str]:
        return {"COMPOSE_FILE": self.files, "DOCKER_CONFIG": str(PLUGINS), **self._build}

    # --- compose

    def try_(
        self, *arguments: str, text: str | None = None, limit_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """`docker-compose`, whatever comes of it."""
        program = ("docker-compose",) if self.version == 1 else ("docker", "compose")
        command = ("env", "-C", str(DIRECTORY), *program, *arguments)
        return self.machine.try_(*command, text=text, env=self._environment, limit_s=limit_s)

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
        """As compose calls a container."""
        return ("_" if self.version == 1 else "-").join(("tortie", service, str(number)))

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

    def fetching(self, node: str, *options: str, url: str) -> subprocess.Popen[str]:
        """A new pod on a node asks for something; see `answered`."""
        name = f"once{os.urandom(3).hex()}"
        words = _words("tortie pod run", name, *options, "-- curl -sS -m 3 -o /dev/null", url)
        return self.machine.popen("docker", "exec", self.name(node), *words)

    def fetches(self, node: str, *options: str, url: str) -> bool:
        return answered(self.fetching(node, *options, url=url))

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


def answered(fetching: subprocess.Popen[str]) -> bool:
    """Whether the pod got what it asked for; it waits for seconds."""
    said, _ = fetching.communicate(timeout=PATIENCE_S)
    assert fetching.returncode in (0, 7, 28), said
    return fetching.returncode == 0


def lost(stream: subprocess.Popen[str]) -> str:
    """Empty when nothing was."""
    said, _ = stream.communicate(timeout=PATIENCE_S)
    return "" if " 0% packet loss" in said and "no connection" not in said else said


def _words(*parts: str) -> list[str]:
    return [word for part in parts for word in part.split()]


@contextmanager
def docker(logs: Path) -> Iterator[Machine]:
    """A machine with a Docker of its own; all of it is gone afterwards."""
    with nothing_remains(logs) as tell, namespaces(1) as (network,), Machine(network) as machine:
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
        tell(machine)
