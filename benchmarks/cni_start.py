"""What it costs to start the plugin: a runtime runs one process for every verb of every plugin in the list.

    python -m benchmarks.cni_start [--rounds 60]

From fork to the end of the process, its answer read, in turn with its peers in each round:

    VERSION   no network, no agent: the process alone
    ADD       as far as an agent that answers at once (ours); the whole verb of a plugin that has next to nothing to do
              (Debian's `loopback`, in a network namespace of its own), and of `ptp` with host-local
    floor     /bin/true, and interpreters that run nothing
    request   from fork until the whole request is at the agent

`tortie` is the plugin in Python as `tortie cni install` writes it, `tortie, static` the front end in C. Needs root for
the ADDs and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, p50, show, spread
from bus_schemas.ids import PodKey
from tests.support.agent import cni_env
from tests.support.netns import namespaces
from tortie.cni import install, plugin

PEERS = Path("/usr/lib/cni")
ANSWER = (
    b'{"exit":0,"stdout":"{\\"cniVersion\\":\\"1.0.0\\",\\"interfaces\\":[],'
    b'\\"ips\\":[{\\"address\\":\\"10.244.0.2/32\\"}],\\"routes\\":[],\\"dns\\":{}}"}'
)

Start = Callable[[], None]


BUILD = Path(__file__).parents[1] / "scripts" / "build-cni-front"


@contextmanager
def agent(path: str, arrived: list[float] | None = None) -> Iterator[None]:
    """Answers every connection at once; it parses nothing, so that what is measured is the plugin. `arrived`: when each
    request was there, whole."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                asked = b""
                while part := connection.recv(65536):
                    asked += part
                if not asked:
                    return
                if arrived is not None:
                    arrived.append(time.perf_counter())
                connection.sendall(ANSWER)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(path)
        thread.join()
        server.close()
        os.unlink(path)


def start(
    command: tuple[str | Path, ...], env: dict[str, str] | None = None, conf: dict[str, Any] | None = None
) -> Start:
    text = json.dumps(conf or {}).encode()

    def once() -> None:
        done = subprocess.run(command, input=text, env=env or {}, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise SystemExit(f"{command[0]}: {done.stdout.decode()}")

    return once


Sample = tuple[float, float]
"""Milliseconds from start to end, and of processor time, descendants included."""


def measure(starts: dict[str, Start], rounds: int, after: Callable[[], None]) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in starts}
    for _ in range(rounds + 2):
        for name, once in starts.items():
            begun, used = time.perf_counter(), processor()
            once()
            samples[name].append(((time.perf_counter() - begun) * 1000, (processor() - used) * 1000))
        after()
    return {name: values[2:] for name, values in samples.items()}


def processor() -> float:
    """Seconds that children took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(title: str, samples: dict[str, list[Sample]], reference: str) -> None:
    base_wall, base_cpu = (p50(column) for column in zip(*samples[reference], strict=True))
    rows = []
    for name, values in samples.items():
        walls, cpus = (list(column) for column in zip(*values, strict=True))
        row = {"what": name, "least ms": round(min(walls), 2), **spread(walls), "CPU ms": round(p50(cpus), 2)}
        ratio = f"{p50(walls) / base_wall:.1f}x, CPU {p50(cpus) / base_cpu:.1f}x"
        rows.append(row | {f"of {reference}": ratio})
    show(title, rows)


def run(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory, namespaces(2) as (node, pod), node.inside():
        ours = install.install_plugin(Path(directory) / "bin")
        static = Path(directory) / "front" / "tortie"
        subprocess.run([BUILD, static], check=True)
        path = str(Path(directory) / "agent.sock")
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        conf = {"cniVersion": "1.0.0", "name": "net", "type": "tortie", "socket": path}
        peers = [
            name
            for name in ("loopback", "bridge", "ptp", "host-local", "portmap", "bandwidth")
            if (PEERS / name).exists()
        ]
        version = {"CNI_COMMAND": "VERSION"}
        starts = {
            "/bin/true": start(("/bin/true",)),
            "python3 -IS, nothing": start((python, "-IS", "-c", "")),
            "python3, nothing": start((python, "-c", "")),
            "tortie": start((ours,), version, {"cniVersion": "1.0.0"}),
            "tortie, static": start((static,), version, {"cniVersion": "1.0.0"}),
            "tortie.py, not installed": start((python, "-IS", plugin.__file__), version, {"cniVersion": "1.0.0"}),
            **{name: start((PEERS / name,), version, {"cniVersion": "1.0.0"}) for name in peers},
        }
        table("VERSION", measure(starts, rounds, lambda: None), "bridge" if peers else "/bin/true")
        with agent(path):
            env = cni_env("ADD", "c1", pod.path, PodKey("shop", "web"))
            adds = {
                "tortie, to an agent that answers at once": start((ours,), env, conf),
                "tortie, static, to the same": start((static,), env, conf),
            }
            clean: Callable[[], None] = lambda: None  # noqa: E731
            if peers:
                env = env | {"CNI_PATH": str(PEERS), "PATH": os.environ["PATH"]}
                adds["loopback"] = start(
                    (PEERS / "loopback",), env, {"cniVersion": "1.0.0", "name": "l", "type": "loopback"}
                )
                ipam = {"type": "host-local", "subnet": "10.250.0.0/16", "dataDir": f"{directory}/host-local"}
                ptp = {"cniVersion": "1.0.0", "name": "p", "type": "ptp", "ipam": ipam}
                adds["ptp + host-local"] = start((PEERS / "ptp",), env, ptp)
                clean = start((PEERS / "ptp",), env | {"CNI_COMMAND": "DEL"}, ptp)
            table("ADD", measure(adds, rounds, clean), next(reversed(adds)))
        arrived: list[float] = []
        env = cni_env("ADD", "c1", pod.path, PodKey("shop", "web"))
        fronts = {"tortie": ours, "tortie, static": static}
        sent: dict[str, list[float]] = {name: [] for name in fronts}
        with agent(path, arrived):
            for _ in range(rounds):
                for name, front in fronts.items():
                    begun = time.perf_counter()
                    start((front,), env, conf)()
                    sent[name].append((arrived[-1] - begun) * 1000)
        base = p50(sent["tortie"])
        rows = [
            {
                "what": name,
                "least ms": round(min(values), 2),
                **spread(values),
                "of tortie": f"{p50(values) / base:.2f}x",
            }
            for name, values in sent.items()
        ]
        show("request", rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("cni_start: network namespaces need root", file=sys.stderr)
        return 2
    print(machine())
    run(arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
