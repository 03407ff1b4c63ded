"""Who has the last route in the last kernel first: agents with the bus, or BIRDs in a full mesh or behind a reflector.

    python -m benchmarks.route_convergence [--nodes 50] [--routes 5000] [--rounds 2] [--only agents mesh reflector]

A bridge with a network namespace a node. The contestants take turns in each round, each brought up anew: its nodes
are told nothing but one route each, and wait; then all other routes are announced at the same moment. `agents`: a real
nats-server, a real route_distribution and real agents (`tortie serve node-dataplane`, one process a node); announcing
is writing the blocks to the bus. BIRD: stock, iBGP over the same bridge, announcing is `birdc configure` with static
routes in every node; the reflector is one of the nodes. Then one more route at one node, some times.

All kernels are watched in the same way, by their own count of prefixes (/proc/net/fib_triestat), one node after the
other: when the last of them has all, all have. CPU and memory (proportional set size) are those of all
processes of the contestant. Needs root, BIRD 2, about 5 GB for 50 agents.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from benchmarks.figures import machine, p50, show
from benchmarks.route_distribution_scale import write
from benchmarks.scale_node import raise_limits
from benchmarks.storm_processes import cpu_s
from bus_schemas.subjects import Fact
from chassis import logs
from chassis.bus import Bus
from chassis.embedded import binary, die_with_parent
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.netns import Namespace, _setns
from tests.support.routes import block, node, pool

ROOT = Path(__file__).resolve().parent.parent
HUB = "10.99.255.254"
PORT = 4222
READY_S = 600.0
FIRST = 0x0A800000
"""10.128.0.0: the routes."""
SINGLES = 10
POLL_S = 0.003

SERVICE = """
from chassis.runner import run
from services.route_distribution.service import serve
from services.route_distribution.settings import Settings
raise SystemExit(run("route_distribution", Settings, serve))
"""


def address(number: int) -> str:
    return str(ip_address(0x0A630000 + number + 1))


def hardware(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def name_of(number: int) -> str:
    return f"node-{number:03d}"


class Fabric:
    """A bridge in a namespace of its own, and one namespace for each node."""

    def __init__(self, stack: ExitStack, nodes: int) -> None:
        self.hub = Namespace()
        stack.callback(self.hub.close)
        self.hub.ip("link", "add", "br0", "type", "bridge")
        self.hub.ip("address", "add", f"{HUB}/16", "dev", "br0")
        self.hub.ip("link", "set", "br0", "up")
        self.nodes: list[Namespace] = []
        for number in range(nodes):
            made = Namespace()
            stack.callback(made.close)
            self.hub.ip("link", "add", f"n{number}", "type", "veth", "peer", "name", "eth0", "netns", made.path)
            self.hub.ip("link", "set", f"n{number}", "master", "br0", "up")
            made.ip("link", "set", "eth0", "address", hardware(number))
            made.ip("address", "add", f"{address(number)}/16", "dev", "eth0")
            made.ip("link", "set", "eth0", "up")
            self.nodes.append(made)
        # All namespaces share one limit of neighbours (gc_thresh3, 1024), which permanent ones do not count for.
        lines = [f"neigh add {address(n)} lladdr {hardware(n)} dev eth0 nud permanent" for n in range(nodes)]
        for number, made in enumerate(self.nodes):
            others = lines[:number] + lines[number + 1 :]
            made.run("ip", "-batch", "-", text="\n".join(others) + "\n")
        self.before = [prefixes_in(made) for made in self.nodes]
        """The fabric's own."""


class Processes:
    """What a contestant runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, namespace: Namespace, *argv: str, **environment: str) -> int:
        def prepare() -> None:
            _setns(namespace.fd)
            die_with_parent()

        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log, preexec_fn=prepare
            )
        self._running.append(process)
        return process.pid

    def check(self) -> None:
        for process in self._running:
            if process.poll() is not None:
                raise SystemExit(f"{process.args} ended with {process.returncode}, see {self.directory}")

    @property
    def cpu_s(self) -> float:
        return sum(cpu_s(process.pid) for process in self._running)

    @property
    def megabytes(self) -> float:
        total = 0
        for process in self._running:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total / 1000

    def stop(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def prefixes_in(namespace: Namespace) -> int:
    """Prefixes in the kernel's IPv4 trie, by its own count: it costs the same however many there are."""
    with namespace.inside():
        text = Path("/proc/thread-self/net/fib_triestat").read_text()
    return int(text.partition("Prefixes:")[2].split(None, 1)[0])


