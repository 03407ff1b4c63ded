"""From a packet that a rule logged to one sentence for a person. Pure: it is told the time, in seconds of any clock.

    packet, its devices, what its prefix means --recognise--> Sighting --Denials--> Told

A client that is refused knocks again and again, so the same sighting is told once at first and then once a window with
how often it came since; and at most so many are told a second, whatever happens on the network. What is left untold is
told as a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from bus_schemas.ids import RulesId
from services.node_dataplane.netlink.nflog import Logged
from services.node_dataplane.nft.attribution import Denial
from services.node_dataplane.packet_header import Header, protocol_name, read

WINDOW_S = 10.0
EVENTS: Mapping[str, str] = {
    "denied": "denied",
    "would_deny": "would_be_denied",
    "guard": "guarded",
    "log": "logged",
}
"""What an event is called, by the kind of the denial."""
UNTOLD = "denials_untold"
QUIET = frozenset({"invalid"})
"""Guards that are counted and not told: late packets of connections that ended are everyday."""

_GUARDS: Mapping[str, str] = {
    "spoofed": "the source address is not one of its own",
    "no_policy_egress": "no policy is in place for it yet",
    "no_policy_ingress": "no policy is in place for it yet",
    "vxlan_from_pod": "a pod may not send into the node's tunnels",
    "vxlan_from_stranger": "its sender is not a known node",
    "router_from_pod": "pods are no routers of their node",
    "ipip_from_pod": "a pod may not send into the node's tunnels",
    "ipip_from_stranger": "its sender is not a known node",
    "to_host": "pods may not reach this node",
}


class Owners(NamedTuple):
    """Whose a link or an address is: a pod `ns/name`, or another name for people; empty: nobody's here."""

    of_link: Callable[[str], str]
    of_address: Callable[[str], str]
    of_device: Callable[[str], str]
    """The host endpoint of one of the node's own devices."""


class Sighting(NamedTuple):
    """What makes two packets the same news."""

    denial: Denial
    object: str
    peer: str
    """Address; empty: it is not in the packet."""
    peer_object: str
    """Whose that is, when it is somebody's here."""
    protocol: str
    port: int
    """Of the connection's destination; 0: none."""
    icmp: tuple[int, int] | None
    source: str
    """Of a guard: the address that the packet claims; empty otherwise, as clients change it."""


class Told(NamedTuple):
    """An event without its time and place."""

    what: str
    object: str
    message: str
    detail: dict[str, str]


def is_news(denial: Denial) -> bool:
    return not (denial.kind == "guard" and denial.reason in QUIET)


def recognise(logged: Logged, denial: Denial, indev: str, outdev: str, owners: Owners, node: str) -> Sighting:
    """Who is concerned: at egress the pod that sends, at ingress the one that shall receive, found by the device, or
    else by the address. What is no pod's is the device of the node."""
    header = read(logged.payload)
    egress = denial.way == "egress"
    device = indev if egress else outdev
    source, destination = (_text(header.source), _text(header.destination)) if header is not None else ("", "")
    own, peer = (source, destination) if egress else (destination, source)
    spoofed = denial.reason == "spoofed"  # Then the address tells who it was not.
    object_ = owners.of_link(device) or (owners.of_address(own) if own and not spoofed else "")
    other = owners.of_address(peer) if peer else ""
    guard = denial.kind == "guard"
    if not (object_ or guard):
        object_ = owners.of_device(outdev if egress else indev)
    if not object_:
        object_ = f"{node}:{device or indev or outdev}".rstrip(":")
    return Sighting(
        denial,
        object_,
        peer,
        other,
        protocol_name(header.protocol) if header is not None else "",
        header.port if header is not None else 0,
        _icmp(header),
        source if guard and egress else "",
    )


def _icmp(header: Header | None) -> tuple[int, int] | None:
    if header is None or header.icmp_type is None or header.icmp_code is None:
        return None
    return header.icmp_type, header.icmp_code


def _text(packed: bytes) -> str:
    return str(ip_address(packed))


# --- words


