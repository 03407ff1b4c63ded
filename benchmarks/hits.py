"""What one reading of the policy counters costs, and whether commits feel it.

    python -m benchmarks.hits --counters 2000

A table with so many counter objects in a network namespace of its own; the reading as the agent does it (one dump, raw
netlink), beside the same through libnftables' text, and a commit of one element beside the same while readings go on
without a pause. Needs root.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable

from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft import counters, encode
from services.node_dataplane.nft.libnftables import Libnftables
from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.sets import ADDRESSES4
from services.node_dataplane.nft.transaction import Elements
from tests.support.netns import namespaces


def timed(repeat: int, what: Callable[[], object]) -> float:
    """The median, in microseconds."""
    spent = []
    for _ in range(repeat):
        started = time.perf_counter()
        what()
        spent.append((time.perf_counter() - started) * 1e6)
    return statistics.median(spent)


def measure(number: int, repeat: int) -> None:
    with namespaces(1) as (node,), node.inside():
        text = [f"add table inet {TABLE}", f"add set inet {TABLE} g4 {{ {ADDRESSES4.declaration} }}"]
        text += [f"add counter inet {TABLE} allow_ingress_{n:026} {{ packets {n} bytes {n} }}" for n in range(number)]
        libnftables = Libnftables()
        libnftables.run("\n".join(text))
        with NetlinkSocket(NETLINK_NETFILTER) as reader, NetlinkSocket(NETLINK_NETFILTER) as writer:

            def read() -> None:
                assert len(counters.read(reader.stream(counters.dump()))) == number

            def kernel() -> None:
                for _ in reader.stream(counters.dump()):
                    pass

            def commit() -> None:
                rows = ((bytes((10, 0, 0, 1)), ""),)
                for verb in ("add", "delete"):
                    change = Elements(verb, "g4", ADDRESSES4, rows)  # type: ignore[arg-type]
                    writer.execute(encode.batch([change]), "elements")

            whole, dump = timed(repeat, read), timed(repeat, kernel)
            print(f"{number} counters: one reading {whole:.0f} us, of which the dump {dump:.0f}")
            listing = timed(5, lambda: libnftables.json(f"list counters table inet {TABLE}"))
            print(f"  the same through libnftables {listing:.0f} us")
            alone = timed(repeat * 5, commit)
            stop = threading.Event()

            def again_and_again() -> None:
                while not stop.is_set():
                    read()

            thread = threading.Thread(target=again_and_again)
            thread.start()
            beside = timed(repeat * 5, commit)
            stop.set()
            thread.join()
            print(f"  one element in and out {alone:.0f} us; while readings go on without a pause {beside:.0f} us")
        libnftables.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--counters", type=int, nargs="+", default=[2000])
    parser.add_argument("--repeat", type=int, default=30)
    arguments = parser.parse_args()
    for number in arguments.counters:
        measure(number, arguments.repeat)


if __name__ == "__main__":
    main()
