"""Builders for the lab's tests: frames, scenario files, labs with a name of their own."""

from __future__ import annotations

import ipaddress
import itertools
import os
import struct
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_numbers = itertools.count()

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 10.244.0.0/16, blockSize: 26, natOutgoing: true}
"""


def scenario_directory() -> Path:
    """`TORTIE_SCENARIOS`, or `shared/scenarios` beside the repository."""
    return Path(os.environ.get("TORTIE_SCENARIOS") or _REPOSITORY.parent / "shared" / "scenarios")


def scenario_files() -> list[Path]:
    directory = scenario_directory()
    return sorted(directory.glob("*.yaml")) if directory.is_dir() else []


def lab_name() -> str:
    """Of this process, and new."""
    return f"t{os.getpid()}x{next(_numbers)}"


def ethernet(packet: bytes, kind: int = 0x0800) -> bytes:
    return bytes(12) + struct.pack("!H", kind) + packet


def ipv4(source: str, destination: str, protocol: int, payload: bytes = b"") -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head + ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes = b"") -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return head + ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + payload


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 54321, port, 8 + len(payload), 0) + payload


def vxlan(port: int, frame: bytes, vni: int = 1) -> bytes:
    """A UDP payload and header that carry the frame."""
    head = struct.pack("!HHHH", 54321, port, 16 + len(frame), 0)
    return head + struct.pack("!II", 0x08 << 24, vni << 8) + frame
