"""The plugin `host-local` of the CNI project, as Debian packages it: a process and a file for each address.

What it is compared in is the price of one address on one node, and nothing else: it knows only its own directory. Each
node must have been given a range of its own beforehand, which nobody else may use; there is no borrowing, no moving of
a block, no word to anybody about who holds what, and what a node forgets is lost until somebody looks into its files.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from pathlib import Path

PLUGIN = Path("/usr/lib/cni/host-local")


class Ran:
    """Milliseconds of each ADD, and of all; processor seconds."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.addresses: set[str] = set()
        self.took_s = 0.0
        self.cpu_s = 0.0


async def run(directory: Path, nodes: int, each: int, *, at_once: int) -> Ran:
    """`each` ADDs on every node; `at_once` at a time, for one machine stands for all of the nodes."""
    result = Ran()
    turn = asyncio.Semaphore(at_once)

    async def add(node: int, number: int) -> None:
        configuration = {
            "cniVersion": "1.0.0",
            "name": f"node-{node}",
            "type": "host-local",
            "ipam": {
                "type": "host-local",
                "dataDir": str(directory),
                "ranges": [[{"subnet": f"10.{node >> 8}.{node & 255}.0/24"}]],
            },
        }
        environment = os.environ | {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": f"c-{node}-{number}",
            "CNI_NETNS": "/dev/null",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGIN.parent),
        }
        began = time.perf_counter()
        async with turn:
            process = await asyncio.create_subprocess_exec(
                str(PLUGIN), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
            )
            out, _ = await process.communicate(json.dumps(configuration).encode())
        assert process.returncode == 0, out
        result.latencies_s.append(time.perf_counter() - began)
        result.addresses.add(json.loads(out)["ips"][0]["address"])

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    await asyncio.gather(*(add(node, number) for node in range(nodes) for number in range(each)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result.took_s = time.perf_counter() - began
    result.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result
