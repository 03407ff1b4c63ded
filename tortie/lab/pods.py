"""A pod of the lab: a namespace plugged into its node by the real CNI plugin, as a container runtime would do it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from bus_schemas.ids import PodKey
from tortie import netns
from tortie.lab.errors import PluginFailed
from tortie.lab.listeners import Listeners
from tortie.lab.scenario import PodSpec, port
from tortie.pods import errors, manifest, plugging
from tortie.pods.plugging import Attachment

DEVICE = plugging.DEVICE
NETWORK = "tortie"


@dataclass
class Pod:
    key: PodKey
    spec: PodSpec
    netns: str
    container: str = field(default_factory=lambda: uuid4().hex)
    uid: str = field(default_factory=lambda: str(uuid4()))
    addresses: tuple[str, ...] = ()
    """Plain, without a mask; empty until it is plugged in."""
    link: str = ""
    """Its device on its node."""
    listeners: Listeners = field(init=False)

    def __post_init__(self) -> None:
        self.listeners = Listeners(self.netns)

    def manifest(self, *, addresses: tuple[str, ...] = ()) -> dict[str, Any]:
        """The Pod resource that Kubernetes would hold; `addresses`: as a kubelet has told them."""
        return manifest.pod(
            self.key,
            uid=self.uid,
            node=self.spec.node,
            labels=self.spec.labels,
            annotations=self.spec.annotations,
            ports={name: port(text) for name, text in self.spec.ports.items()},
            service_account=self.spec.service_account,
            addresses=addresses,
        )

    async def plug_in(self, node_netns: str, socket: Path) -> None:
        """CNI ADD, then the listeners. Raises PluginFailed."""
        try:
            plugged = await plugging.add(self._attachment(node_netns, socket))
        except errors.PluginFailed as error:
            raise self._failed("ADD", error) from error
        self.addresses, self.link = plugged.addresses, plugged.link
        await self.listen()

    async def listen(self) -> None:
        """Opens its ports."""
        for text in self.spec.listen:
            await self.listeners.open(*port(text))

    async def unplug(self, node_netns: str, socket: Path) -> None:
        """CNI DEL. Raises PluginFailed."""
        self.listeners.close()
        try:
            await plugging.delete(self._attachment(node_netns, socket))
        except errors.PluginFailed as error:
            raise self._failed("DEL", error) from error

    def _attachment(self, node_netns: str, socket: Path) -> Attachment:
        return Attachment(
            key=self.key,
            container=self.container,
            uid=self.uid,
            netns=netns.path(self.netns),
            network=NETWORK,
            socket=socket,
            enter=lambda: netns.enter(node_netns),
        )

    def _failed(self, command: str, error: errors.PluginFailed) -> PluginFailed:
        return PluginFailed(f"CNI {command} of {self.key} on {self.spec.node}: {error}")
