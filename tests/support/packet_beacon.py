"""A light on every node that shows how far policy has come.

With every change of the world a policy of a new name goes along, last of all: it lets the beacon pods, one on each
node, reach one another on one port, on another one each turn. Its rules and its group are new each time, so it takes
the same way to the kernel as whatever was changed before it; where it shows, that has arrived. Without it a table that
is the same before and after a change would prove nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Final

from bus_schemas.ids import PodKey
from bus_schemas.resources import KubernetesNetworkPolicy, Namespace, Pod
from tests.support import truth_tables
from tests.support.packet_tables import Way

NAMESPACE: Final = "beacon"
POOL: Final = "10.250.0.0/16"
LABELS: Final = {"beacon": "yes"}
PORTS: Final = (80, 81)
"""They take turns."""


class Beacon:
    def __init__(self, pods: Sequence[str]) -> None:
        """`pods`: names, by which they are on different nodes."""
        self._pods = [
            truth_tables.pod(NAMESPACE, name, LABELS, f"10.250.0.{number}", [])
            for number, name in enumerate(pods, start=1)
        ]
        self._turn = 0

    def next_turn(self) -> None:
        self._turn += 1

    @property
    def standing(self) -> tuple[Namespace | Pod, ...]:
        """What every turn needs."""
        return (truth_tables.namespace(NAMESPACE, {}), *self._pods)

    @property
    def policy(self) -> KubernetesNetworkPolicy:
        """This turn's; the one before it must go."""
        turn = f"turn-{self._turn}"
        beacons = {"matchExpressions": [{"key": "beacon", "operator": "In", "values": ["yes", turn]}]}
        rule = {"from": [{"podSelector": beacons}], "ports": [{"protocol": "UDP", "port": self._port}]}
        return truth_tables.policy(
            {"metadata": {"namespace": NAMESPACE, "name": turn}, "spec": {"podSelector": {}, "ingress": [rule]}}
        )

    @property
    def expected(self) -> Mapping[Way, bool]:
        """What shows that this turn's policy is in force on every node."""
        return {
            Way(PodKey(*source.key), PodKey(*destination.key), "UDP", port): port == self._port
            for source, destination in permutations(self._pods, 2)
            for port in PORTS
        }

    @property
    def _port(self) -> int:
        return PORTS[self._turn % len(PORTS)]