def until_all(fabric: Fabric, processes: Processes, wanted: Callable[[int], int], *, what: str) -> float:
    """When the last kernel has its routes (monotonic)."""
    deadline = time.monotonic() + READY_S
    for number, namespace in enumerate(fabric.nodes):
        while (found := prefixes_in(namespace) - fabric.before[number]) != wanted(number):
            processes.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: {name_of(number)} has {found} routes of {wanted(number)}")
            time.sleep(POLL_S)
    return time.monotonic()


class Contestant:
    """`announce(n)`: the first n routes are told, and no more; when that began (monotonic)."""

    def __init__(self, fabric: Fabric, directory: Path, nodes: int) -> None:
        self.fabric, self.directory, self.nodes = fabric, directory, nodes
        self.processes = Processes(directory)
        self.told = 0

    def up(self) -> None:
        raise NotImplementedError

    def announce(self, number: int) -> float:
        raise NotImplementedError

    def wanted(self, node_number: int) -> int:
        """Every route, a node's own as blackholes."""
        return self.told

    def measure(self, number: int) -> float:
        """Seconds until the last kernel has all `number` routes."""
        began = self.announce(number)
        self.told = number
        return until_all(self.fabric, self.processes, self.wanted, what=type(self).__name__) - began


def cidr_of(number: int) -> str:
    return str(ip_network((FIRST + number * 64, 26)))


class Agents(Contestant):
    def up(self) -> None:
        configuration = self.directory / "nats.conf"
        configuration.write_text(
            f'host: "{HUB}"\nport: {PORT}\nmax_payload: 8388608\njetstream {{ store_dir: "{self.directory}/store" }}\n'
        )
        url = f"nats://{HUB}:{PORT}"
        self.processes.start("nats", self.fabric.hub, str(binary()), "--config", str(configuration))
        common = {"TORTIE_NATS_URL": url, "TORTIE_LOG_LEVEL": "warning"}
        self.write([pool("pool", "10.128.0.0/9"), *(self.node(n) for n in range(self.nodes))])
        self.processes.start(
            "service", self.fabric.hub, sys.executable, "-c", SERVICE, **common, TORTIE_HEALTH_LISTEN=""
        )
        for number, namespace in enumerate(self.fabric.nodes):
            own = self.directory / name_of(number)
            own.mkdir()
            self.processes.start(
                name_of(number),
                namespace,
                *(sys.executable, "-m", "tortie", "serve", "node-dataplane"),
                **common,
                TORTIE_INSTANCE=name_of(number),
                TORTIE_STATE_DIR=str(own),
                TORTIE_CNI_SOCKET=str(own / "cni.sock"),
                TORTIE_HEALTH_LISTEN=f"unix:{own / 'health.sock'}",
                TORTIE_WARM_ADDRESSES="0",
            )

    def node(self, number: int) -> Fact:
        return node(name_of(number), f"{address(number)}/16")

    def announce(self, number: int) -> float:
        numbers = range(self.told, number) if number > self.told else range(number, self.told)
        owners = {n: name_of(n % self.nodes) for n in numbers}
        facts = [block(cidr_of(n), owner, pool="pool") for n, owner in owners.items()]
        if number < self.told:
            facts = [fact._replace(value=None) for fact in facts]
        return self.write(facts)

    def write(self, facts: Sequence[Fact]) -> float:
        """To the bus, inside the hub; when the connected writer began."""

        async def tell() -> float:
            settings = ServiceSettings(nats_url=f"nats://{HUB}:{PORT}", health_listen="")
            async with Bus.connect(settings, name="bench", health=Health()) as bus:
                await bus.connected()
                began = time.monotonic()
                await write(bus, facts)
                return began

        with self.fabric.hub.inside():
            return asyncio.run(tell())


