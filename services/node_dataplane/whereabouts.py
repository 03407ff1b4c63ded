"""Where this node is reached and how large a packet may be: its own addresses and MTU, from what the administrator
says, what the settings say, and what the kernel has. Pure; a part of `core`.

    Node (own) --- spec.bgp.ipv4Address, InternalIP --+
    settings --- TORTIE_IP, autodetection method -----+--> Asked --> OwnAddress --> Finding --> uplink of the family
    interfaces, reach --------------------------------+                                            |
    FelixConfiguration --- mtuIfacePattern ------------------------------------> Underlay <--------+
    what other nodes say of theirs --> who else claims our address
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bus_schemas import node_addresses
from bus_schemas.ids import NodeName
from bus_schemas.node_addresses import NodeAddresses, internal_of, said_of
from bus_schemas.resources import Node
from services.node_dataplane import mtu
from services.node_dataplane.autodetection import Asked, Reach
from services.node_dataplane.mtu import Underlay
from services.node_dataplane.own_address import Finding, OwnAddress
from services.node_dataplane.uplink import Interface, Uplink

FAMILIES = (4, 6)
FEW = 5
"""So many nodes are named in a sentence."""


class Whereabouts:
    def __init__(self, node: NodeName, settings: Mapping[int, Asked] | None) -> None:
        self._node = node
        self._settings = settings or {family: Asked(family, "by default") for family in FAMILIES}
        self._interfaces: tuple[Interface, ...] = ()
        self._reach: dict[int, Reach] = {}
        self._said: dict[str, NodeAddresses] = {}
        """What agents say of their nodes' addresses, by node."""
        self.kept = {family: OwnAddress() for family in FAMILIES}
        self.findings: dict[int, Finding] = {}
        self.uplinks: dict[int, Uplink] = {}
        self.underlay = Underlay({}, "nothing is known yet")

    # --- facts; each says whether it is news

    def set_interfaces(self, interfaces: Sequence[Interface]) -> bool:
        before, self._interfaces = self._interfaces, tuple(interfaces)
        return before != self._interfaces

    def set_reach(self, family: int, reach: Reach) -> bool:
        before = self._reach.get(family)
        self._reach[family] = reach
        return before != reach

    def set_said(self, node: str, said: NodeAddresses | None) -> None:
        if said is None:
            self._said.pop(node, None)
        else:
            self._said[node] = said

    # --- output

    def settle(self, nodes: Mapping[str, Node], pattern: object, now: float) -> list[str]:
        """Uplinks and MTUs as of now; what is wrong. `pattern`: mtuIfacePattern.

        An uplink that is not there any more (down for a moment, between two addresses) is kept until there is another:
        to tear down the tunnel and to give back its address would cost the whole cluster far more than a flap does."""
        own = nodes.get(self._node)
        for family in FAMILIES:
            asked, reach = self._asked(own, family), self._reach.get(family, Reach())
            self.findings[family] = self.kept[family].settle(asked, self._interfaces, reach, now)
        self.uplinks = {f: finding.uplink for f, finding in self.findings.items() if finding.uplink is not None}
        self.underlay = mtu.underlay(self._interfaces, self.uplinks, pattern if isinstance(pattern, str) else None)
        return [*(f.problem for f in self.findings.values() if f.problem), *self._shared(nodes)]

    def _asked(self, own: Node | None, family: int) -> Asked:
        """The Node resource's word goes before the settings'."""
        settings = self._settings[family]
        if own is None:
            return settings
        if said := said_of(own, family):
            by = f"spec.bgp.ipv{family}Address of Node/{self._node}"
            return replace(settings, by=by, address=said, internal="", none=False, deliberate=True)
        internal = internal_of(own, family)
        if internal and not settings.address and settings.method.kind in ("auto", "kubernetes-internal-ip"):
            return replace(settings, by=f"the InternalIP of Node/{self._node}", internal=internal)
        return settings

    def _shared(self, nodes: Mapping[str, Node]) -> list[str]:
        """Others that say our address is theirs. route_distribution decides who keeps it."""
        told = []
        for family, uplink in self.uplinks.items():
            mine = str(uplink.network.ip)
            others = {
                name
                for name, node in nodes.items()
                if name != self._node and _plain(node_addresses.address_of(node, self._said.get(name), family)) == mine
            }
            if named := sorted(others):
                told.append(f"the address {mine} is also that of {', '.join(named[:FEW])}: of two the older keeps it")
        return told

    @property
    def due(self) -> float | None:
        """Unix time in seconds at which to settle again though nothing changes; None: never."""
        return min((f.due for f in self.findings.values() if f.due is not None), default=None)

    @property
    def addresses(self) -> NodeAddresses:
        """What this node says of its own addresses."""
        own = {
            family: node_addresses.OwnAddress(address=str(uplink.network), since=self.findings[family].since)
            for family, uplink in self.uplinks.items()
        }
        without = tuple(family for family, finding in sorted(self.findings.items()) if finding.asked.none)
        return NodeAddresses(node=self._node, ipv4=own.get(4), ipv6=own.get(6), without=without)

    def said(self) -> Iterable[str]:
        """Every address that an agent says its node has, plain."""
        for said in self._said.values():
            yield from (_plain(own.address) for own in (said.ipv4, said.ipv6) if own is not None)


def _plain(address: str) -> str:
    return address.partition("/")[0]
