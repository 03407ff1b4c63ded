"""Every benchmark, one after another: what `make benchmarks` runs, and what benchmarks/RESULTS.md is written from.

    python benchmarks/all.py [NAME ...]

Each is a process of its own with a time limit; what it prints is shown as it comes. One that fails does not stop the
others, but the exit code tells of it. Most need root and network namespaces; about ten minutes in all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.figures import machine  # noqa: E402 - found only now

LIMIT_S = 180
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "cni_add": (),
    "cni_start": (),
    "propagation": (),
    "member": (),
    "connections": ("--rounds", "150"),
    "services": ("--rounds", "30", "--sizes", "1", "1000"),
    "node_price": (),
    "memory": (),
    "atomic_batch": (),
    "ipam": (),
    "ipam_storm": ("--nodes", "200"),
    "bus": (),
    "hits": (),
    "kube_bridge": ("--pods", "10000", "--seconds", "5"),
    "cutting": (),
    "nft_member": ("--repeat", "200"),
    "route_arrival": (),
    "route_distribution_scale": ("--nodes", "1000", "--blocks", "4000", "--mode", "packed", "plain"),
    "route_convergence": ("--nodes", "10", "--routes", "1000", "--rounds", "1"),
    "policy_compile": (),
    "policy_compile_service": ("--shards", "1", "2"),
    "policy_compile_worst": (),
    "route_repair": ("--routes", "200", "--rounds", "10"),
}
"""Module -> arguments."""


def run(name: str) -> str:
    """What went wrong; empty: nothing."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name]]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TORTIE_LOG_LEVEL": "warning"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"not done within {LIMIT_S} s"
    return f"exit code {done.returncode}" if done.returncode else ""


def main(names: list[str]) -> int:
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        print(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    chosen = names or list(BENCHMARKS)
    failures = []
    print(f"machine: {machine()}")
    for number, name in enumerate(chosen, 1):
        print(f"\n== {number}/{len(chosen)} {name} {' '.join(BENCHMARKS[name])}", flush=True)
        began = time.monotonic()
        failure = run(name)
        print(f"== {name}: {failure or 'done'} after {time.monotonic() - began:.0f} s", flush=True)
        if failure:
            failures.append(f"{name}: {failure}")
    if failures:
        print("\n" + "\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
