"""Those who judge by packets, judged: what passes, what is dropped, refused, or answered by somebody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from itertools import product
from typing import NamedTuple

import pytest

from bus_schemas.ids import PodKey
from tests.support.netns import Namespace, namespaces, veth
from tests.support.packet_tables import ANSWERED, SILENT, Field, Way, as_expected

pytestmark = pytest.mark.root

LEFT, RIGHT = PodKey("x", "left"), PodKey("x", "right")
PLANS = {4: "10.0.0.{}/24", 6: "fd00::{}/64"}


class Pair(NamedTuple):
    """Two pods that see each other."""

    field: Field
    right: Namespace
    ways: list[Way]
    """From the left one to the right one, all of one family."""

    @property
    def everything(self) -> dict[Way, bool]:
        return dict.fromkeys(self.ways, True)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    field = Field()
    addresses = (PLANS[request.param].format(1), PLANS[request.param].format(2))
    with namespaces(2) as (left, right):
        veth(left, "eth0", right, "eth0", addresses=addresses)
        for pod, namespace, address in zip((LEFT, RIGHT), (left, right), addresses, strict=True):
            field.add(pod, namespace.path, [address.partition("/")[0]])
        services = product(("TCP", "UDP", "SCTP"), (80, 81))
        yield Pair(field, right, [Way(LEFT, RIGHT, *service, request.param) for service in services])
        field.close()


def _filter(namespace: Namespace, *rules: str) -> None:
    lines = "; ".join(rules)
    namespace.run(
        "nft", "-f", "-", text=f"table inet test {{ chain input {{ type filter hook input priority 0; {lines}; }}; }}"
    )


async def test_what_passes_is_answered(pair: Pair) -> None:
    field, everything = pair.field, pair.everything
    for seen in (await field.glance(everything), await field.stare(everything)):
        assert seen == dict.fromkeys(everything, ANSWERED)
        assert as_expected(everything, seen)


async def test_what_is_dropped_is_silent(pair: Pair) -> None:
    field, right, ways = pair
    _filter(right, *(f"{protocol} dport 81 drop" for protocol in ("tcp", "udp", "sctp")))
    seen = await field.stare(pair.everything)
    assert seen == {way: SILENT if way.port == 81 else ANSWERED for way in ways}
    assert not as_expected(pair.everything, seen)
    assert as_expected({way: way.port == 80 for way in ways}, seen)


async def test_what_is_refused_is_neither(pair: Pair) -> None:
    field, right, ways = pair
    _filter(right, "tcp dport 81 reject with tcp reset", "udp dport 81 reject with icmpx admin-prohibited")
    seen = await field.stare(pair.everything)
    for way in ways:
        if way.port == 81 and way.protocol != "SCTP":
            assert seen[way].startswith("refused")
            assert not as_expected({way: True}, seen)
            assert not as_expected({way: False}, seen)


async def test_an_answer_from_somebody_else_is_no_answer(pair: Pair) -> None:
    """Redirected on the way, as a wrong route or a wrong translation would do."""
    field, right, ways = pair
    chain = "type nat hook prerouting priority dstnat; tcp dport 80 redirect to :7"
    right.run("nft", "-f", "-", text=f"table inet wrong {{ chain redirected {{ {chain}; }}; }}")
    with right.inside():
        impostor = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
    with impostor:
        way = next(way for way in ways if way.protocol == "TCP" and way.port == 80)

        def answer() -> None:
            connection, _ = impostor.accept()
            with connection:
                connection.send(b"y/impostor")

        asyncio.get_running_loop().add_reader(impostor, answer)
        seen = await field.stare({way: True})
        asyncio.get_running_loop().remove_reader(impostor)
    assert seen == {way: "answered by y/impostor"}
