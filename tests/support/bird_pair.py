"""BIRDs in namespaces: the driver under test, and configurations that are small enough to read."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.node_dataplane.bird.driver import BirdDriver
from services.node_dataplane.bird.process import BirdProcess
from tests.support.netns import Namespace

needs_bird = pytest.mark.skipif(
    shutil.which("bird", path="/usr/sbin:/usr/bin:/sbin") is None, reason="needs BIRD: apt-get install bird2"
)


def configuration(
    own: str, block: str, *sessions: str, asn: int = 64512, extra: str = "", log: str = "/dev/null"
) -> str:
    """A speaker at `own` that announces `block`."""
    return f"""
log "{log}" all;
router id {own};
timeformat protocol iso long;
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; }}
protocol kernel {{
  ipv4 {{ import none; export where source = RTS_BGP; }};
  persist;
  graceful restart;
}}
protocol static {{ ipv4; route {block} blackhole; }}
{extra}
{"".join(sessions)}
"""


def session(
    own: str, peer: str, *, asn: int = 64512, peer_asn: int = 64512, extra: str = "", kind: str = "Node"
) -> str:
    return f"""
protocol bgp {kind}_{peer.replace(".", "_")} {{
  local {own} as {asn};
  neighbor {peer} as {peer_asn};
  connect delay time 0; connect retry time 1; error wait time 1, 2;
  graceful restart;
  {extra}
  ipv4 {{ import all; export where source ~ [ RTS_STATIC, RTS_BGP ]; next hop self; }};
}}
"""


@contextmanager
def directory() -> Iterator[Path]:
    """Short enough for a socket's path; a BIRD that runs in it is ended."""
    path = Path(tempfile.mkdtemp(prefix="tbird"))
    try:
        yield path
    finally:
        for found in path.rglob("bird.pid"):
            BirdProcess(found.parent).kill()
        shutil.rmtree(path, ignore_errors=True)


def routes(namespace: Namespace, protocol: str = "bird") -> dict[str, dict[str, Any]]:
    """Destination -> the kernel's route."""
    found = json.loads(namespace.ip("-j", "route", "show", "proto", protocol) or "[]")
    return {row["dst"]: row for row in found}


def driver(path: Path, namespace: Namespace) -> BirdDriver:
    return BirdDriver(path, has_routes=lambda: bool(routes(namespace)))