class Birds(Contestant):
    """In a full mesh."""

    def neighbours(self, number: int) -> list[int]:
        return [other for other in range(self.nodes) if other != number]

    options = ""

    def up(self) -> None:
        for number, namespace in enumerate(self.fabric.nodes):
            path = self.path(number)
            path.mkdir()
            self.configure(number, 0)
            bird = shutil.which("bird") or "/usr/sbin/bird"
            argv = (bird, "-f", "-c", str(path / "bird.conf"), "-s", str(path / "ctl"))
            self.processes.start(name_of(number), namespace, *argv)

    def path(self, number: int) -> Path:
        return self.directory / name_of(number)

    def configure(self, number: int, routes: int) -> None:
        lines = [f"router id {address(number)};", "protocol device { }"]
        lines.append("protocol kernel { ipv4 { import none; export all; }; }")
        own = [f"route {cidr_of(n)} blackhole;" for n in range(routes) if n % self.nodes == number]
        lines.append("protocol static own { ipv4; " + " ".join(own) + " }")
        for other in self.neighbours(number):
            passive = "passive on; " if number > other else ""
            lines.append(
                f"protocol bgp n{other} {{ local {address(number)} as 64512; neighbor {address(other)} as 64512; "
                f"direct; error wait time 1, 3; connect delay time 1; connect retry time 2; "
                f"{passive}{self.reflects(number)}"
                f"ipv4 {{ import all; export all; }}; }}"
            )
        (self.path(number) / "bird.conf").write_text("\n".join(lines) + "\n")

    def reflects(self, number: int) -> str:
        return ""

    def announce(self, number: int) -> float:
        changed = {n % self.nodes for n in range(min(number, self.told), max(number, self.told))}
        for each in changed:
            self.configure(each, number)
        began = time.monotonic()
        running = [
            subprocess.Popen(["birdc", "-s", str(self.path(each) / "ctl"), "configure"], stdout=subprocess.DEVNULL)
            for each in sorted(changed)
        ]
        for process in running:
            if process.wait():
                raise SystemExit("birdc configure failed")
        return began


class Reflected(Birds):
    """Behind a route reflector, which is one of the nodes."""

    def neighbours(self, number: int) -> list[int]:
        return list(range(1, self.nodes)) if number == 0 else [0]

    def reflects(self, number: int) -> str:
        return "rr client; " if number == 0 else ""


CONTESTANTS: dict[str, type[Contestant]] = {"agents": Agents, "mesh": Birds, "reflector": Reflected}


@contextmanager
def up(kind: type[Contestant], nodes: int) -> Iterator[Contestant]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = kind(Fabric(stack, nodes), directory, nodes)
        stack.callback(made.processes.stop)
        made.up()
        yield made


def run(arguments: argparse.Namespace) -> None:
    taken: dict[str, dict[str, list[float]]] = {}
    for number in range(arguments.rounds):
        for name in arguments.only:
            began = time.monotonic()
            with up(CONTESTANTS[name], arguments.nodes) as contestant:
                if isinstance(contestant, Birds):
                    time.sleep(1)  # the control sockets
                ready = contestant.measure(arguments.nodes)
                before = contestant.processes.cpu_s
                all_of_them = contestant.measure(arguments.routes)
                spent = contestant.processes.cpu_s - before
                one = [contestant.measure(arguments.routes + n + 1) * 1e3 for n in range(SINGLES)]
                figures = taken.setdefault(name, {})
                for what, values in (
                    ("all", [all_of_them]),
                    ("one", one),
                    ("cpu", [spent]),
                    ("memory", [contestant.processes.megabytes]),
                    ("ready", [ready]),
                ):
                    figures.setdefault(what, []).extend(values)
            print(
                f"  round {number + 1} {name}: up {ready:.1f} s, {arguments.routes} routes {all_of_them:.2f} s, "
                f"one {p50(one):.0f} ms, CPU {spent:.1f} s; {time.monotonic() - began:.0f} s in all",
                file=sys.stderr,
                flush=True,
            )
    first = p50(taken[arguments.only[0]]["all"])
    show(
        f"{arguments.nodes} nodes, {arguments.routes} routes: from announced to the last route in the last kernel",
        [
            {
                "who": name,
                "all, s": round(p50(figures["all"]), 2),
                "min": round(min(figures["all"]), 2),
                "ratio": f"{p50(figures['all']) / first:.1f}x",
                "one, p50 ms": round(p50(figures["one"])),
                "one, max ms": round(max(figures["one"])),
                "CPU s": round(p50(figures["cpu"]), 1),
                "memory MB": round(p50(figures["memory"])),
                "rounds": len(figures["all"]),
            }
            for name, figures in taken.items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--routes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    raise_limits()
    logs.configure("auto", "error")
    print(f"machine: {machine()}")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
