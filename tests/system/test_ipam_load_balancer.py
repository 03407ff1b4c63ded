"""Services of type LoadBalancer on a real bus: two replicas, the one with the duty dies, the other goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bus_schemas.ids import HandleId
from bus_schemas.ipam import ServiceAddresses, load_balancer_handle
from bus_schemas.resources import Metadata, Service
from bus_schemas.resources.services import ServiceSpec
from bus_schemas.subjects import HANDLE, LEASE, SERVICE_ADDRESSES
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.feed import Interest
from chassis.health import Health
from services.ipam.duties import LEASE as DUTIES
from services.ipam.settings import Settings
from tests.support.ipam import desired, pool, without
from tests.support.ipam_process import ipam_process

POOL = pool("edge", "192.0.2.0/28", allowed_uses=("LoadBalancer",), block_size=30)
PATIENCE_S = 30.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path) as running:
        yield running


async def said(bus: Bus, name: str, fits: Callable[[ServiceAddresses | None], bool]) -> ServiceAddresses | None:
    """What is said of a Service as soon as it is as expected."""
    async with asyncio.timeout(PATIENCE_S), bus.follow(Interest(SERVICE_ADDRESSES)) as feed:
        while True:
            value: ServiceAddresses | None = (await bus.get(SERVICE_ADDRESSES, ("web", name))).value
            if fits(value):
                return value
            await feed.next()


def service(name: str, **spec: object) -> Service:
    return Service(
        metadata=Metadata(name=name, namespace="web"),
        spec=ServiceSpec(**{"type": "LoadBalancer", **spec}),  # type: ignore[arg-type]
    )


async def put(bus: Bus, resource: Service) -> None:
    fact = desired(resource)
    await bus.put(fact.family, fact.key, fact.value)


def has_one(value: ServiceAddresses | None) -> bool:
    return value is not None and bool(value.addresses)


def has_none(value: ServiceAddresses | None) -> bool:
    return value is not None and not value.addresses and bool(value.reason)


async def test_services_have_addresses_and_give_them_back(server: EmbeddedNats) -> None:
    async with (
        Bus.connect(Settings(nats_url=server.url), name="test", health=Health()) as bus,
        ipam_process(server.url, "ipam-0") as first,
        ipam_process(server.url, "ipam-1") as second,
    ):
        await bus.connected()
        await put(bus, service("early"))
        missing = await said(bus, "early", has_none)
        assert missing is not None
        assert "there is no IPPool" in missing.reason

        await bus.put(POOL.family, POOL.key, POOL.value)
        early = await said(bus, "early", has_one)
        await put(bus, service("fixed", load_balancer_ip="192.0.2.9"))
        fixed = await said(bus, "fixed", has_one)
        assert fixed is not None
        assert fixed.addresses == ("192.0.2.9",)

        lease = (await bus.get(LEASE, (DUTIES,))).value
        (first if lease.holder == "ipam-0" else second).kill()

        gone = without(desired(service("fixed")))
        await bus.delete(gone.family, gone.key)
        await put(bus, service("late"))
        assert await said(bus, "late", has_one)
        assert await said(bus, "fixed", lambda value: value is None) is None
        assert (await bus.get(SERVICE_ADDRESSES, ("web", "early"))).value == early
        for name, there in (("early", True), ("late", True), ("fixed", False)):
            handle: HandleId = load_balancer_handle("web", name)
            assert ((await bus.get(HANDLE, (handle,))).value is not None) is there

        await put(bus, service("late", type="ClusterIP"))
        assert await said(bus, "late", lambda value: value is None) is None
