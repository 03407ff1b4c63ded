"""What it costs to look for connections that a changed policy no longer allows.

    python -m benchmarks.cutting --connections 20000

So many connections of one pod through a node in a network namespace; the search for those of a few pods (the kernel is
asked for their addresses), for those of many (one dump of everything), and the verdicts. Beside them, what a commit of
one element costs alone and while dumps go on without a pause. Needs root.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import threading
import time
from collections.abc import Callable

from bus_schemas.policy import Match, Rule
from services.node_dataplane import cutting
from services.node_dataplane.connection_cutter import FEW, Kernel
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft import encode
from services.node_dataplane.nft.libnftables import Libnftables
from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.sets import ADDRESSES4
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.nft.transaction import Elements
from tests.support.netns import Namespace, namespaces, veth
from tests.support.nft_worlds import attach, direction, group, groups, plug, pod, rules, tell, tier

POD = "10.1.0.2"


def timed(repeat: int, what: Callable[[], object]) -> float:
    """The median, in milliseconds."""
    spent = []
    for _ in range(repeat):
        started = time.perf_counter()
        what()
        spent.append((time.perf_counter() - started) * 1e3)
    return statistics.median(spent)


def connect(client: Namespace, number: int) -> None:
    """So many flows of one datagram each."""
    with client.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for index in range(number):
            sender.sendto(b"x", (f"10.2.{index % 200}.2", 1024 + index // 200))


def world() -> PolicyTable:
    table = PolicyTable()
    plug(table, "a", POD)
    allowed = [Rule(action="allow", destination=Match(groups=groups(f"s:{n}"))) for n in range(5)]
    tell(table, rules("web", egress=allowed), attach("a", egress=direction(tier("web"))))
    tell(table, *(group(f"s:{n}", *(f"10.2.{i}.2" for i in range(n, 200, 5))) for n in range(5)))
    return table


def measure(number: int, repeat: int) -> None:
    with namespaces(3) as (client, node, server), node.inside():
        node.forward()
        for side, name, third in ((client, "c", 1), (server, "s", 2)):
            veth(node, name, side, "eth0", addresses=(f"10.{third}.0.1/16", f"10.{third}.0.2/16"))
        node.ip("neighbour", "add", "10.2.255.254", "lladdr", "02:00:00:00:00:01", "dev", "s")
        node.ip("route", "replace", "10.2.0.0/16", "via", "10.2.255.254", "dev", "s", "onlink")
        client.ip("route", "add", "default", "via", "10.1.0.1")
        libnftables = Libnftables()
        libnftables.run(
            f"""
            add table inet {TABLE}
            add set inet {TABLE} g4 {{ {ADDRESSES4.declaration} }}
            add chain inet {TABLE} forward {{ type filter hook forward priority 0; }}
            add rule inet {TABLE} forward ct state established accept
            """
        )
        node.sysctl("net.netfilter.nf_conntrack_udp_timeout", 600)
        kernel, table = Kernel(), world()
        connect(client, number)
        few = {socket.inet_aton(POD)}
        strangers = {bytes((172, 16, 0, n)) for n in range(FEW + 1)}
        found, own = kernel.connections(few)
        changed = cutting.Changed(pods={pod("a"): set()})
        concerned = cutting.concerned(changed, table.attachments, {pod("a"): (POD,)})

        def judge() -> None:
            assert not list(cutting.not_allowed(found, concerned, table, own))

        print(f"{len(found)} connections of one pod")
        print(f"  theirs found by the kernel    {timed(repeat, lambda: kernel.connections(few)):>8.1f} ms")
        print(f"  theirs found in a whole dump  {timed(repeat, lambda: kernel.connections(few | strangers)):>8.1f} ms")
        print(f"  none found by the kernel      {timed(repeat, lambda: kernel.connections({b'0000'})):>8.1f} ms")
        print(f"  none found in a whole dump    {timed(repeat, lambda: kernel.connections(strangers)):>8.1f} ms")
        judged = timed(repeat, judge)
        print(f"  verdicts                      {judged:>8.1f} ms, {judged / len(found) * 1e3:.1f} us each")
        with NetlinkSocket(NETLINK_NETFILTER) as writer:

            def commit() -> None:
                for verb in ("add", "delete"):
                    change = Elements(verb, "g4", ADDRESSES4, ((bytes((10, 0, 0, 1)), ""),))  # type: ignore[arg-type]
                    writer.execute(encode.batch([change]), "elements")

            alone = timed(repeat * 20, commit)
            stop = threading.Event()

            def again_and_again() -> None:
                while not stop.is_set():
                    kernel.connections(strangers)

            thread = threading.Thread(target=again_and_again)
            thread.start()
            beside = timed(repeat * 20, commit)
            stop.set()
            thread.join()
            print(f"  one element in and out {alone * 1e3:.0f} us; while dumps go on {beside * 1e3:.0f} us (medians)")
        kernel.close()
        libnftables.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, nargs="+", default=[20_000])
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    for number in arguments.connections:
        measure(number, arguments.repeat)


if __name__ == "__main__":
    main()
