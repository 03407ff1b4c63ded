"""The bus as three servers by the second file, and all of it by version 2 of compose. The cluster is still up when its
Docker ends, as when a user's machine does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import compose, readme
from tests.support.compose import COMPOSE2, NODES, ONE, SERVICES, THREE, Stack, answered

pytestmark = [pytest.mark.root, pytest.mark.compose]

SERVERS = ("nats", "nats2", "nats3")
UP = "docker-compose -f docker-compose.yml -f docker-compose.nats3.yml up -d"


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> Stack:
    stack.version = 2 if COMPOSE2.exists() else 1
    assert UP in (compose.REPOSITORY / "docs" / "compose.md").read_text()
    readme.done(stack, UP)
    stack.files = THREE
    return stack


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("files", "servers"), [(ONE, SERVERS[:1]), (THREE, SERVERS)])
def test_each_version_reads_the_files(stack: Stack, version: int, files: str, servers: tuple[str, ...]) -> None:
    if version == 2 and not COMPOSE2.exists():
        pytest.skip(f"no {COMPOSE2}: `make compose-test` brings it on x86_64")
    reader = Stack(stack.machine, Path())
    reader.version, reader.files = version, files
    done = reader.try_("config", "--services")
    assert sorted(done.stdout.split()) == sorted([*servers, "setup", *SERVICES, *NODES]), done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    assert reader.try_("config", "--quiet").returncode == 0


def test_the_readme(cluster: Stack, tmp_path: Path) -> None:
    readme.walk(cluster, tmp_path / "web.log")
    cluster.settle()


def test_every_stream_is_kept_three_times(cluster: Stack) -> None:
    told = json.loads(cluster.on("nats", "curl", "-s", "127.0.0.1:8222/jsz?streams=1&config=1"))
    streams = [stream for account in told["account_details"] for stream in account["stream_detail"]]
    assert {stream["config"]["num_replicas"] for stream in streams} == {3}
    assert len(streams) >= 6


@pytest.mark.parametrize("server", SERVERS)
def test_a_cluster_works_while_a_server_is_away(cluster: Stack, server: str) -> None:
    cluster.settle()
    web = f"http://{cluster.address('node1', 'web')}/"
    cluster.machine.run("docker", "kill", cluster.name(server))
    try:
        other = cluster.fetching("node3", url=web)
        # The first begins while the others elect leaders, and may be closed until its policy arrives.
        cluster.until(lambda: cluster.fetches("node2", "--label app=client", url=web), "a new client is answered")
        assert not answered(other), "others are not"
    finally:
        cluster.run("up", "-d", "--no-recreate")
