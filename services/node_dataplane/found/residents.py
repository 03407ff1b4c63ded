"""Which pod of this node has which link, when nobody says so: the pods as the bus has them, with their addresses, and
the links as the kernel has them, with the addresses at their far ends, joined by address. Pure.

    Pod: alive, of this node, with addresses --+
                                               +--> one pod, one link that has all of the addresses --> Resident
    Veth: addresses of its far end ------------+    anything else --> nobody's, and why

What is not joined is closed. In doubt nobody is joined: an address that two pods claim, or two links carry. What was
joined stays so while both sides say the same; a link that gets the address as well takes nothing away.

A pod that lost its link, or was there before any link had its address, is joined to a later one only when no other pod
of the node still waits for its addresses: the link could be that one's, whose address nobody has told yet, and which
may have been this pod's before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import NamedTuple

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName, PodKey
from bus_schemas.resources import Pod

FINISHED = frozenset({"Succeeded", "Failed"})
NO_LINK = "no link of this node leads to"
"""How the sentence about a pod begins whose link may still come."""


class Veth(NamedTuple):
    """A link to another network namespace."""

    device: int
    name: str
    mac: bytes
    """Of its far end."""
    master: int
    """The device that it is a port of; 0: none."""
    addresses: frozenset[str]
    """Of its far end, as Python spells them."""


class Bridge(NamedTuple):
    name: str
    addresses: tuple[str, ...]
    """With prefix length."""
    others: tuple[str, ...] = ()
    """Its ports that are no veths: others' machines are behind it."""


class Seen(NamedTuple):
    """The node's links, as the kernel has them now."""

    veths: tuple[Veth, ...] = ()
    bridges: Mapping[int, Bridge] = {}


class Resident(NamedTuple):
    """A pod whose link is known."""

    endpoint: Endpoint
    veth: Veth

    @property
    def pod(self) -> PodKey:
        return self.endpoint.pod

    @property
    def device(self) -> int:
        """By which its packets come to be routed."""
        return self.veth.master or self.veth.device

    @property
    def bridged(self) -> bool:
        return bool(self.veth.master)


class View(NamedTuple):
    """What follows from what is known now."""

    residents: Mapping[PodKey, Resident]
    missing: Mapping[PodKey, str]
    """Pods that have addresses and no link, and why."""
    devices: frozenset[int]
    """Behind which there are pods, and nobody else: bridges, and links of their own."""
    own: frozenset[str]
    """The node's addresses on those bridges."""


class _Claim(NamedTuple):
    uid: str
    addresses: tuple[str, ...]


