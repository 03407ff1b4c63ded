"""What every process of a small cluster weighs: a lab of three nodes and ten pods, at rest.

    python -m benchmarks.memory

RSS counts shared pages in every process; PSS (proportional set size, from smaps_rollup) counts them
once, so only PSS may be added up. Beside them, on the same machine: the bare interpreter, and the interpreter with
asyncio and uvloop, with msgspec, and with the bus client imported; nothing of Python can be smaller. Needs root.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Row, show
from benchmarks.lab_cluster import POOL, cluster

NODES = 3
PODS = 10
SETTLE_S = 3.0
DOCUMENT = (
    "name: memory\nnodes:\n"
    + "".join(f"  n{n}: {{address: 10.0.0.{10 + n}/24}}\n" for n in range(1, NODES + 1))
    + f"resources: |{POOL}"
    + """  ---
  apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: from-friends, namespace: bench}
  spec:
    podSelector: {matchLabels: {app: a0}}
    ingress: [{from: [{podSelector: {matchLabels: {app: a1}}}]}]
namespaces: {bench: {}}
pods:
"""
    + "".join(f"  bench/p{n}: {{node: n{n % NODES + 1}, labels: {{app: a{n % 2}}}}}\n" for n in range(PODS))
)
FLOORS = {
    "python, bare": "",
    "python, asyncio and uvloop": "import asyncio, uvloop",
    "python, the same and msgspec, nats": "import asyncio, uvloop, msgspec, nats",
}


def weight(pid: int) -> dict[str, object]:
    """Megabytes (10^6 bytes) of one process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    megabytes = {"RSS MB": kilobytes["Rss"], "PSS MB": kilobytes["Pss"], "private MB": private}
    return {name: round(value * 1024 / 1e6, 1) for name, value in megabytes.items()}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def floor(imports: str) -> Row:
    program = f"import sys\n{imports}\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return weight(process.pid)


async def run() -> None:
    async with cluster(DOCUMENT) as lab:
        await asyncio.sleep(SETTLE_S)
        rows: list[dict[str, object]] = []
        for name, process in sorted(lab.processes.items()):
            rows.append({"process": name, **weight(process.pid)})
            rows += [{"process": f"{name}: the server itself", **weight(child)} for child in children(process.pid)]
        whole = sum(float(str(row["PSS MB"])) for row in rows)
        rows.append({"process": "all of them", "PSS MB": round(whole, 1)})
        rows += [{"process": name, **await asyncio.to_thread(floor, imports)} for name, imports in FLOORS.items()]
    show(f"Memory of a lab of {NODES} nodes and {PODS} pods, at rest", rows)


if __name__ == "__main__":
    asyncio.run(run())
