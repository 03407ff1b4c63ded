"""Service addresses as a part of the agent: there when the settings ask for it and the kernel can do it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from bus_schemas.ids import NodeName
from chassis.health import Health
from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.nft.verify import takes
from services.node_dataplane.service_proxy import node_ports
from services.node_dataplane.service_proxy.core import Frontend, ServiceProxy, Target
from services.node_dataplane.service_proxy.forgetting import StaleConnections
from services.node_dataplane.service_proxy.health_ports import HealthPorts
from services.node_dataplane.settings import Settings

CAUSE = "service addresses here"


class ServiceAddresses:
    def __init__(self, node: NodeName, networks: node_ports.Networks | None, health: Health) -> None:
        self.proxy = ServiceProxy(node)
        self._networks = networks
        self._stale = StaleConnections(health)
        self._health_ports = HealthPorts(health)

    def close(self) -> None:
        self._stale.close()

    def node_addresses(self, devices: Mapping[str, Iterable[str]], primary: Iterable[str]) -> Iterable[bytes]:
        """On which node ports are served: see `node_ports.served`."""
        return node_ports.served(self._networks, devices, primary)

    def served(self, frontends: Mapping[Frontend, Target | None]) -> None:
        """They are in the kernel."""
        self._stale.changed(frontends)
        self._health_ports.want(self.proxy.health_ports())

    def tasks(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """To be run for ever."""
        return self._stale.run(), self._health_ports.run()


def service_addresses(settings: Settings, node: NodeName, health: Health) -> ServiceAddresses | None:
    """None: nobody asked for it, or this kernel cannot do it, which is noted: policy goes on without."""
    if not settings.service_addresses:
        return None
    try:
        takes("".join(f"{command}\n" for command in PolicyTable(services=True).whole().commands))
    except NftError as error:
        health.note(CAUSE, f"this node does not translate any: its kernel lacks what that needs: {error}")
        return None
    return ServiceAddresses(node, node_ports.read(settings.node_port_addresses), health)
