"""The SCTP packets of the lab."""

from __future__ import annotations

import pytest

from tortie.lab import sctp

ASKED = sctp.Init(source=40000, destination=80, tag=0x01020304)


def test_checksum_is_crc32c() -> None:
    """RFC 3720, appendix B.4, gives the CRC-32C of 32 bytes of zero."""
    assert sctp._checksum(bytes(32)) == bytes.fromhex("aa36918a")


def test_an_init_is_answered_with_a_cookie() -> None:
    assert sctp.read(sctp.init(ASKED)) == ASKED
    answer = sctp.read(sctp.init_ack(ASKED, b"x/a on 10.0.0.1"))
    assert answer == sctp.InitAck(source=80, destination=40000, tag=ASKED.tag, cookie=b"x/a on 10.0.0.1")


def test_an_init_is_aborted() -> None:
    assert sctp.read(sctp.abort(ASKED)) == sctp.Abort(source=80, destination=40000, tag=ASKED.tag)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_chunks_are_padded_to_words(length: int) -> None:
    packet = sctp.init_ack(ASKED, b"?" * length)
    assert len(packet) % 4 == 0
    answer = sctp.read(packet)
    assert isinstance(answer, sctp.InitAck)
    assert answer.cookie == b"?" * length


def test_what_is_broken_is_nothing() -> None:
    packet = sctp.init(ASKED)
    assert sctp.read(packet[:-1]) is None
    assert sctp.read(packet[:10]) is None
    assert sctp.read(packet[:-1] + b"\xff") is None
    assert sctp.read(b"") is None
