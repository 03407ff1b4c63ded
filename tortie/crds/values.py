"""The values that manifests are made of, as schemas: addresses, ports, protocols, AS numbers, durations.

Forms are RE2 on the server, which looks for them anywhere in the text: each is anchored. `format` is checked by the
server for `cidr`, `ipv4` and `ipv6`, by Go's own parsers.
"""

from __future__ import annotations

import re
from typing import Any

from bus_schemas.manifests.devices import DEVICE_PATTERN
from bus_schemas.manifests.names import DNS_LABEL, DNS_SUBDOMAIN, MAX_LABEL, MAX_NAME
from bus_schemas.manifests.numbers import DURATION
from bus_schemas.manifests.ports import CALICO_PORT_NAME, PORT_PROTOCOLS, protocol_number
from bus_schemas.manifests.selections import MAX_SELECTOR

Schema = dict[str, Any]

MAX_CIDR = 49
"""Characters of an IPv6 network with an IPv4 tail."""


def form(*regexes: re.Pattern[str] | str) -> Schema:
    """Text that is one of these from its beginning to its end."""
    texts = [one if isinstance(one, str) else one.pattern for one in regexes]
    return {"pattern": f"^(?:{'|'.join(texts)})$"}


def any_case(*words: str) -> Schema:
    """One of these words, however it is spelt."""
    return {"pattern": f"^(?i:{'|'.join(words)})$"}


def between(low: int, high: int) -> Schema:
    return {"minimum": low, "maximum": high}


def each(schema: Schema, *, most: int | None = None) -> Schema:
    """A list of these."""
    return {"items": schema} if most is None else {"items": schema, "maxItems": most}


def number_or_text(low: int, high: int, *forms: re.Pattern[str] | str, longest: int | None = None) -> Schema:
    """A number in this range, or text of one of these forms. (The server applies the one to numbers, the other to
    text.)"""
    schema = {"x-kubernetes-int-or-string": True, **between(low, high), **form(*forms)}
    return schema if longest is None else {**schema, "maxLength": longest}


def decimal(high: int) -> str:
    """A regular expression for 1 to `high` in decimal, leading zeros allowed."""
    digits = str(high)
    parts = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    for i, digit in enumerate(digits):
        least = 1 if i == 0 else 0
        last = i == len(digits) - 1
        top = int(digit) if last else int(digit) - 1
        if top >= least:
            rest = len(digits) - i - 1
            one = str(top) if top == least else f"[{least}-{top}]"
            parts.append(digits[:i] + one + (f"[0-9]{{{rest}}}" if rest else ""))
    return f"0*(?:{'|'.join(parts)})"


CIDR: Schema = {"format": "cidr", "maxLength": MAX_CIDR}
NET: Schema = {"maxLength": MAX_CIDR, "anyOf": [{"format": "cidr"}, {"format": "ipv4"}, {"format": "ipv6"}]}
"""A network, or an address."""
EXCLUDED_NET: Schema = {**NET, "not": {"pattern": "/0+$"}}
ADDRESS: Schema = {"maxLength": MAX_CIDR, "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}

SELECTOR: Schema = {"maxLength": MAX_SELECTOR, "not": {"pattern": r"^[ \t]*global\(\)[ \t]*$"}}
NAMESPACE_SELECTOR: Schema = {"maxLength": MAX_SELECTOR}
"""Of the end of a rule, where it may be `global()`."""
LABEL_VALUE: Schema = {"maxLength": MAX_LABEL, **form(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")}
NAME: Schema = {"maxLength": MAX_NAME, **form(DNS_SUBDOMAIN)}
LABEL: Schema = {"maxLength": MAX_LABEL, **form(DNS_LABEL)}
DEVICES: Schema = form(DEVICE_PATTERN)
A_DURATION: Schema = form(DURATION)

PORT: Schema = between(1, 65535)
_PORT_NUMBER = decimal(65535)
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_IPV6 = rf"(?:[0-9A-Fa-f]{{0,4}}:){{2,8}}(?:[0-9A-Fa-f]{{0,4}}|{_IPV4})"
PEER_ADDRESS: Schema = {
    "maxLength": 64,
    "anyOf": [
        {"maxLength": 0},
        {"format": "ipv4"},
        {"format": "ipv6"},
        form(f"{_IPV4}:{_PORT_NUMBER}"),
        form(rf"\[{_IPV6}\]:{_PORT_NUMBER}"),
    ],
}
"""An address, perhaps with a port."""
PORT_RANGE: Schema = number_or_text(0, 65535, "[0-9]+(?::[0-9]+)?")
NET4: Schema = {"anyOf": [{"format": "ipv4"}, {"format": "cidr", "pattern": "^[^:]*$"}]}
POOL_CIDR: Schema = {**CIDR, "not": {"pattern": r"^(?i:169\.254\.|fe[89ab][0-9a-f]:)"}}
"""Not of the link-local addresses."""
PORT_OR_NAME: Schema = number_or_text(
    1,
    65535,
    _PORT_NUMBER,
    f"{_PORT_NUMBER}:{_PORT_NUMBER}",
    r"[0-9]*[A-Za-z_.-][A-Za-z0-9_.-]*",
    longest=128,
)
"""A port, a range, a name (`CALICO_PORT_NAME`, which is not only digits)."""
assert CALICO_PORT_NAME.pattern == "[A-Za-z0-9_.-]{1,128}"
PROTOCOL: Schema = number_or_text(1, 255, "TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite", decimal(255), longest=32)
PORT_PROTOCOL: Schema = {
    "x-kubernetes-int-or-string": True,
    "enum": [
        *PORT_PROTOCOLS,
        *map(protocol_number, PORT_PROTOCOLS),
        *(str(protocol_number(p)) for p in PORT_PROTOCOLS),
    ],
}
"""A protocol that has ports, in every way to write it."""

_MAX_AS = 0xFFFFFFFF
AS_NUMBER: Schema = number_or_text(1, _MAX_AS, r"[0-9]{1,5}\.[0-9]{1,5}", decimal(_MAX_AS), longest=32)
AS_NUMBER_OR_NONE: Schema = number_or_text(0, _MAX_AS, r"[0-9]{1,5}\.[0-9]{1,5}", decimal(_MAX_AS), "0", longest=32)
_SHORT, _LONG = f"(?:0+|{decimal(0xFFFF)})", f"(?:0+|{decimal(_MAX_AS)})"
COMMUNITY: Schema = form(f"{_SHORT}:{_SHORT}", f"{_LONG}:{_LONG}:{_LONG}")
