"""A node whose pods somebody else plugged in, as flannel does it on one node, and frames that no stack would send.

pod a --- veth-a --+
pod b --- veth-b --+- cni0 10.244.1.1, fd00:1::1   node
pod c --- veth-c ----- routed, by a host route
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from tests.support.netns import Namespace, veth

BRIDGE = "cni0"
GATEWAY, GATEWAY6 = "10.244.1.1", "fd00:1::1"
_EVERYBODY = b"\xff" * 6


def bridge(node: Namespace) -> None:
    node.forward()
    node.ip("link", "add", BRIDGE, "type", "bridge")
    node.ip("address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
    node.ip("address", "add", f"{GATEWAY6}/64", "dev", BRIDGE, "nodad")
    node.ip("link", "set", BRIDGE, "up")


def port(node: Namespace, pod: Namespace, link: str, *addresses: str) -> None:
    """As the CNI plugin `bridge` does it, which also tells everybody whose the address is now."""
    veth(node, link, pod, "eth0")
    node.ip("link", "set", link, "master", BRIDGE)
    for address in addresses:
        six = ":" in address
        pod.ip("address", "add", f"{address}/{64 if six else 24}", "dev", "eth0", *(("nodad",) if six else ()))
        pod.ip("route", "add", "default", "via", GATEWAY6 if six else GATEWAY)
        if not six:
            own = mac(pod)
            send(pod, ethernet(_EVERYBODY, own, 0x0806, arp_reply(own, address, _EVERYBODY, address)))


def routed(node: Namespace, pod: Namespace, link: str, address: str) -> None:
    """As the CNI plugin `ptp` does it, with an address of the bridge's network for a gateway."""
    veth(node, link, pod, "eth0")
    node.ip("route", "add", address, "dev", link)
    pod.ip("address", "add", f"{address}/32", "dev", "eth0")
    pod.ip("route", "add", GATEWAY, "dev", "eth0")
    pod.ip("route", "add", "default", "via", GATEWAY)
    node.sysctl(f"net.ipv4.conf.{link}.proxy_arp", 1)


def mac(namespace: Namespace, device: str = "eth0") -> bytes:
    """/sys would show the device of another namespace."""
    with namespace.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        return bytes(sock.getsockname()[4])


def send(namespace: Namespace, frame: bytes, device: str = "eth0") -> None:
    with namespace.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        sock.send(frame.ljust(60, b"\0"))


def ethernet(to: bytes, source: bytes, kind: int, payload: bytes, *, vlan: int | None = None) -> bytes:
    """`vlan`: with an 802.1Q tag of that number."""
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return to + source + tag + struct.pack(">H", kind) + payload


def arp_reply(says: bytes, address: str, to: bytes, asker: str) -> bytes:
    """RFC 826: `address` is at `says`."""
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2)
    return head + says + ip_address(address).packed + to + ip_address(asker).packed


def datagram(source: str, destination: str, port: int, payload: bytes) -> bytes:
    """IPv4 and UDP, the latter without a checksum."""
    udp = struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    head += ip_address(source).packed + ip_address(destination).packed
    total = sum(struct.unpack(">10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:] + udp
