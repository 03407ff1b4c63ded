"""Addresses and networks in manifests, kept in one spelling: compressed, and masked where they are networks."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from bus_schemas.manifests.fields import At, said

Network = IPv4Network | IPv6Network

_CIDR = re.compile(r"([0-9A-Fa-f:.]+)/([0-9]{1,3})")


def network(at: At, *, host: bool = False, strict: bool = False) -> Network | None:
    """A CIDR; with `host` also a single address, with `strict` without bits behind the mask. None when reported."""
    text = at.string()
    if at.value == text:
        try:
            if _CIDR.fullmatch(text):
                return ip_network(text, strict=strict)
            if host and "/" not in text and "%" not in text:
                return ip_network(text)
        except ValueError as error:
            if strict and "host bits" in str(error):
                at.fault(f"has bits set behind the mask: did you mean {ip_network(text, strict=False)}?")
                return None
        example = "10.0.0.0/8 or 10.0.0.1" if host else "10.0.0.0/8"
        at.fault(f"must be a CIDR (like {example}), not {said(text)}")
    return None


def strictly_inside(part: Network, whole: Network) -> bool:
    """A part of the network that is not all of it."""
    return part.version == whole.version and part.prefixlen > whole.prefixlen and part.network_address in whole


def net(at: At) -> str:
    """A network of a Calico rule: a CIDR or an address, masked."""
    found = network(at, host=True)
    return "" if found is None else str(found)


def excluded_net(at: At) -> str:
    """A network of `notNets`: not everything, for such a rule would match nothing."""
    found = network(at, host=True)
    if found is not None and found.prefixlen == 0:
        at.fault("must not be every address: the rule could never match")
    return "" if found is None else str(found)


def address(at: At, *, family: int | None = None) -> str:
    """A plain address."""
    found = _address(at.string())
    if found is None or (family is not None and found.version != family):
        at.fault(f"must be an IP{f'v{family}' if family else ''} address, not {said(at.value)}")
        return ""
    return str(found)


def interface_address(at: At, *, family: int) -> str:
    """An address with or without the prefix length of its subnet: `10.0.0.15/24`, `10.0.0.15`."""
    text = at.string()
    plain, slash, prefix = text.partition("/")
    found = _address(plain)
    wide = 32 if family == 4 else 128
    if found is None or found.version != family or (slash and not (prefix.isdecimal() and int(prefix[:4]) <= wide)):
        at.fault(f"must be an IPv{family} address with its subnet's prefix (like {_EXAMPLE[family]}), not {said(text)}")
        return ""
    return f"{found}/{int(prefix)}" if slash else str(found)


_EXAMPLE = {4: "10.0.0.15/24", 6: "fd00::15/64"}


def _address(text: str) -> IPv4Address | IPv6Address | None:
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None
