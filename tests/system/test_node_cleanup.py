"""`tortie node cleanup`: of a node on which an agent, pods, policy and BIRD were no trace is left, and nothing foreign
goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.resources import BGPConfiguration
from bus_schemas.resources.metadata import Metadata
from tests.support import foreign
from tests.support.agent import environment
from tests.support.netns import Namespace, links
from tests.support.two_nodes import CLIENT, Cluster, Spaces, cluster_of, two_nodes, until
from tortie.cni import install

pytestmark = pytest.mark.root


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with two_nodes() as made:
        yield made


@pytest.fixture
async def cluster(spaces: Spaces, tmp_path: Path) -> AsyncIterator[Cluster]:
    nodes, _ = spaces
    nodes[1].sysctl("net.ipv4.ip_forward", 0)
    nodes[1].ip("-6", "address", "add", "fd00::1/64", "dev", "up0", "nodad")
    foreign.make(nodes[1], (*_with_bridges_kept_out(), *foreign.routes(3, 40)))
    async with cluster_of(tmp_path, *spaces) as made:
        await made.pool("Always")
        yield made


def _with_bridges_kept_out() -> list[foreign.Command]:
    """Nothing in our ranges, where it would rightly be in the way, and no table that drops."""
    return [command for command in foreign.FIXED if "10.244.0.0/16" not in command]


class Node:
    def __init__(self, cluster: Cluster) -> None:
        self.space: Namespace = cluster.nodes[1]
        self.agent = cluster.agents[1]
        self.directory = cluster.directory
        self.state = cluster.directory / "node2"
        self.bin, self.conf = cluster.directory / "bin", cluster.directory / "net.d"
        install.install_plugin(self.bin)
        install.install_conflist(self.conf, install.conflist(chain=["portmap"]))
        self.conf.joinpath("20-other.conflist").write_text('{"name": "other", "plugins": [{"type": "bridge"}]}')

    def cleanup(self, *options: str) -> subprocess.CompletedProcess[str]:
        places = (
            *("--state-dir", str(self.state), "--socket", self.agent.socket),
            *("--bin-dir", str(self.bin), "--conf-dir", str(self.conf)),
        )
        with self.space.inside():
            return subprocess.run(
                [str(Path(sys.executable).parent / "tortie"), "node", "cleanup", "-o", "json", *places, *options],
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )

    def cleaned(self, *options: str) -> Any:
        done = self.cleanup(*options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def kinds(plan: Any) -> set[str]:
    return {step["kind"] for step in plan["steps"]}


async def test_a_node_is_left_without_a_trace(cluster: Cluster) -> None:
    node = Node(cluster)
    await cluster.both()
    others = foreign.snapshot(node.space)

    refused = node.cleanup("--yes")
    assert refused.returncode == 1
    assert "stop it first" in refused.stderr

    node.agent.stop()
    planned = node.cleaned("--dry-run")
    assert {"route", "device"} <= kinds(planned)
    kept = {row["kind"]: row["reason"] for row in planned["kept"]}
    assert {"link", "route", "nftables table", "directory", "CNI plugin"} <= kept.keys()
    assert "--pods" in kept["link"]

    done = node.cleaned("--yes")
    assert [step for step in done["steps"] if step["failure"]] == []
    assert "vxlan.tortie" not in links(node.space)
    assert any(name.startswith("tor") and len(name) == 14 for name in links(node.space))
    assert foreign.snapshot(node.space) == others

    done = node.cleaned("--yes", "--pods")
    assert [step for step in done["steps"] if step["failure"]] == []
    assert len(done["restart"]) == 1
    assert not [name for name in links(node.space) if name.startswith("tor") and len(name) == 14]
    for family in ("-4", "-6"):
        assert node.space.ip(family, "route", "show", "proto", "84") == ""
    assert "inet tortie " not in node.space.run("nft", "list", "tables") + " "
    assert not node.state.exists()
    assert not os.path.lexists(node.agent.socket)
    assert not (node.bin / install.NAME).exists()
    assert [path.name for path in node.conf.iterdir()] == ["20-other.conflist"]
    assert foreign.snapshot(node.space) == others
    # Bridges of others are here, which may need it.
    assert "net.ipv4.ip_forward" in {row["object"] for row in done["kept"]}

    assert node.cleaned("--yes")["steps"] == []


async def test_bird_takes_its_routes_along(cluster: Cluster) -> None:
    node = Node(cluster)
    await cluster.pool("Never")
    await cluster.apply(BGPConfiguration(metadata=Metadata(name="default")))
    await cluster.add(0, CLIENT)

    def has_bird_routes() -> bool:
        return "10.244." in node.space.ip("route", "show", "proto", "bird", "metric", "1024") or bool(
            [line for line in node.space.ip("route", "show", "proto", "bird").splitlines() if "10.0.0.1 " in line]
        )

    await until(has_bird_routes, "BIRD has brought a route")
    node.agent.stop()
    assert has_bird_routes()
    done = node.cleaned("--yes")
    assert "BIRD and its routes" in kinds(done)
    assert [step for step in done["steps"] if step["failure"]] == []
    assert not has_bird_routes()
    assert "via 10.0.0.9" in node.space.ip("route", "show", "proto", "static")
    assert node.cleaned("--yes")["steps"] == []
