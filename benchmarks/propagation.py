"""From a request to the api until the kernel of another node enforces it: a pod's label, a policy.

    python -m benchmarks.propagation [--rounds 120]

A lab of two nodes with the real services, started as users start them. The client's label, or the policy, is changed
by one request to the api; the clock stops when the kernel of the *server's* node has committed, as it says itself (see
`nft_watch`), and real packets then prove the new verdict: a commit that did not bring it does not count, and the next
one is waited for. The whole way is: api, bus, policy compiler, bus, agent, kernel.

Two floors are taken in the same rounds: one message written to the bus and heard by somebody else, which every such way
does at least twice, and the `nft` program adding one element, which is what the last step alone costs those who use it.
Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.figures import p50, show, spread
from benchmarks.floors import BusFloor, NftFloor
from benchmarks.lab_cluster import POOL, cluster
from benchmarks.nft_watch import NftWatch
from bus_schemas.ids import PodKey
from chassis.bus import Bus
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.netns import namespaces
from tortie import netns
from tortie.cli.client import Client
from tortie.lab import ownership
from tortie.lab.cluster import NATS_PORT, Cluster
from tortie.lab.scenario import Place
from tortie.lab.topology import CONTROL_ADDRESS

PORT = 80
DOCUMENT = f"""
name: propagation
nodes:
  n1: {{address: 10.0.0.11/24}}
  n2: {{address: 10.0.0.12/24}}
resources: |{POOL}
namespaces: {{bench: {{}}}}
pods:
  bench/client: {{node: n1, labels: {{role: friend}}}}
  bench/server: {{node: n2, labels: {{app: server}}, listen: [tcp/{PORT}]}}
"""
CLIENT = PodKey("bench", "client")
SERVER = PodKey("bench", "server")
PAUSE_S = 0.02
"""Between rounds, so that none of them meets the end of the one before."""
DENIED_S = 0.03
"""A connection that is not there after this time is taken for denied."""
ALLOWED_S = 0.25

Manifest = dict[str, object]


def policy(name: str, pods: dict[str, str], friends: str, port: int = PORT) -> Manifest:
    """Lets `role: <friends>` in on one port, and isolates the pods from everybody else."""
    rule = {
        "from": [{"podSelector": {"matchLabels": {"role": friends}}}],
        "ports": [{"protocol": "TCP", "port": port}],
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "bench"},
        "spec": {"podSelector": {"matchLabels": pods}, "policyTypes": ["Ingress"], "ingress": [rule]},
    }


class Bench:
    """The lab, its api, and the eye on the server's node."""

    def __init__(self, lab: Cluster, watch: NftWatch) -> None:
        self._api = Client(ownership.api_address(lab.name))
        self._watch = watch
        self._address = lab.address(Place("pod", str(SERVER)))
        self._client = lab.pods[CLIENT].netns
        self._pod = lab.pods[CLIENT].manifest()

    def apply(self, manifest: Manifest) -> None:
        self._api.apply(json.dumps(manifest))

    def delete(self, name: str) -> None:
        self._api.delete_one("networkpolicy", name, "bench")

    def label(self, role: str) -> None:
        self._pod["metadata"]["labels"] = {"role": role}
        self.apply(self._pod)

    def reaches(self, expected: bool) -> bool:
        """Whether the client's packets reach the server now."""
        with netns.inside(self._client):
            connection = socket.socket()
        with connection:
            connection.settimeout(ALLOWED_S if expected else DENIED_S)
            try:
                connection.connect((self._address, PORT))
            except TimeoutError:
                return False
            return True

    def until(self, change: Callable[[], None], *, allowed: bool) -> tuple[float, float]:
        """(milliseconds until the change is enforced, until the api answered)."""
        self._watch.forget()
        began = time.perf_counter()
        change()
        answered = time.perf_counter()
        while True:
            committed = self._watch.next()
            if self.reaches(allowed) == allowed:
                return (committed - began) * 1e3, (answered - began) * 1e3

    def rounds(self, number: int, floors: Callable[[], None]) -> dict[str, list[tuple[float, float]]]:
        taken: dict[str, list[tuple[float, float]]] = {}

        def take(what: str, change: Callable[[], None], *, allowed: bool) -> None:
            time.sleep(PAUSE_S)
            taken.setdefault(what, []).append(self.until(change, allowed=allowed))

        self.until(lambda: self.apply(policy("door", {"app": "server"}, "friend")), allowed=True)
        for turn in range(number):
            take("label taken: denied", lambda: self.label("stranger"), allowed=False)
            take("label given: allowed", lambda: self.label("friend"), allowed=True)
            take(
                "policy changed: denied",
                lambda: self.apply(policy("door", {"app": "server"}, "friend", PORT + 1)),
                allowed=False,
            )
            take(
                "policy created: allowed",
                lambda: self.apply(policy("second", {"app": "server"}, "friend")),
                allowed=True,
            )
            take("policy deleted: denied", lambda: self.delete("second"), allowed=False)
            take(
                "policy changed: allowed",
                lambda: self.apply(policy("door", {"app": "server"}, "friend")),
                allowed=True,
            )
            floors()
            if turn % 20 == 19:
                print(f"  {turn + 1} of {number} rounds", flush=True)
        return taken


@contextmanager
def _inside(namespace: str) -> Iterator[None]:
    with netns.inside(namespace):
        yield


async def run(number: int) -> None:
    async with cluster(DOCUMENT) as lab:
        with netns.inside(lab.netns(Place("node", "n2"))):
            watch = NftWatch()
        settings = ServiceSettings(nats_url=f"nats://{CONTROL_ADDRESS}:{NATS_PORT}", health_listen="")
        with watch, namespaces(1) as (scratch,), _inside(lab.topology.control.netns):
            async with (
                Bus.connect(settings, name="bench", health=Health()) as writer,
                Bus.connect(settings, name="bench", health=Health()) as reader,
                BusFloor(writer, reader) as bus_floor,
            ):
                nft_floor = NftFloor.alone(scratch)
                loop = asyncio.get_running_loop()

                def floors() -> None:
                    asyncio.run_coroutine_threadsafe(bus_floor.take(), loop).result()
                    nft_floor.take()

                taken = await asyncio.to_thread(Bench(lab, watch).rounds, number, floors)
    floor = p50(bus_floor.times)
    rows = []
    for what, pairs in taken.items():
        enforced = [pair[0] for pair in pairs]
        rows.append(
            {
                "what": what,
                **spread(enforced),
                "the api answered after, p50 ms": round(p50([pair[1] for pair in pairs]), 2),
                "of one bus hop": f"{p50(enforced) / floor:.0f}x",
            }
        )
    rows.append({"what": "one bus hop: written, heard by another", **spread(bus_floor.times), "of one bus hop": "1x"})
    rows.append({"what": "the nft program adds one element", **spread(nft_floor.times)})
    show("From the request to the api until the other node's kernel enforces it", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=120)
    asyncio.run(run(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
