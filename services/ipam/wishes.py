"""What Services of type LoadBalancer want, and what is to be done about it. Pure.

    Service (type, class, families, annotations, loadBalancerIP) --wish_of--> AssignRequest, or why it cannot be
    wish, the handle that the Service has ------------------------next_step--> Keep | Give | TakeBack | Leave

The words are Calico's: annotations `projectcalico.org/loadBalancerIPs` (JSON list, at most one address a family) and
`projectcalico.org/ipv4pools`, `ipv6pools` (JSON lists of names or CIDRs); `spec.loadBalancerIP` where no annotation
names addresses. A Service is ours when its class is empty or `calico`.

A Service that was deleted gives its addresses back at once. One that nobody ever spoke of does so only after a grace:
after a bus was wiped the Services are yet to come, and their addresses must be the same again.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from bus_schemas.ids import HandleId
from bus_schemas.ipam import LOAD_BALANCER, AssignRequest, Handle, load_balancer_handle
from bus_schemas.resources import Service
from bus_schemas.subjects import DESIRED, Fact
from services.ipam.cidr import parse_address
from services.ipam.desired import Desired
from services.ipam.pools import wanted

SERVICE = DESIRED[Service]

OUR_CLASSES = ("", "calico")
ADDRESSES = "projectcalico.org/loadBalancerIPs"
POOLS = {4: "projectcalico.org/ipv4pools", 6: "projectcalico.org/ipv6pools"}
FAMILIES = {"IPv4": 4, "IPv6": 6}

ServiceKey = tuple[str, str]
"""Namespace, name."""


class Unfit(ValueError):
    """The Service asks for something that cannot be; the text says what."""


class Keep(NamedTuple):
    """It has what it wants."""

    addresses: tuple[str, ...]


class Give(NamedTuple):
    request: AssignRequest


class TakeBack(NamedTuple):
    """It has what it does not want, or not any more."""

    handle: HandleId


class Leave(NamedTuple):
    """Nothing is to be done: it wants nothing (`reason` empty), or what cannot be."""

    reason: str = ""


Step = Keep | Give | TakeBack | Leave


def wish_of(service: Service) -> AssignRequest | None:
    """What the Service asks for; None: nothing, of us. Raises Unfit."""
    spec, meta = service.spec, service.metadata
    if spec.type != "LoadBalancer" or spec.load_balancer_class not in OUR_CLASSES:
        return None
    unknown = [family for family in spec.ip_families if family not in FAMILIES]
    if unknown:
        raise Unfit(f"ipFamilies {', '.join(unknown)} are neither IPv4 nor IPv6")
    families = tuple(dict.fromkeys(FAMILIES[family] for family in spec.ip_families))
    named = _texts(service, ADDRESSES) or ((spec.load_balancer_ip,) if spec.load_balancer_ip else ())
    try:
        addresses = [parse_address(text) for text in named]
    except ValueError as error:
        raise Unfit(str(error)) from error
    wanted = [address.family for address in addresses]
    if len(set(wanted)) != len(wanted):
        raise Unfit(f"{ADDRESSES}: at most one address of each family, not {', '.join(named)}")
    if families and not set(wanted) <= set(families):
        raise Unfit(f"{', '.join(named)}: the Service is of ipFamilies {', '.join(spec.ip_families)}")
    pools = {family: _texts(service, annotation) for family, annotation in POOLS.items()}
    return AssignRequest(
        node=LOAD_BALANCER,
        handle=load_balancer_handle(meta.namespace, meta.name),
        namespace=meta.namespace,
        pod=meta.name,
        use="loadbalancer",
        families=() if addresses else families,
        addresses=tuple(map(str, addresses)),
        pools=() if addresses else pools[4] + pools[6],
        pools_of=() if addresses else (4,) * len(pools[4]) + (6,) * len(pools[6]),
    )


def _texts(service: Service, annotation: str) -> tuple[str, ...]:
    text = service.metadata.annotations.get(annotation)
    if text is None:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.MsgspecError as error:
        raise Unfit(f"{annotation} must be a JSON list of strings, not {text!r}") from error


def next_step(service: Service, held: Handle | None, desired: Desired) -> Step:
    """`held`: what is given to the Service now."""
    try:
        wish = wish_of(service)
    except Unfit as error:
        return TakeBack(held.handle) if held is not None else Leave(str(error))
    if wish is None:
        return TakeBack(held.handle) if held is not None else Leave()
    if held is None:
        return Give(wish)
    return Keep(held.addresses) if _fits(wish, held, desired) else TakeBack(held.handle)


def _fits(wish: AssignRequest, held: Handle, desired: Desired) -> bool:
    """Whether the Service has what it would be given now; other pools that serve it since are no reason to change."""
    if wish.addresses:
        return set(wish.addresses) == set(held.addresses)
    addresses = [parse_address(text) for text in held.addresses]
    if wish.families and set(wish.families) != {address.family for address in addresses}:
        return False
    named, _ = wanted(desired.pools, wish.pools)
    chosen = {pool.family for pool in named} if wish.pools else set()
    return all(address.family not in chosen or any(p.cidr.holds(address) for p in named) for address in addresses)


@dataclass
class Services:
    """The Services as they are told, and which of those with addresses nobody has spoken of, since when."""

    grace_s: float
    known: dict[ServiceKey, Service] = field(default_factory=dict)
    gone: set[ServiceKey] = field(default_factory=set)
    _silent: dict[ServiceKey, float] = field(default_factory=dict)

    def apply(self, fact: Fact) -> None:
        key = (fact.key[0], fact.key[1])
        if fact.value is None:
            self.known.pop(key, None)
            self.gone.add(key)
        else:
            self.known[key] = fact.value
            self.gone.discard(key)
            self._silent.pop(key, None)

    def forget_all_but(self, held: Container[ServiceKey]) -> None:
        """Of Services that are gone only those matter that still have addresses."""
        self.gone = {key for key in self.gone if key in held}
        self._silent = {key: since for key, since in self._silent.items() if key in held}

    def step(self, key: ServiceKey, held: Handle | None, desired: Desired, now: float) -> Step:
        """`now`: Unix time in seconds."""
        service = self.known.get(key)
        if service is not None:
            return next_step(service, held, desired)
        if held is None:
            return Leave()
        if key not in self.gone and now - self._silent.setdefault(key, now) < self.grace_s:
            return Keep(held.addresses)
        return TakeBack(held.handle)
