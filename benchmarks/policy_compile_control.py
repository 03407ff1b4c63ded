"""A service that computes nothing, beside which the policy compiler's figures are told.

    python -m benchmarks.policy_compile_control URL

It hears a route through the same chassis, in a process of its own, and writes two others, one after the other, as the
compiler does with a group and an attachment: what any service on this bus and this machine costs.
"""

from __future__ import annotations

import sys

import uvloop

from bus_schemas.ids import NodeName
from bus_schemas.routes import Route
from bus_schemas.subjects import ROUTE, Fact
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.health import Health
from chassis.settings import ServiceSettings

ASKED = ("192.0.2.0/32",)
ANSWERS = (("192.0.2.1/32",), ("192.0.2.2/32",))


def asked(turn: int) -> Fact:
    return Fact(ROUTE, ASKED, Route(cidr=ASKED[0], node=NodeName(f"node-{turn}")))


async def serve(url: str) -> None:
    settings = ServiceSettings(nats_url=url, instance="control", health_listen="")
    async with Bus.connect(settings, name="control", health=Health()) as bus, bus.follow(Interest(ROUTE)) as feed:
        sequences = dict.fromkeys(ANSWERS, 0)
        while True:
            for fact in (await feed.next()).facts:
                if fact.key != ASKED:
                    continue
                for key in ANSWERS:
                    sequences[key] = await bus.swap(ROUTE, key, fact.value, expected=sequences[key])


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
