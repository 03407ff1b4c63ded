"""When the tunnel's checksums are not left to the hardware, and what that rests on."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_dataplane.checksums import Mode, Trial, decide, overridden
from services.node_dataplane.tunnelled_checksum import filled, ones, outer_checksum, outer_is_right

RIGHT, WRONG, NOT_TRIED = Trial(False, "right"), Trial(True, "wrong"), Trial(None, "no namespaces")


@pytest.mark.parametrize(
    ("mode", "broken", "release", "driver", "trial", "off", "evidence"),
    [
        ("auto", None, "6.1.0-18-amd64", "virtio_net", RIGHT, False, "measured"),
        ("auto", None, "6.1.0-18-amd64", "virtio_net", None, False, "presumed"),
        ("auto", None, "6.1.0-18-amd64", "virtio_net", WRONG, True, "measured"),
        ("auto", None, "5.4.0-150-generic", "virtio_net", None, True, "presumed"),
        ("auto", None, "5.4.0-150-generic", "virtio_net", NOT_TRIED, True, "presumed"),
        ("auto", None, "5.4.0-150-generic", "virtio_net", RIGHT, False, "measured"),
        ("auto", None, "unreadable", "ixgbe", None, True, "presumed"),
        ("auto", None, "5.15.0", "vmxnet3", RIGHT, True, "presumed"),
        ("auto", False, "4.18.0", "vmxnet3", WRONG, False, "set"),
        ("auto", True, "6.1.0", "virtio_net", RIGHT, True, "set"),
        ("on", True, "4.18.0", "vmxnet3", WRONG, False, "set"),
        ("off", False, "6.1.0", "virtio_net", RIGHT, True, "set"),
    ],
)
def test_off_where_it_is_wrong(
    mode: Mode, broken: bool | None, release: str, driver: str, trial: Trial | None, off: bool, evidence: str
) -> None:
    decision = decide(mode, broken, release, [driver], trial)
    assert (decision.off, decision.evidence) == (off, evidence)
    assert decision.reason


def test_the_driver_below_a_bond_counts() -> None:
    assert decide("auto", None, "6.1.0", ["bonding", "vmxnet3"], RIGHT).off


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ChecksumOffloadBroken=true", True),
        ("SNATFullyRandom=true, ChecksumOffloadBroken=false", False),
        ("SNATFullyRandom=true", None),
        ("ChecksumOffloadBroken=", None),
        ("", None),
        (None, None),
    ],
)
def test_what_felix_is_told(text: str | None, said: bool | None) -> None:
    assert overridden(text) is said


def datagram(source: str, destination: str, payload: bytes, checksum: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0)
    addresses = ip_address(source).packed + ip_address(destination).packed
    return head + addresses + struct.pack("!HHHH", 1234, 4789, 8 + len(payload), checksum) + payload


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(1, 0xFFFF))
def test_a_checksum_is_right_whether_or_not_the_inner_one_is_there(payload: bytes, wrong: int) -> None:
    inner = datagram("198.51.100.1", "198.51.100.2", payload, 0x5498)
    whole = bytes(8 + 14) + filled(inner)
    outer = filled(datagram("192.0.2.1", "192.0.2.2", whole))
    assert ones(outer[12:20] + struct.pack("!BBH", 0, 17, len(outer) - 20) + outer[20:]) == 0xFFFF
    assert outer_is_right(outer)
    left_to_device = outer[: -len(inner)] + inner
    assert outer_is_right(left_to_device)
    assert outer_is_right(outer[:26] + b"\0\0" + outer[28:]), "none at all"
    if wrong != outer_checksum(outer):
        assert not outer_is_right(outer[:26] + struct.pack("!H", wrong) + outer[28:])