class Residents:
    def __init__(self, node: NodeName, networks: Iterable[str] = ()) -> None:
        """`networks`: CIDRs in which this node's pods have addresses, whatever the Node resource says."""
        self._node = node
        self._configured = tuple(networks)
        self._told: tuple[str, ...] = ()
        self._claims: dict[PodKey, _Claim] = {}
        self._pending: set[PodKey] = set()
        """Alive, and without an address."""
        self._seen = Seen()
        self._joined: dict[PodKey, tuple[_Claim, int]] = {}
        self._looked: dict[PodKey, _Claim] = {}
        """Claims for which there was no link, or no longer."""

    # --- facts

    def set_pod(self, key: PodKey, pod: Pod | None) -> bool:
        """Whether that is news for this node."""
        before = self._claims.pop(key, None), key in self._pending
        self._pending.discard(key)
        if pod is not None and self._lives_here(pod):
            addresses = _plain(pod.status.pod_ips)
            if addresses:
                self._claims[key] = _Claim(pod.metadata.uid, addresses)
            else:
                self._pending.add(key)
        return before != (self._claims.get(key), key in self._pending)

    def _lives_here(self, pod: Pod) -> bool:
        spec = pod.spec
        return spec.node_name == self._node and not spec.host_network and pod.status.phase not in FINISHED

    def set_networks(self, networks: Iterable[str]) -> None:
        """The Node's podCIDRs."""
        self._told = tuple(networks)

    def set_seen(self, seen: Seen) -> bool:
        """Whether that is news."""
        news, self._seen = seen != self._seen, seen
        return news

    # --- questions

    @property
    def networks(self) -> tuple[str, ...]:
        """CIDRs; what is none is left out."""
        return tuple(text for text in self._configured or self._told if _network(text))

    def flush(self) -> View:
        """Joins anew."""
        carriers: dict[str, list[Veth]] = {}
        for veth in self._seen.veths:
            for address in veth.addresses:
                carriers.setdefault(address, []).append(veth)
        claimants: dict[str, list[PodKey]] = {}
        for pod, claim in self._claims.items():
            for address in claim.addresses:
                claimants.setdefault(address, []).append(pod)
        residents: dict[PodKey, Resident] = {}
        missing: dict[PodKey, str] = {}
        for pod, claim in sorted(self._claims.items()):
            found = self._join(pod, claim, carriers, claimants)
            if isinstance(found, Veth):
                self._joined[pod] = (claim, found.device)
                self._looked.pop(pod, None)
                residents[pod] = Resident(self._endpoint(pod, claim, found), found)
            else:
                self._joined.pop(pod, None)
                self._looked[pod] = claim
                missing[pod] = found
        for gone in [*(self._joined.keys() - self._claims.keys()), *(self._looked.keys() - self._claims.keys())]:
            self._joined.pop(gone, None)
            self._looked.pop(gone, None)
        devices, own = self._devices(residents.values())
        return View(residents, missing, devices, own)

    def _join(
        self,
        pod: PodKey,
        claim: _Claim,
        carriers: Mapping[str, list[Veth]],
        claimants: Mapping[str, list[PodKey]],
    ) -> Veth | str:
        told = " and ".join(claim.addresses)
        others = sorted({str(other) for a in claim.addresses for other in claimants[a]} - {str(pod)})
        if others:
            return f"{', '.join(others)} has {told}, too"
        fitting = [v for v in carriers.get(claim.addresses[0], ()) if v.addresses.issuperset(claim.addresses)]
        before = self._joined.get(pod)
        for veth in fitting:
            if before == (claim, veth.device):
                return self._fit(veth)
        if not fitting:
            return f"{NO_LINK} {told}"
        if len(fitting) > 1:
            return f"{told} is behind more than one link: {', '.join(sorted(veth.name for veth in fitting))}"
        late = (before is not None and before[0] == claim) or self._looked.get(pod) == claim
        waiting = sorted(map(str, self._pending))
        if late and waiting:
            return f"{fitting[0].name} has {told} now, and may be the link of {waiting[0]}, which waits for its address"
        return self._fit(fitting[0])

    def _fit(self, veth: Veth) -> Veth | str:
        if not veth.master:
            return veth
        bridge = self._seen.bridges.get(veth.master)
        if bridge is None:
            return f"its link {veth.name} is a port of something that is no bridge"
        if bridge.others:
            return f"its link {veth.name} is a port of {bridge.name}, and so is {', '.join(bridge.others)}"
        return veth

    def _endpoint(self, pod: PodKey, claim: _Claim, veth: Veth) -> Endpoint:
        return Endpoint(
            node=self._node,
            namespace=pod.namespace,
            name=pod.name,
            container=claim.uid or f"{pod.namespace}/{pod.name}",
            uid=claim.uid,
            link=veth.name,
            addresses=claim.addresses,
        )

    def _devices(self, residents: Iterable[Resident]) -> tuple[frozenset[int], frozenset[str]]:
        """Bridges and links of known pods; bridges and links with an address in the pods' networks."""
        networks = [net for text in self.networks if (net := _network(text))]

        def inside(address: str) -> bool:
            ip = ip_interface(address).ip
            return any(ip.version == net.version and ip in net for net in networks)

        devices = {resident.device for resident in residents}
        devices |= {veth.device for veth in self._seen.veths if not veth.master and any(map(inside, veth.addresses))}
        pure = {index: bridge for index, bridge in self._seen.bridges.items() if not bridge.others}
        devices |= {index for index, bridge in pure.items() if any(map(inside, bridge.addresses))}
        own = {str(ip_interface(a).ip) for index in devices & pure.keys() for a in pure[index].addresses}
        return frozenset(devices), frozenset(own)


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _plain(addresses: Iterable[str]) -> tuple[str, ...]:
    """As Python spells them; what is no address is not there."""
    found = []
    for address in addresses:
        try:
            found.append(str(ip_address(address)))
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))
