"""CIDRs in rules, and the one rule that every family needs.

A compiled rule has nets of one family and says which. What a manifest means by nets of both, or by nets that exclude
addresses of one family only, is said by two rules, one each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_network

import msgspec

from bus_schemas.policy import Match, Rule
from services.policy_compiler.errors import Uncompilable


@lru_cache(maxsize=1 << 16)
def net(text: str) -> str:
    """A CIDR with its host bits cleared. Raises Uncompilable."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError as error:
        raise Uncompilable(f"{text!r} is not a CIDR") from error


def readable(texts: Iterable[str]) -> tuple[str, ...]:
    """Those that are CIDRs."""
    found = []
    for text in texts:
        try:
            found.append(net(text))
        except Uncompilable:
            continue
    return tuple(found)


def by_family(rule: Rule) -> Iterator[Rule]:
    """The rule as one rule for each IP version that it can match, or unchanged when it names no nets."""
    ends = (rule.source, rule.destination)
    if not any(end.nets or end.not_nets for end in ends):
        yield rule
        return
    for version in (4, 6):
        if rule.ip_version in (None, version) and not any(_excludes(end, version) for end in ends):
            yield msgspec.structs.replace(
                rule,
                ip_version=version,
                source=_of_family(rule.source, version),
                destination=_of_family(rule.destination, version),
            )


def _excludes(match: Match, version: int) -> bool:
    """No address of the family can match."""
    return bool(match.nets and not _filtered(match.nets, version)) or any(
        net.endswith("/0") for net in _filtered(match.not_nets, version)
    )


def _of_family(match: Match, version: int) -> Match:
    return msgspec.structs.replace(
        match, nets=_filtered(match.nets, version), not_nets=_filtered(match.not_nets, version)
    )


def _filtered(nets: Iterable[str], version: int) -> tuple[str, ...]:
    return tuple(net for net in nets if (6 if ":" in net else 4) == version)
