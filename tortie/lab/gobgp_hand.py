"""What GoBGP leaves to others: says what it announces, and puts its best ways into the kernel, where this process runs.

python -m tortie.lab.gobgp_hand GOBGP [NETWORK,NEXTHOP ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

EVERY_S = 0.3


def best_ways(table: Mapping[str, Any]) -> dict[str, str]:
    """Destination -> next hop of the ways that GoBGP learnt from a neighbour and would take."""
    ways = {}
    for destination, paths in table.items():
        for path in paths:
            hops = [attribute["nexthop"] for attribute in path.get("attrs", ()) if attribute.get("nexthop")]
            if path.get("best") and path.get("neighbor-ip") and hops:
                ways[destination] = str(hops[0])
    return ways


def batch(held: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Lines for `ip -batch` from one set of ways to another."""
    lines = [f"route replace {to} via {way} proto bgp" for to, way in wanted.items() if held.get(to) != way]
    return lines + [f"route del {to} via {way} proto bgp" for to, way in held.items() if to not in wanted]


def _ask(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main(arguments: Sequence[str]) -> None:
    """For ever."""
    gobgp, *networks = arguments
    unsaid = [network.partition(",") for network in networks]
    held: dict[str, str] = {}
    while True:
        try:
            for network, _, own in list(unsaid):
                _ask(gobgp, "global", "rib", "add", network, "nexthop", own, "-a", _family(network))
                unsaid.remove((network, ",", own))
            wanted: dict[str, str] = {}
            for family in ("ipv4", "ipv6"):
                wanted |= best_ways(json.loads(_ask(gobgp, "-j", "global", "rib", "-a", family) or "{}"))
            if lines := batch(held, wanted):
                _ask("ip", "-force", "-batch", "-", text="\n".join(lines) + "\n")
            held = wanted
        except (OSError, ValueError) as error:
            print(error, flush=True)  # not there yet, or gone for a moment: the log says so
        time.sleep(EVERY_S)


def _family(network: str) -> str:
    return "ipv6" if ":" in network else "ipv4"


if __name__ == "__main__":
    main(sys.argv[1:])
