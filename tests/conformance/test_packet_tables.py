"""Those who judge by packets, judged: what passes, what is dropped, refused, or answered by somebody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from itertools import product

import pytest

from bus_schemas.ids import PodKey
from tests.support.netns import Namespace, namespaces, veth
from tests.support.packet_tables import ANSWERED, SILENT, Field, Way, as_expected

pytestmark = pytest.mark.root

LEFT, RIGHT = PodKey("x", "left"), PodKey("x", "right")
WAYS = [Way(LEFT, RIGHT, protocol, port) for protocol, port in product(("TCP", "UDP", "SCTP"), (80, 81))]
EVERYTHING = dict.fromkeys(WAYS, True)


@pytest.fixture(params=["10.0.0.{}/24", "fd00::{}/64"], ids=["IPv4", "IPv6"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Field, Namespace]]:
    """Two pods that see each other, and the namespace of the right one."""
    field = Field()
    addresses = (request.param.format(1), request.param.format(2))
    with namespaces(2) as (left, right):
        veth(left, "eth0", right, "eth0", addresses=addresses)
        for pod, namespace, address in zip((LEFT, RIGHT), (left, right), addresses, strict=True):
            field.add(pod, namespace.path, address.partition("/")[0])
        yield field, right
        field.close()


def _filter(namespace: Namespace, *rules: str) -> None:
    lines = "; ".join(rules)
    namespace.run(
        "nft", "-f", "-", text=f"table inet test {{ chain input {{ type filter hook input priority 0; {lines}; }}; }}"
    )


async def test_what_passes_is_answered(pair: tuple[Field, Namespace]) -> None:
    field, _ = pair
    for seen in (await field.glance(EVERYTHING), await field.stare(EVERYTHING)):
        assert seen == dict.fromkeys(WAYS, ANSWERED)
        assert as_expected(EVERYTHING, seen)


async def test_what_is_dropped_is_silent(pair: tuple[Field, Namespace]) -> None:
    field, right = pair
    _filter(right, *(f"{protocol} dport 81 drop" for protocol in ("tcp", "udp", "sctp")))
    seen = await field.stare(EVERYTHING)
    assert seen == {way: SILENT if way.port == 81 else ANSWERED for way in WAYS}
    assert not as_expected(EVERYTHING, seen)
    assert as_expected({way: way.port == 80 for way in WAYS}, seen)


async def test_what_is_refused_is_neither(pair: tuple[Field, Namespace]) -> None:
    field, right = pair
    _filter(right, "tcp dport 81 reject with tcp reset", "udp dport 81 reject with icmpx admin-prohibited")
    seen = await field.stare(EVERYTHING)
    for way in WAYS:
        if way.port == 81 and way.protocol != "SCTP":
            assert seen[way].startswith("refused")
            assert not as_expected({way: True}, seen)
            assert not as_expected({way: False}, seen)


async def test_an_answer_from_somebody_else_is_no_answer(pair: tuple[Field, Namespace]) -> None:
    """Redirected on the way, as a wrong route or a wrong translation would do."""
    field, right = pair
    chain = "type nat hook prerouting priority dstnat; tcp dport 80 redirect to :7"
    right.run("nft", "-f", "-", text=f"table inet wrong {{ chain redirected {{ {chain}; }}; }}")
    with right.inside():
        impostor = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
    with impostor:
        way = Way(LEFT, RIGHT, "TCP", 80)

        def answer() -> None:
            connection, _ = impostor.accept()
            with connection:
                connection.send(b"y/impostor")

        asyncio.get_running_loop().add_reader(impostor, answer)
        seen = await field.stare({way: True})
        asyncio.get_running_loop().remove_reader(impostor)
    assert seen == {way: "answered by y/impostor"}
