"""Real container runtimes on a machine with Tortie, as docs/runtimes.md sets them up: what the page says is what runs.

The page's sections are read by their headings; each of its `sh` blocks is one script. What only this place needs (no
systemd, control groups of version 1, limits that cannot be raised) is a drop-in beside the page's own configuration.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import netns
from tests.support.agent import REPOSITORY
from tests.support.machine import Machine, missing
from tests.support.netns import Namespace, namespaces
from tortie.cli.client import Client

PAGE = REPOSITORY / "docs" / "runtimes.md"
PROGRAMS = ("podman", "conmon", "runc", "containerd", "ctr", "iptables", "debootstrap", "unshare", "nsenter")
PLUGINS = Path("/usr/lib/cni")
NODE, OUTSIDE = "10.0.0.1", "10.0.0.254"
IMAGE = "localhost/base"
BASE = "/var/tmp/base"
_numbers = itertools.count(1)
PATIENCE_S = 120.0

_HERE = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""

HELLO = (
    "$s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die $!; "
    'while ($c = $s->accept) { print $c "hello\\n"; close $c }'
)
SERVER = ("perl", "-MIO::Socket::INET", "-e", HELLO)
"""A command for a container: says hello on port 80."""


def absent() -> list[str]:
    """What of the packages that the page names is not on this machine."""
    return missing(*PROGRAMS) + [
        str(path) for path in (PLUGINS / "portmap", PLUGINS / "bandwidth") if not path.exists()
    ]


def blocks(heading: str, language: str = "sh") -> list[str]:
    """The page's blocks below a heading and before the next."""
    found: list[str] = []
    for section in re.split(r"^(?=#+ )", PAGE.read_text(), flags=re.MULTILINE):
        if section.partition("\n")[0].lstrip("# ") == heading:
            found += re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE} has no {language} block below {heading!r}"
    return found


def make_base(directory: Path) -> None:
    """The root directory of the image, by the page's own command, from where this machine has its packages. Half a
    minute."""
    (command,) = (line for block in blocks("podman") for line in block.splitlines() if line.startswith("debootstrap"))
    command = f"{command.replace(BASE, str(directory))} {_mirror()}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr}"


def _mirror() -> str:
    """Empty: debootstrap's own choice."""
    asked = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return next(iter(done.stdout.split()), "")


@dataclass
class Host:
    """A machine with Tortie; `outside` is another, on the same wire."""

    machine: Machine
    outside: Namespace
    logs: Path

    # --- Tortie

    def serve(self, bus: str = "127.0.0.1") -> None:
        """The page's services, agent and objects; the bus listens on `bus`."""
        services, objects = blocks("Tortie on one machine")
        self.machine.start(
            *("bash", "-c", f"{services.replace('serve nats', f'serve nats --host {bus}')}\nwait"),
            log=self.logs / "tortie.log",
            env={"TORTIE_NATS_URL": f"nats://{bus}:4222"},
        )
        self.until(lambda: self.machine.try_("tortie", "status").returncode == 0, "the api answers")
        self.machine.shell(objects)
        self.until(lambda: self.machine.try_("test", "-S", "/run/tortie/cni.sock").returncode == 0, "the agent listens")

    def podman(self) -> None:
        """The page's configuration and image."""
        configuration, image = blocks("podman")[:2]
        self.machine.shell(configuration)
        self.machine.shell("\n".join(line for line in image.splitlines() if not line.startswith("debootstrap")))

    def containerd(self) -> None:
        """Running, with podman's image."""
        daemon, containers = blocks("containerd")[:2]
        self.machine.start("bash", "-c", f"{daemon}\nwait", log=self.logs / "containerd.log")
        self.until(lambda: self.machine.try_("ctr", "version").returncode == 0, "containerd answers")
        self.machine.shell("\n".join(containers.splitlines()[:2]))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            netns.wait_for(condition, what, PATIENCE_S)
        except AssertionError as error:
            logs = "\n".join(log.read_text()[-3000:] for log in sorted(self.logs.glob("*.log")))
            raise AssertionError(f"{error}\n{logs}") from error

    def apply(self, manifests: str) -> None:
        self.machine.run("tortie", "apply", "-f", "-", text=manifests)

    def endpoints(self) -> dict[str, tuple[str, ...]]:
        """`namespace/name` -> addresses, of what is plugged in."""
        items = self._get("/v1/endpoints")["items"]
        return {f"{item['namespace']}/{item['name']}": tuple(item["addresses"]) for item in items}

    def handle(self, address: str) -> str:
        """Of whom the address service gave an address to; empty: it is free."""
        return str(self._get(f"/v1/ipam?ip={address}")["address"]["handle"])

    def _get(self, path: str) -> Any:
        with self.machine.network.inside():
            return Client("http://127.0.0.1:7460").get(path)

    # --- podman

    def start(self, *arguments: str, name: str = "", env: Mapping[str, str] | None = None) -> str:
        """A container that serves; its name."""
        name = name or f"p{next(_numbers)}"
        self.machine.run("podman", "run", "-d", "--name", name, *arguments, IMAGE, *SERVER, env=env)
        return name

    def inspect(self, container: str, what: str) -> str:
        return self.machine.run("podman", "inspect", "-f", "{{" + what + "}}", container).strip()

    def address(self, container: str, network: str = "tortie") -> str:
        return self.inspect(container, f".NetworkSettings.Networks.{network}.IPAddress")

    # --- packets

    def hears(self, address: str, port: int, where: Sequence[str] = ()) -> bool:
        """Whether a server says hello to a client on the node, or wherever the command prefix `where` leads."""
        done = self.machine.try_(*where, "timeout", "2", "bash", "-c", f"cat </dev/tcp/{address}/{port}")
        return done.stdout == "hello\n"

    def outside_hears(self, address: str, port: int) -> bool:
        with self.outside.inside():
            done = subprocess.run(
                ("timeout", "2", "bash", "-c", f"cat </dev/tcp/{address}/{port}"),
                capture_output=True,
                text=True,
                check=False,
            )
        return done.stdout == "hello\n"


@contextmanager
def host(base: Path, logs: Path) -> Iterator[Host]:
    """A machine with a wire to the outside, and nothing of Tortie running yet."""
    with ExitStack() as stack:
        node, outside = stack.enter_context(namespaces(2))
        netns.veth(node, "up0", outside, "node1", addresses=(f"{NODE}/24", f"{OUTSIDE}/24"))
        node.ip("route", "add", "default", "via", OUTSIDE)
        machine = stack.enter_context(Machine(node))
        machine.run("mkdir", BASE)
        machine.mount(base, BASE)
        machine.write("/etc/containers/containers.conf.d/here.conf", _HERE)
        yield Host(machine, outside, logs)
