"""Addresses as groups hold them, read faster than by `ipaddress` and as strictly."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy_compiler.members import packed


def slowly(text: str) -> bytes | None:
    try:
        return IPv6Address(text).packed if ":" in text else IPv4Address(text).packed
    except AddressValueError:
        return None


@given(st.ip_addresses())
def test_addresses(address: IPv4Address | IPv6Address) -> None:
    assert packed(str(address)) == address.packed


@given(st.text("0123456789. _+-x:a", max_size=16))
def test_what_looks_alike(text: str) -> None:
    assert packed(text) == slowly(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "...",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.1.1.-1",
            "01.1.1.1",
            "1.1.1.1 ",
            " 1.1.1.1",
            "1_0.1.1.1",
        ),
        *("+1.1.1.1", "1.1.1.1/32", "١.١.١.١", "1" * 5000, "1.1.1." + "1" * 5000, "0x1.1.1.1", "::1::", "1.2.3.4\n"),
    ],
)
def test_what_is_none(text: str) -> None:
    assert packed(text) is slowly(text) is None
