"""The table `bridge tortie`: what pods on a bridge may say to it, where links are somebody else's (`by_address`).

    prerouting   a known port brings frames from its pod's MAC and addresses, asks and answers for these (ARP, NDP), and
                 nothing else; no other port brings any of them, nor an address that the node has on the bridge
    forward      a known port gets IPv4, IPv6 and ARP without a tag; while the kernel does not show bridged packets to
                 `inet tortie` (`unfiltered`) it neither sends nor gets any

Behind it policy may trust that an address is the pod's (`inet tortie`), and the bridge learns no MAC from a liar. A
frame with a tag of VLAN 0 would be taken for an untagged one by the pod that gets it, and `inet tortie` never sees it.

The table is made once; then its sets change, each change in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from services.node_dataplane.nft.attribution import Claims, guard_denial
from services.node_dataplane.nft.frame import ND, ROUTER
from services.node_dataplane.nft.names import LIMIT, TABLE

NAME = f"bridge {TABLE}"


class Port(NamedTuple):
    """A port of a bridge, and the pod behind it."""

    device: int
    mac: bytes
    addresses: tuple[str, ...]


class BridgeRules(NamedTuple):
    ports: frozenset[Port] = frozenset()
    own: frozenset[str] = frozenset()
    """The node's addresses on bridges of pods, link-local ones, too."""
    unfiltered: frozenset[str] = frozenset()
    """`ip`, `ip6`: what is bridged without `inet tortie` seeing it."""


def _structure() -> str:
    claims = Claims()
    report = claims.report(guard_denial("spoofed"))
    return f"""add table {NAME}
delete table {NAME}
table {NAME} {{
    limit {LIMIT} {{ rate 100/second burst 200 packets; }}
    counter spoofed {{ }}
    counter unfiltered {{ }}
    set ports {{ type iface_index; comment "links of known pods"; }}
    set macs {{ type ether_addr; comment "of known pods"; }}
    set ported {{ type iface_index . ether_addr; }}
    set sources4 {{ type iface_index . ether_addr . ipv4_addr; comment "what pods send from"; }}
    set sources6 {{ type iface_index . ether_addr . ipv6_addr; comment "what pods send from"; }}
    set targets6 {{ typeof iif . ether saddr . @th,64,128; comment "what pods say to have (NDP)"; }}
    set taken4 {{ type ipv4_addr; comment "of known pods and of this node"; }}
    set taken6 {{ type ipv6_addr; comment "of known pods and of this node"; }}
    set taken_targets6 {{ typeof @th,64,128; comment "the same"; }}
    set unseen {{ type ether_type; comment "what the policy table is not shown"; }}
    chain spoofed {{
        {report}
        counter name spoofed drop
    }}
    chain known {{
        ether type {{ 8021q, 8021ad }} goto spoofed
        iif . ether saddr . ip saddr @sources4 accept
        icmpv6 type {ROUTER} goto spoofed
        icmpv6 type 136 iif . ether saddr . @th,64,128 @targets6 accept
        icmpv6 type 136 @th,64,128 @taken_targets6 goto spoofed
        iif . ether saddr . ip6 saddr @sources6 accept
        iif . ether saddr . arp saddr ip @sources4 iif . arp saddr ether . arp saddr ip @sources4 accept
        ip6 saddr @taken6 goto spoofed
        iif . ether saddr @ported ip6 saddr fe80::/10 accept
        iif . ether saddr @ported ip6 saddr :: icmpv6 type {ND} accept
        iif . ether saddr @ported arp saddr ip 0.0.0.0 accept
        goto spoofed
    }}
    chain prerouting {{
        type filter hook prerouting priority -300; policy accept;
        iif @ports goto known
        ether saddr @macs goto spoofed
        ip saddr @taken4 goto spoofed
        ip6 saddr @taken6 goto spoofed
        arp saddr ip @taken4 goto spoofed
        icmpv6 type 136 @th,64,128 @taken_targets6 goto spoofed
    }}
    chain forward {{
        type filter hook forward priority 0; policy accept;
        oif @ports ether type {{ 8021q, 8021ad }} counter name spoofed drop
        oif @ports meta protocol != {{ ip, ip6, arp }} counter name spoofed drop
        meta protocol @unseen iif @ports counter name unfiltered drop
        meta protocol @unseen oif @ports counter name unfiltered drop
    }}
}}
"""


STRUCTURE = _structure()


def script(rules: BridgeRules, *, whole: bool) -> str:
    """One transaction. `whole`: in place of whatever is there."""
    return "".join((STRUCTURE if whole else "", *_contents(rules)))


def clear() -> str:
    return f"add table {NAME}\ndelete table {NAME}\n"


def _contents(rules: BridgeRules) -> Iterator[str]:
    ports = sorted(rules.ports)
    rows = [(port, ip_address(address)) for port in ports for address in port.addresses]
    taken = {ip for _, ip in rows} | set(map(ip_address, rules.own))
    four = sorted(str(ip) for ip in taken if ip.version == 4)
    six = sorted(ip.packed for ip in taken if ip.version == 6)

    def of_port(port: Port) -> str:
        return f"{port.device} . {port.mac.hex(':')}"

    yield from _fill("ports", (str(port.device) for port in ports))
    yield from _fill("macs", (port.mac.hex(":") for port in ports))
    yield from _fill("ported", map(of_port, ports))
    yield from _fill("sources4", (f"{of_port(port)} . {ip}" for port, ip in rows if ip.version == 4))
    yield from _fill("sources6", (f"{of_port(port)} . {ip}" for port, ip in rows if ip.version == 6))
    yield from _fill("targets6", (f"{of_port(port)} . 0x{ip.packed.hex()}" for port, ip in rows if ip.version == 6))
    yield from _fill("taken4", four)
    yield from _fill("taken6", (str(ip_address(packed)) for packed in six))
    yield from _fill("taken_targets6", (f"0x{packed.hex()}" for packed in six))
    yield from _fill("unseen", sorted(rules.unfiltered))


def _fill(name: str, elements: Iterable[str]) -> Iterator[str]:
    yield f"flush set {NAME} {name}\n"
    if listed := ", ".join(dict.fromkeys(elements)):
        yield f"add element {NAME} {name} {{ {listed} }}\n"