def describe(sighting: Sighting, count: int, title: Callable[[RulesId], str]) -> Told:
    """`title` of a policy: `<Kind>/<namespace>/<name>`."""
    denial = sighting.denial
    policy = title(denial.rules) if denial.rules else ""
    detail = {
        "direction": denial.way,
        "peer": sighting.peer,
        "peer_pod": sighting.peer_object,
        "source": sighting.source,
        "protocol": sighting.protocol,
        "port": str(sighting.port or ""),
        "icmp": "{}/{}".format(*sighting.icmp) if sighting.icmp is not None else "",
        "policy": policy,
        "rule": "" if denial.index is None else str(denial.index),
        "rule_name": denial.name,
        "tier": denial.tier,
        "reason": denial.reason,
        "count": str(count),
    }
    message = f"{_who(sighting)} {_verdict(denial, policy)}{f' ({count} times)' if count > 1 else ''}."
    return Told(EVENTS[denial.kind], sighting.object, message, {key: text for key, text in detail.items() if text})


def _who(sighting: Sighting) -> str:
    peer = sighting.peer or "an unknown address"
    if sighting.peer_object:
        peer = f"{sighting.peer_object} ({peer})"
    service = sighting.protocol or "a packet"
    if sighting.port:
        service += f" port {sighting.port}"
    elif sighting.icmp is not None:
        service += " type {} code {}".format(*sighting.icmp)
    if sighting.denial.way == "egress":
        return f"{sighting.object} to {peer}, {service},"
    return f"{peer} to {sighting.object}, {service},"


def _verdict(denial: Denial, policy: str) -> str:
    if denial.kind == "guard":
        return f"was dropped: {_GUARDS.get(denial.reason, denial.reason)}"
    word = {"denied": "was denied", "would_deny": "would be denied with the staged policies", "log": "was logged"}
    said = word[denial.kind]
    if not policy:
        at_the_end = f"nothing in the tier {denial.tier} allows it" if denial.tier else "nothing allows it"
        return f"{said}: {at_the_end}"
    rule = "" if denial.index is None else f", rule {denial.index}{f' ({denial.name})' if denial.name else ''}"
    return f"{said} by {policy}{rule}{f': {denial.reason}' if denial.reason else ''}"


# --- how often


@dataclass
class _Window:
    until: float
    more: int = 0
    """Seen since it was told."""


@dataclass
class Denials:
    """What is told, and when. It remembers no more than what was told within a window."""

    title: Callable[[RulesId], str]
    most_per_s: int
    """Events, with a second's worth at once."""
    window_s: float = WINDOW_S
    untold: int = 0
    """Packets that were left untold so far."""
    _windows: dict[Sighting, _Window] = field(default_factory=dict)
    """In the order in which they end."""
    _allowance: float = field(init=False)
    _counted_at: float = 0.0
    _withheld: int = 0
    """Untold since the last summary."""
    _summary_at: float | None = None

    def __post_init__(self) -> None:
        self._allowance = float(self.most_per_s)

    def see(self, sighting: Sighting, now: float) -> list[Told]:
        told = self.settle(now)
        window = self._windows.get(sighting)
        if window is not None:
            window.more += 1
        else:
            told += self._tell(sighting, 1, now)
        return told

    def settle(self, now: float) -> list[Told]:
        """What has come to its end by now."""
        told: list[Told] = []
        ended = []
        for sighting, window in self._windows.items():
            if window.until > now:
                break
            ended.append((sighting, window.more))
        for sighting, more in ended:
            del self._windows[sighting]
            if more:
                told += self._tell(sighting, more, now)
        if self._summary_at is not None and self._summary_at <= now:
            told.append(self._summary())
        return told

    def due(self) -> float | None:
        """When there will be something to settle."""
        windows = (window.until for window in self._windows.values())
        moments = [at for at in (next(windows, None), self._summary_at) if at is not None]
        return min(moments, default=None)

    def _tell(self, sighting: Sighting, count: int, now: float) -> list[Told]:
        if self._may(now):
            self._windows[sighting] = _Window(now + self.window_s)
            return [describe(sighting, count, self.title)]
        self.untold += count
        self._withheld += count
        if self._summary_at is None:
            self._summary_at = now + self.window_s
        return []

    def _may(self, now: float) -> bool:
        earned = max(0.0, now - self._counted_at) * self.most_per_s
        self._allowance = min(float(self.most_per_s), self._allowance + earned)
        self._counted_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _summary(self) -> Told:
        count, self._withheld, self._summary_at = self._withheld, 0, None
        limit = f"more than {self.most_per_s} different ones came in a second"
        return Told(
            UNTOLD, "", f"{count} more packets were denied and are not told one by one: {limit}.", {"count": str(count)}
        )
