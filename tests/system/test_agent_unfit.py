"""On a machine where it cannot work the agent says so in one sentence, and ends."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

PR_CAPBSET_DROP = 24
CAP_NET_ADMIN = 12


def without_net_admin() -> None:
    """What is executed next has no CAP_NET_ADMIN, root or not (capabilities(7))."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0)


@pytest.mark.root
def test_without_the_right_to_configure_the_network(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "TORTIE_NATS_URL": "nats://127.0.0.1:9",
        "TORTIE_HEALTH_LISTEN": "",
        "TORTIE_STATE_DIR": str(tmp_path / "state"),
        "TORTIE_CNI_SOCKET": str(tmp_path / "cni.sock"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tortie", "serve", "node-dataplane"],
        env=environment,
        cwd=Path(__file__).parents[2],
        preexec_fn=without_net_admin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("tortie node_dataplane:")]
    assert len(said) == 1
    assert "needs root (CAP_NET_ADMIN)" in said[0]
    assert "Traceback" not in done.stderr
