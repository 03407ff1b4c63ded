"""`tortie node explain NODE` by the real api: what the agent said on the bus, and that nobody says anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.node_facts import FACTS_TTL_S, AddressFact, MtuFact, NodeFacts
from bus_schemas.subjects import NODE_FACTS
from tests.support.api import NODE
from tests.support.api_server import Api, running
from tests.support.nats import Nats
from tests.support.waiting import until

ADDRESS = AddressFact(family=4, address="10.0.0.15/24", device="eth0", method="auto", source="by default")
FACTS = NodeFacts(node=NodeName("node1"), time=5.0, addresses=(ADDRESS,), mtu=MtuFact(pods=1450))


@pytest.fixture
async def api(nats: Nats, tmp_path: Path) -> AsyncIterator[Api]:
    async with running(nats.url, tmp_path) as started:
        yield started


async def test_facts_of_a_node(api: Api) -> None:
    assert (await api.get("/v1/nodes/node1/facts"))[0] == 404
    await api.post("/v1/apply", NODE)
    status, answer = await api.get("/v1/nodes/node1/facts")
    assert (status, answer["facts"]) == (200, None)
    await api.bus.put(NODE_FACTS, ("node1",), FACTS, ttl_s=FACTS_TTL_S)

    async def told() -> bool:
        return (await api.get("/v1/nodes/node1/facts"))[1]["facts"] is not None

    await until(told, "the api hears of it")
    facts = (await api.get("/v1/nodes/node1/facts"))[1]["facts"]
    assert (facts["addresses"][0]["address"], facts["mtu"]["pods"]) == ("10.0.0.15/24", 1450)
