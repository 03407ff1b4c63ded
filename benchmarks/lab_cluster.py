"""A lab for a benchmark: a whole cluster in network namespaces, taken down whatever happens."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tortie.lab import ownership, scenario
from tortie.lab.cluster import Cluster

POOL = """
  apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: default-ipv4-ippool}
  spec: {cidr: 10.244.0.0/16, blockSize: 26, vxlanMode: CrossSubnet, natOutgoing: true}
"""


@asynccontextmanager
async def cluster(document: str) -> AsyncIterator[Cluster]:
    """`document` is a scenario without steps."""
    what = scenario.read(document, "benchmark")
    with ownership.owned(f"bench{os.getpid()}") as directory:
        made = Cluster(f"bench{os.getpid()}", what.nodes, directory)
        try:
            await made.up(what.resources, what.namespaces, what.pods, lambda _: None)
            yield made
        finally:
            await made.down()
