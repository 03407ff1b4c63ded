"""One call of the CNI plugin, as a container runtime makes it.

Source: the CNI specification 1.1, https://www.cni.dev/docs/spec/.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import tortie
from bus_schemas.ids import PodKey
from tortie.pods.errors import PluginFailed

PLUGIN = Path(tortie.__file__).parent / "cni" / "plugin.py"
CNI_VERSION = "1.1.0"
DEVICE = "eth0"


@dataclass(frozen=True)
class Attachment:
    """What names one pod's link to the agent."""

    key: PodKey
    container: str
    uid: str
    """Of the Pod resource."""
    netns: Path
    network: str
    """Of the CNI configuration: a GC of one network leaves the pods of others alone."""
    socket: Path
    """Where the node's agent listens."""
    enter: Callable[[], None] | None = None
    """Called in the plugin's process before it begins: steps into the node, where that is a namespace."""


@dataclass(frozen=True)
class Plugged:
    addresses: tuple[str, ...]
    """Plain, without a mask."""
    link: str
    """The pod's device on its node."""


async def add(attachment: Attachment) -> Plugged:
    """CNI ADD; returns when the pod's policy is in the kernel. Raises PluginFailed."""
    result = await _of_pod("ADD", attachment)
    return Plugged(
        tuple(str(ip_interface(ip["address"]).ip) for ip in result["ips"]),
        next(device["name"] for device in result["interfaces"] if not device.get("sandbox")),
    )


async def delete(attachment: Attachment) -> None:
    """CNI DEL; a pod that is not plugged in is no fault. Raises PluginFailed."""
    await _of_pod("DEL", attachment)


async def collect(network: str, socket: Path, keep: Iterable[str]) -> None:
    """CNI GC: every pod of the network is unplugged but these containers. Raises PluginFailed."""
    attachments = [{"containerID": container, "ifname": DEVICE} for container in keep]
    await _call("GC", network, socket, {}, {"cni.dev/valid-attachments": attachments}, None)


async def _of_pod(command: str, attachment: Attachment) -> dict[str, Any]:
    identity = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": attachment.key.namespace,
        "K8S_POD_NAME": attachment.key.name,
        "K8S_POD_INFRA_CONTAINER_ID": attachment.container,
        "K8S_POD_UID": attachment.uid,
    }
    variables = {
        "CNI_CONTAINERID": attachment.container,
        "CNI_NETNS": str(attachment.netns),
        "CNI_IFNAME": DEVICE,
        "CNI_ARGS": ";".join(f"{name}={value}" for name, value in identity.items()),
    }
    return await _call(command, attachment.network, attachment.socket, variables, {}, attachment.enter)


async def _call(
    command: str,
    network: str,
    socket: Path,
    variables: Mapping[str, str],
    keys: Mapping[str, Any],
    enter: Callable[[], None] | None,
) -> dict[str, Any]:
    configuration = {"cniVersion": CNI_VERSION, "name": network, "type": "tortie", "socket": str(socket), **keys}
    own = {"CNI_COMMAND": command, "CNI_PATH": str(PLUGIN.parent), "PATH": os.environ.get("PATH", os.defpath)}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(PLUGIN)),
        env={**own, **variables},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=enter,
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
        raise PluginFailed(reason)
    return answer
