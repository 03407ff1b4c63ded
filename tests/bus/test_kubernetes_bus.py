"""The three servers of k8s/overlays/highly-available, with the configuration and the variables of the manifests."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chassis import embedded
from chassis.bus import Bus
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.kustomized import KUBECTL, Container, containers, environment, of_kind
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not KUBECTL, reason="needs kubectl: apt-get install kubernetes-client")

OVERLAY = "highly-available"
NETWORK = "127.84.9"
"""Of loopback: a Service's address is its server's here."""


def container(name: str) -> Container:
    (found,) = (c for c in containers() if c.overlay == OVERLAY and c.spec["name"] == name)
    return found


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[None]:
    bus = container("nats")
    (text,) = (o["data"]["nats.conf"] for o in of_kind(OVERLAY, "ConfigMap"))
    told = environment(bus, network=NETWORK)
    with ExitStack() as stack:
        for number in range(3):
            pod, store = f"tortie-nats-{number}", tmp_path / str(number)
            store.mkdir()
            # In a cluster each is alone on its node: here the monitor and the store must be told apart.
            mine = text.replace("http: 127.0.0.1:8222\n", "").replace("store_dir: /data", f"store_dir: {store}")
            (store / "nats.conf").write_text(mine)
            host = told[f"TORTIE_NATS_{number}_SERVICE_HOST"]
            server = subprocess.Popen(
                [embedded.binary(), "--config", store / "nats.conf"],
                env=environment(bus, pod=pod, host=host, network=NETWORK),
                stderr=subprocess.DEVNULL,
                preexec_fn=embedded.die_with_parent,
            )
            stack.callback(server.wait)
            stack.callback(server.terminate)
        yield


async def test_three_servers_are_one_bus_for_those_who_know_the_password(servers: None) -> None:
    url = environment(container("agent"), network=NETWORK)["TORTIE_NATS_URL"]
    health = Health()
    settings = ServiceSettings(nats_url=url, nats_replicas=3, health_listen="")
    async with Bus.connect(settings, name="test", health=health) as client:
        async with asyncio.timeout(60):
            await client.connected()

        async def ready() -> bool:
            return health.ready

        await until(ready, "the streams are kept by three servers")
    stranger = Health()
    without = ServiceSettings(nats_url=url.replace("tortie:s@", ""), nats_replicas=3, health_listen="")
    async with Bus.connect(without, name="stranger", health=stranger):

        async def refused() -> bool:
            return "authorization violation" in stranger.causes.get("bus", "").lower()

        await until(refused, "who has no password is refused")
