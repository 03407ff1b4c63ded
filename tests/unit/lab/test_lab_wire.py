from __future__ import annotations

import pytest

from tests.support.lab import ethernet, ipv4, ipv6, udp, vxlan
from tortie.lab import probes, wire

A, B = "10.244.1.5", "10.244.2.6"
PLAIN = ipv4(A, B, 1, b"ping")
BACK = ipv4(B, A, 1, b"pong")


@pytest.mark.parametrize(
    ("frame", "form"),
    [
        (ethernet(PLAIN), "plain"),
        (ethernet(BACK), "plain"),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 4, PLAIN)), "ipip"),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, vxlan(8472, ethernet(BACK)))), "vxlan/8472"),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, vxlan(4789, ethernet(PLAIN)))), "vxlan/4789"),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(51820, b"\x04" + bytes(63)))), "wireguard/51820"),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(51820, b"\x04" + bytes(31)))), None),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(51820, b"\x01" + bytes(147)))), None),
        (ethernet(ipv4(A, "10.0.0.2", 1)), None),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, b"\0" * 8 + PLAIN)), None),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 4, b"short")), None),
        (ethernet(b"\0" * 28, kind=0x0806), None),
        (b"", None),
    ],
)
def test_the_form_of_a_frame(frame: bytes, form: str | None) -> None:
    assert wire.classify(frame, A, B) == form


def test_ipv6_bare_and_in_a_tunnel() -> None:
    packet = ipv6("2001:db8::1", "2001:db8::2", 58)
    carried = ipv4("10.0.0.1", "10.0.0.2", 17, vxlan(4789, ethernet(packet, kind=0x86DD)))
    assert wire.classify(ethernet(packet, kind=0x86DD), "2001:db8::2", "2001:db8::1") == "plain"
    assert wire.classify(ethernet(carried), "2001:db8::1", "2001:db8::2") == "vxlan/4789"


@pytest.mark.parametrize(
    ("data", "checksum"), [(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7", 0x220D), (b"\xff\xff", 0), (b"\x01", 0xFEFF)]
)
def test_the_internet_checksum(data: bytes, checksum: int) -> None:
    """The first row is the example of RFC 1071, section 3."""
    assert probes.checksum(data) == checksum
