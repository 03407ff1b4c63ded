"""healthCheckNodePort: a load balancer asks each node whether it has an endpoint of a service.

    GET / -> 200 when there is one, 503 when there is none; with kube-proxy's body

One server listens on all such ports; they come and go with the services.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from chassis.health import Health
from services.node_dataplane.service_proxy.core import HealthPort

if TYPE_CHECKING:
    from aiohttp import web

CAUSE = "health check node ports"
RETRY_S = 10.0


class HealthPorts:
    def __init__(self, health: Health) -> None:
        self._health = health
        self._wanted: Mapping[int, HealthPort] = {}
        self._sites: dict[int, web.TCPSite] = {}
        self._woken = asyncio.Event()

    def want(self, ports: Mapping[int, HealthPort]) -> None:
        if ports.keys() != self._wanted.keys():
            self._woken.set()
        self._wanted = dict(ports)

    @property
    def listening(self) -> frozenset[int]:
        return frozenset(self._sites)

    async def run(self) -> None:
        """For ever: the ports that are wanted, and no others. Nothing is imported before there is one."""
        await self._woken.wait()
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            while True:
                faults = await self._settle(runner)
                self._health.note(CAUSE, "; ".join(faults) or None)
                try:
                    async with asyncio.timeout(RETRY_S if faults else None):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            await runner.cleanup()

    async def _settle(self, runner: web.AppRunner) -> list[str]:
        from aiohttp import web

        self._woken.clear()
        for port in self._sites.keys() - self._wanted.keys():
            await self._sites.pop(port).stop()
        faults = []
        for port in sorted(self._wanted.keys() - self._sites.keys()):
            site = web.TCPSite(runner, None, port)
            try:
                await site.start()
            except OSError as error:
                await site.stop()
                why = errno.errorcode.get(error.errno or 0, "") or str(error)
                service = self._wanted[port]
                faults.append(f"nobody answers on port {port} of {service.namespace}/{service.name}: {why}")
            else:
                self._sites[port] = site
        return faults

    async def _answer(self, request: web.Request) -> web.Response:
        from aiohttp import web

        transport = request.transport
        port = transport.get_extra_info("sockname")[1] if transport is not None else 0
        found = self._wanted.get(port)
        if found is None:
            return web.Response(status=404)
        body = {
            "service": {"namespace": found.namespace, "name": found.name},
            "localEndpoints": found.local,
            "serviceProxyHealthy": True,
        }
        return web.Response(
            body=msgspec.json.encode(body),
            status=200 if found.local else 503,
            content_type="application/json",
            headers={"X-Load-Balancing-Endpoint-Weight": str(found.local)},
        )
