"""A pod of the lab: a namespace plugged into its node by the real CNI plugin, as a container runtime would do it.

Source: the CNI specification 1.0, https://www.cni.dev/docs/spec/.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from typing import Any
from uuid import uuid4

import tortie
from bus_schemas.ids import PodKey
from tortie.lab import netns
from tortie.lab.errors import PluginFailed
from tortie.lab.listeners import Listeners
from tortie.lab.processes import clean_environment
from tortie.lab.scenario import PodSpec, port

PLUGIN = Path(tortie.__file__).parent / "cni" / "plugin.py"
CNI_VERSION = "1.0.0"
DEVICE = "eth0"


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

    def manifest(self) -> dict[str, Any]:
        """The Pod resource that Kubernetes would hold."""
        ports = []
        for name, text in self.spec.ports.items():
            protocol, number = port(text)
            ports.append({"name": name, "protocol": protocol.upper(), "containerPort": number})
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": self.key.namespace,
                "name": self.key.name,
                "uid": self.uid,
                "labels": dict(self.spec.labels),
                "annotations": dict(self.spec.annotations),
            },
            "spec": {
                "nodeName": self.spec.node,
                "serviceAccountName": self.spec.service_account,
                "containers": [{"name": "main", "ports": ports}],
            },
        }

    async def plug_in(self, node_netns: str, socket: Path) -> None:
        """CNI ADD, then the listeners. Raises PluginFailed."""
        result = await self._plugin("ADD", node_netns, socket)
        self.addresses = tuple(str(ip_interface(ip["address"]).ip) for ip in result["ips"])
        self.link = next(device["name"] for device in result["interfaces"] if not device.get("sandbox"))
        for text in self.spec.listen:
            await self.listeners.open(*port(text))

    async def unplug(self, node_netns: str, socket: Path) -> None:
        """CNI DEL. Raises PluginFailed."""
        self.listeners.close()
        await self._plugin("DEL", node_netns, socket)

    async def _plugin(self, command: str, node_netns: str, socket: Path) -> Mapping[str, Any]:
        configuration = {"cniVersion": CNI_VERSION, "name": "tortie", "type": "tortie", "socket": str(socket)}
        identity = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.key.namespace,
            "K8S_POD_NAME": self.key.name,
            "K8S_POD_INFRA_CONTAINER_ID": self.container,
            "K8S_POD_UID": self.uid,
        }
        environment = clean_environment() | {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": str(netns.path(self.netns)),
            "CNI_IFNAME": DEVICE,
            "CNI_PATH": str(PLUGIN.parent),
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in identity.items()),
        }
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(PLUGIN)),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: netns.enter(node_netns),
        )
        try:
            out, err = await child.communicate(json.dumps(configuration).encode())
        except BaseException:  # a runtime that gives up kills its plugin
            if child.returncode is None:
                child.kill()
                await child.wait()
            raise
        try:
            answer: dict[str, Any] = json.loads(out) if out.strip() else {}
        except ValueError:
            answer = {"msg": out.decode(errors="replace")}
        if child.returncode:
            reason = ": ".join(filter(None, (answer.get("msg"), answer.get("details")))) or err.decode().strip()
            raise PluginFailed(f"CNI {command} of {self.key} on {self.spec.node}: {reason}")
        return answer
