"""Ports and protocols in manifests, in the one spelling that is kept: 80 for `"80"`."""

from __future__ import annotations

import re
from typing import Literal

from bus_schemas.manifests.fields import At, said

PORT_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
CALICO_PORT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
PORT_PROTOCOLS: tuple[Literal["TCP", "UDP", "SCTP"], ...] = ("TCP", "UDP", "SCTP")
_PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
_NUMBERS = {"TCP": 6, "UDP": 17, "ICMP": 1, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
_PORT_RANGE = re.compile(r"([0-9]+):([0-9]+)")


def port_number(at: At) -> int:
    return at.integer(1, 65535)


def kubernetes_port(at: At) -> int | str:
    """A number, or the name of a container port (an IANA service name, RFC 6335)."""
    if not isinstance(at.value, str):
        return port_number(at)
    name = at.string()
    if not (len(name) <= 15 and PORT_NAME.fullmatch(name) and not name.isdecimal()):
        at.fault(f"must be a port's number or name (at most 15 lower-case letters, digits and '-'), not {said(name)}")
    return name


def calico_port(at: At) -> int | str:
    """A number, a range `first:last`, or a name."""
    if not isinstance(at.value, str):
        return port_number(at)
    text = at.string()
    if text.isascii() and text.isdecimal():
        return At(int(text[:8]), at.path, at.report).integer(1, 65535)
    if ends := _PORT_RANGE.fullmatch(text):
        first, last = int(ends[1][:8]), int(ends[2][:8])
        if not 1 <= first <= last <= 65535:
            at.fault(f"must be a range of ports from 1 to 65535, the smaller first, not {said(text)}")
        return f"{first}:{last}"
    if not CALICO_PORT_NAME.fullmatch(text):
        at.fault(f"must be a port, a range 'first:last' or a port's name, not {said(text)}")
    return text


def protocol(at: At) -> int | str:
    """A name, spelt as Calico's validation wants it, or a number from 1 to 255."""
    if isinstance(at.value, str):
        text = at.string()
        if text.isascii() and text.isdecimal():
            return At(int(text[:8]), at.path, at.report).integer(1, 255)
        if text in _PROTOCOLS:
            return text
        meant = next((name for name in _PROTOCOLS if name.lower() == text.lower()), "")
        hint = f", did you mean {meant}?" if meant else ""
        at.fault(f"must be one of {', '.join(_PROTOCOLS)} or a number from 1 to 255, not {said(text)}{hint}")
        return "TCP"
    return at.integer(1, 255)


def protocol_number(protocol: int | str) -> int:
    return protocol if isinstance(protocol, int) else _NUMBERS[protocol]
