"""Addresses, ports and types out of the first bytes of packets, whole, cut off or strange."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.node_dataplane.packet_header import ICMP, ICMPV6, SCTP, TCP, UDP, Header, read

A4, B4 = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
A6, B6 = bytes(15) + b"\x01", bytes(15) + b"\x02"
PORTS = (40000).to_bytes(2, "big") + (80).to_bytes(2, "big")


def ipv4(protocol: int, rest: bytes, *, options: bytes = b"", offset: int = 0) -> bytes:
    head = bytes((0x45 + len(options) // 4, 0, 0, 0, 0, 0, offset >> 8, offset & 255, 64, protocol, 0, 0))
    return head + A4 + B4 + options + rest


def ipv6(next_: int, rest: bytes) -> bytes:
    return bytes((0x60, 0, 0, 0, 0, 0, next_, 64)) + A6 + B6 + rest


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_ports(protocol: int) -> None:
    assert read(ipv4(protocol, PORTS)) == Header(A4, B4, protocol, 40000, 80)
    assert read(ipv6(protocol, PORTS)) == Header(A6, B6, protocol, 40000, 80)


def test_icmp() -> None:
    assert read(ipv4(ICMP, bytes((8, 0)))) == Header(A4, B4, ICMP, icmp_type=8, icmp_code=0)
    assert read(ipv6(ICMPV6, bytes((128, 3)))) == Header(A6, B6, ICMPV6, icmp_type=128, icmp_code=3)


def test_options_are_skipped() -> None:
    assert read(ipv4(TCP, PORTS, options=bytes(8))) == Header(A4, B4, TCP, 40000, 80)


def test_later_fragments_have_no_ports() -> None:
    assert read(ipv4(UDP, PORTS, offset=3)) == Header(A4, B4, UDP)
    assert read(ipv4(UDP, PORTS, offset=0x2000)) == Header(A4, B4, UDP, 40000, 80)
    assert read(ipv6(44, bytes((UDP, 0, 0, 8, 0, 0, 0, 1)) + PORTS)) == Header(A6, B6, UDP)
    assert read(ipv6(44, bytes((UDP, 0, 0, 1, 0, 0, 0, 1)) + PORTS)) == Header(A6, B6, UDP, 40000, 80)


def test_extension_headers_are_skipped() -> None:
    hop, routing, authentication = bytes((43, 0)) + bytes(6), bytes((51, 1)) + bytes(14), bytes((TCP, 1)) + bytes(10)
    assert read(ipv6(0, hop + routing + authentication + PORTS)) == Header(A6, B6, TCP, 40000, 80)


def test_a_chain_of_extension_headers_ends_somewhere() -> None:
    assert read(ipv6(0, (bytes((0, 0)) + bytes(6)) * 20)) == Header(A6, B6, 0)


@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x10" + bytes(60)])
def test_what_is_no_packet(packet: bytes) -> None:
    assert read(packet) is None


@given(st.binary(max_size=140))
def test_nothing_on_the_wire_can_break_it(packet: bytes) -> None:
    read(packet)
