"""A short sample of the soak, which `make soak` runs for ten minutes (DURATION=seconds, SOAK_SEED=n,
SOAK_FAULT_S=about so often something breaks)."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.support.ipam_soak import Soak
from tests.support.ipam_world import ipam_world

SAMPLE_S = 12.0
SETTINGS = {
    "leak_grace_s": "3",
    "collect_interval_s": "1",
    "ip_cooldown_s": "1",
    "recovery_settle_s": "6",
    "log_level": "warning",
}


async def test_pods_come_and_go_while_everything_fails(tmp_path: Path) -> None:
    long = float(os.environ.get("SOAK_S", "0"))
    seed = os.environ.get("SOAK_SEED", "" if long else "a sample") or str(random.getrandbits(32))
    nodes, replicas = (20, 3) if long else (6, 2)
    fault_s = float(os.environ.get("SOAK_FAULT_S", "8" if long else "2.5"))
    print(f"seed {seed}, {nodes} nodes, {replicas} replicas, {long or SAMPLE_S:g} s")
    async with ipam_world(tmp_path, replicas=replicas, **SETTINGS) as world:
        soak = Soak(world, random.Random(seed), nodes=nodes, replicas=replicas, fault_s=fault_s)
        try:
            await soak.run(long or SAMPLE_S)
        finally:
            print(", ".join(f"{what} {n}" for what, n in sorted(soak.counts.items())))
        assert soak.counts["added"] > 0
