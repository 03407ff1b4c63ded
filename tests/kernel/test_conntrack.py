"""The kernel's memory of connections: read, and forgotten one by one.

client --- [ node ] --- server      10.1.0.2, fd01::2 ; 10.2.0.2, fd02::2; 10.2.0.9 port 90 is really 10.2.0.2 port 80
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from services.node_dataplane import connection_cutter
from services.node_dataplane.connection_cutter import Kernel
from services.node_dataplane.netlink.conntrack import Tracked
from tests.support.netns import Namespace, bind_udp, connect, listen, namespaces, ping, udp, veth

pytestmark = pytest.mark.root

CLIENT, SERVER, SERVICE = "10.1.0.2", "10.2.0.2", "10.2.0.9"
CLIENT6, SERVER6 = "fd01::2", "fd02::2"
RULES = f"""
add table ip nat
add chain ip nat prerouting {{ type nat hook prerouting priority dstnat; }}
add rule ip nat prerouting ip daddr {SERVICE} tcp dport 90 dnat to {SERVER}:80
add chain ip nat postrouting {{ type nat hook postrouting priority srcnat; }}
add rule ip nat postrouting tcp dport 80 masquerade
add table inet watch
add chain inet watch forward {{ type filter hook forward priority 0; }}
add rule inet watch forward ct state established accept
"""


class Lab:
    def __init__(self, client: Namespace, node: Namespace, server: Namespace, stack: ExitStack) -> None:
        self.client, self.node, self.server, self._keep = client, node, server, stack
        node.forward()
        for side, name, number in ((client, "c", 1), (server, "s", 2)):
            veth(node, name, side, "eth0", addresses=(f"10.{number}.0.1/24", f"10.{number}.0.2/24"))
            node.ip("address", "add", f"fd0{number}::1/64", "dev", name, "nodad")
            side.ip("address", "add", f"fd0{number}::2/64", "dev", "eth0", "nodad")
            side.ip("route", "add", "default", "via", f"10.{number}.0.1")
            side.ip("-6", "route", "add", "default", "via", f"fd0{number}::1")
        node.run("nft", "-f", "-", text=RULES)
        self.kernel = node.call(Kernel)
        stack.callback(self.kernel.close)

    def talk(self, address: str, port: int, listening: tuple[str, int]) -> socket.socket:
        self._keep.enter_context(listen(self.server, *listening))
        client = connect(self.client, address, port)
        assert client is not None
        return self._keep.enter_context(client)

    def known(self, *addresses: str) -> dict[tuple[str, str, int, int], Tracked]:
        """By (source, destination, protocol, port), and whichever way the kernel is asked the same."""
        wanted = {ip_address(address).packed for address in addresses}
        many = wanted | {bytes((127, 1, 1, n)) for n in range(connection_cutter.FEW)}
        few, node = self.kernel.connections(wanted)
        assert ip_address("10.1.0.1").packed in node
        assert ip_address("fd02::1").packed in node
        assert set(few) == set(self.kernel.connections(many)[0])
        return {
            (str(ip_address(c.source)), str(ip_address(c.destination)), c.protocol, c.port or c.icmp_type or 0): c
            for c in few
        }


@pytest.fixture
def lab() -> Iterator[Lab]:
    with namespaces(3) as (client, node, server), ExitStack() as stack:
        yield Lab(client, node, server, stack)


def test_who_began_and_who_really_answers(lab: Lab) -> None:
    lab.talk(SERVICE, 90, (SERVER, 80))
    with bind_udp(lab.server, SERVER6, 53) as receiver:
        assert udp(lab.client, receiver, SERVER6, 53)
    assert ping(lab.client, SERVER)
    assert ping(lab.client, SERVER6)
    wanted = {
        (CLIENT, SERVER, 6, 80),
        (CLIENT6, SERVER6, 17, 53),
        (CLIENT, SERVER, 1, 8),
        (CLIENT6, SERVER6, 58, 128),
    }
    assert wanted <= lab.known(CLIENT, CLIENT6).keys()
    assert wanted <= lab.known(SERVER, SERVER6).keys()
    assert not lab.known("10.9.9.9")


def test_one_is_cut_and_the_others_stay(lab: Lab) -> None:
    lab.talk(SERVER, 80, (SERVER, 80))
    lab.talk(SERVER6, 81, (SERVER6, 81))
    before = lab.known(CLIENT, CLIENT6)
    gone = before[CLIENT6, SERVER6, 6, 81]
    lab.kernel.cut([gone])
    assert set(lab.known(CLIENT, CLIENT6)) == before.keys() - {(CLIENT6, SERVER6, 6, 81)}
    lab.kernel.cut([gone, before[CLIENT, SERVER, 6, 80]])
    assert not lab.known(CLIENT)
