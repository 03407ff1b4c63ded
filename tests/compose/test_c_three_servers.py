"""The bus as three servers, by the second file."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.compose import NATS3, Stack

pytestmark = [pytest.mark.root, pytest.mark.compose]

SERVERS = ("nats", "nats2", "nats3")


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> Iterator[Stack]:
    stack.overlay = NATS3
    stack.up()
    yield stack
    stack.run("down", "-v")
    stack.overlay = ()


def test_every_stream_is_kept_three_times(cluster: Stack) -> None:
    told = json.loads(cluster.on("nats", "curl", "-s", "127.0.0.1:8222/jsz?streams=1&config=1"))
    streams = [stream for account in told["account_details"] for stream in account["stream_detail"]]
    assert {stream["config"]["num_replicas"] for stream in streams} == {3}
    assert len(streams) >= 6


@pytest.mark.parametrize("server", SERVERS)
def test_pods_start_while_a_server_is_away(cluster: Stack, server: str) -> None:
    cluster.settle()
    cluster.machine.run("docker", "kill", cluster.name(server))
    done = cluster.try_on("node1", "tortie", "pod", "run", "x", "--", "echo", "hello")
    assert done.stdout == "hello\n", done.stderr
    cluster.up("--no-recreate")
