"""The agent with the rights that k8s/base/agent.yaml gives it and no others, in a file system as a container has it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_schemas.resources import BGPConfiguration
from bus_schemas.resources.bgp import BGPConfigurationSpec
from bus_schemas.resources.metadata import Metadata
from tests.support.agent import AgentProcess
from tests.support.kustomized import K8S
from tests.support.netns import Namespace
from tests.support.two_nodes import CLIENT, Cluster, cluster_of, two_nodes, until
from tortie.cli.client import Client
from tortie.cli.errors import Unreachable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        shutil.which("bird", path="/usr/sbin:/usr/bin") is None, reason="needs BIRD: apt-get install bird2"
    ),
]

_CONTAINER = """
mount -t tmpfs tmpfs /mnt && mkdir -p /mnt/proc/sys/net && mount --bind /proc/sys/net /mnt/proc/sys/net &&
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"
"""


def granted() -> list[str]:
    (container,) = yaml.safe_load((K8S / "base" / "agent.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    capabilities: list[str] = container["securityContext"]["capabilities"]["add"]
    return [name.lower() for name in capabilities]


def confined(capabilities: list[str]) -> tuple[str, ...]:
    """In front of a command: these capabilities, a /proc/sys that is read-only, and the mount of the manifest."""
    bounds = "-all" + "".join(f",+{name}" for name in capabilities)
    mounts = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", _CONTAINER, "sh")
    return (*mounts, "setpriv", "--bounding-set", bounds, "--inh-caps", "-all")


class Mounted(Namespace):
    """A pod's namespace where runtimes put it; that of a process is not for somebody without CAP_SYS_PTRACE."""

    mounted = ""

    @property
    def path(self) -> str:
        return self.mounted or super().path


@pytest.fixture
def pods() -> Iterator[list[Mounted]]:
    with ExitStack() as stack:
        made = []
        for number in range(3):
            pod = Mounted()
            stack.callback(pod.close)
            file = Path(f"/run/netns/tortie-rights-{os.getpid()}-{number}")
            file.parent.mkdir(exist_ok=True)
            file.touch()
            stack.callback(file.unlink)
            subprocess.run(["mount", "--bind", pod.path, file], check=True)
            stack.callback(subprocess.run, ["umount", file], check=True)
            pod.mounted = str(file)
            made.append(pod)
        yield made


@pytest.fixture
async def cluster(pods: list[Mounted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(AgentProcess, "wrapper", confined(granted()))
    with two_nodes() as (nodes, _):
        async with cluster_of(tmp_path, nodes, tuple(pods)) as made:
            yield made


def readyz(cluster: Cluster, node: str) -> dict[str, Any]:
    """Empty: it is not ready."""
    try:
        answer: dict[str, Any] = Client(f"unix:{cluster.directory / node}.health").get("/readyz")
    except Unreachable:
        return {}
    return answer


async def test_the_documented_capabilities_are_enough_and_needed(cluster: Cluster) -> None:
    agent = cluster.agents[0]
    status = Path(f"/proc/{agent.pid}/status").read_text()
    (bounding,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    assert bounding.bit_count() == len(granted()), "the test itself confines"
    # links, routes, nftables, the pod's side, a tunnel with its trial of checksums
    await cluster.pool("Always")
    await cluster.both()
    # BIRD, which takes port 179
    spec = BGPConfigurationSpec(node_to_node_mesh_enabled=True)
    await cluster.apply(BGPConfiguration(metadata=Metadata(name="default"), spec=spec))
    await cluster.pool("Never")
    node = cluster.nodes[1]
    await until(lambda: node.ip("-j", "route", "show", "proto", "bird").strip() not in ("", "[]"), "BIRD has routes")
    # Whatever it cannot do it names.
    for made in cluster.agents:
        await until(lambda node=made.node: readyz(cluster, node).get("notes") == {}, f"{made.node} is ready and well")

    # Without SYS_ADMIN no pod is entered. (Without NET_ADMIN the agent does not even start: test_agent_unfit.)
    second = cluster.agents[1]
    second.stop()
    second.wrapper = confined([name for name in granted() if name != "sys_admin"])
    second.start()

    def refused() -> bool:
        code, answer = second.cni("ADD", "third", cluster.pods[2], CLIENT)
        return code != 0 and "network namespace: Operation not permitted" in answer["msg"]

    await until(refused, "it cannot enter the pod's network namespace")
