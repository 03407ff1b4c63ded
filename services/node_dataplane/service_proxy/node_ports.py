"""On which of the node's addresses node ports are served. Pure.

`primary` are those by which other nodes know this one; else CIDRs say it. Never the loopback and link-local ones: what
is sent to them does not leave its host, or its link.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

PRIMARY = "primary"
Networks = tuple[IPv4Network | IPv6Network, ...]


def read(setting: str) -> Networks | None:
    """None: the primary addresses. Raises ValueError."""
    parts = [part.strip() for part in setting.split(",") if part.strip()]
    if parts == [PRIMARY]:
        return None
    if not parts or PRIMARY in parts:
        raise ValueError(f"{setting!r} is neither `{PRIMARY}` nor a list of CIDRs")
    return tuple(ip_network(part, strict=False) for part in parts)


def served(networks: Networks | None, devices: Mapping[str, Iterable[str]], primary: Iterable[str]) -> Iterator[bytes]:
    """Packed. `devices`: name -> plain addresses, without pods' links; `primary`: plain addresses."""
    if networks is None:
        yield from (ip_address(text).packed for text in primary)
        return
    for text in {text for addresses in devices.values() for text in addresses}:
        address = ip_address(text)
        if address.is_loopback or address.is_link_local:
            continue
        if any(address.version == network.version and address in network for network in networks):
            yield address.packed
