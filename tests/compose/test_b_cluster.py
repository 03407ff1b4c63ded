"""The cluster of compose/docker-compose.yml: what it may do, how it scales, and that it heals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import compose
from tests.support.compose import NODES, SERVICES, Stack, lost

pytestmark = [pytest.mark.root, pytest.mark.compose]

SERVER = ("--", "python", "-m", "http.server", "80")
PODS = (
    ("node1", "web", ("-d", "-l", "app=web", *SERVER)),
    ("node1", "still", ()),
    ("node2", "client", ("-d", "-l", "app=client", "--", "sleep", "infinity")),
)


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> Iterator[Stack]:
    stack.up()
    yield stack
    stack.run("down", "-v")


@pytest.fixture
def url(cluster: Stack) -> str:
    """Of a server on node1; `client` on node2 may reach it, and nobody else. Pods that an earlier test left alone serve
    again."""
    cluster.settle()
    there = {
        (node, line.split()[1]) for node in NODES[:2] for line in cluster.on(node, "tortie", "pod", "ls").splitlines()
    }
    for node, name, words in PODS:
        if (node, name) not in there:
            cluster.on(node, "tortie", "pod", "run", name, *words)
    cluster.on("node2", "tortie", "apply", "-f", "-", text=(compose.DIRECTORY / "policy.yaml").read_text())
    return f"http://{cluster.address('node1', 'web')}/"


def works(cluster: Stack, url: str) -> None:
    """New pods get addresses and their policy, soon."""
    cluster.until(lambda: cluster.fetches("node2", "--label app=client", url=url), "a new client is answered")
    assert not cluster.fetches("node3", url=url), "others are not"


def uninterrupted(cluster: Stack, url: str, container: str, how: str) -> None:
    """Traffic between running pods goes on while the container is gone and comes back, and then all works again."""
    stream = cluster.stream("node2", "client", url, cluster.address("node1", "still"))
    before = cluster.inspect(container)["State"]["StartedAt"]
    if how == "crash":
        cluster.crash(container)
    else:
        cluster.machine.run("docker", "kill", container)
        cluster.run("up", "-d", "--no-recreate")  # Docker takes this for the operator's wish, and waits for another
    assert not lost(stream)
    cluster.until(lambda: cluster.inspect(container)["State"]["StartedAt"] != before, f"{container} starts again")
    cluster.settle()
    works(cluster, url)


@pytest.mark.parametrize("service", ["nats", *SERVICES, "node3"])
def test_traffic_goes_on_and_control_returns_when_a_container_crashes(cluster: Stack, url: str, service: str) -> None:
    uninterrupted(cluster, url, cluster.name(service), "crash")


@pytest.mark.parametrize("service", ["nats", *SERVICES, "node3"])
def test_and_when_it_is_killed_and_started(cluster: Stack, url: str, service: str) -> None:
    uninterrupted(cluster, url, cluster.name(service), "docker kill")


def test_a_dead_agent_is_started_again_and_its_pods_stay(cluster: Stack, url: str) -> None:
    stream = cluster.stream("node2", "client", url, cluster.address("node1", "still"))
    agent = cluster.on("node1", "sh", "-c", "grep -lsz '^node-dataplane$' /proc/[0-9]*/cmdline; true").split("/")[2]
    cluster.on("node1", "sh", "-c", f"kill -9 {agent}")
    assert not lost(stream)
    cluster.settle()
    assert "running" in cluster.on("node1", "tortie", "pod", "ls")
    works(cluster, url)
    cluster.on("node1", "tortie", "pod", "rm", "web")
    assert "not in use" in cluster.on("node1", "tortie", "ipam", "show", "--ip", url.split("/")[2])


@pytest.mark.parametrize("how", ["crash", "docker kill"])
def test_what_a_dead_node_leaves_is_collected(cluster: Stack, url: str, how: str) -> None:
    address, node = url.split("/")[2], cluster.name("node1")
    if how == "crash":
        cluster.crash(node)
    else:
        cluster.machine.run("docker", "kill", node)
        cluster.run("up", "-d", "--no-recreate")
    cluster.until(lambda: "web" not in cluster.on("node2", "tortie", "get", "pods"), "the pod is deleted")
    cluster.until(
        lambda: "not in use" in cluster.on("node2", "tortie", "ipam", "show", "--ip", address), "the address is free"
    )
    assert "client" in cluster.on("node2", "tortie", "get", "pods")
    cluster.settle()
    cluster.on("node1", "tortie", "pod", "run", "-d", "web", "--label", "app=web", *SERVER)
    again = f"http://{cluster.address('node1', 'web')}/"
    works(cluster, again)
    cluster.until(lambda: "found 0 problems" in cluster.on("node1", "tortie", "ipam", "check"), "the books are right")


def test_more_replicas(cluster: Stack, url: str) -> None:
    cluster.up("--no-recreate", "--scale", "ipam=3", "--scale", "policy-compiler=2")
    lines = [line.split()[:3] for line in cluster.on("node1", "tortie", "status").splitlines()]
    ready = [line[0] for line in lines if len(line) == 3 and line[2] == "yes"]
    assert (ready.count("ipam"), ready.count("policy_compiler")) == (3, 2)
    for number in (1, 2):  # whoever leads is among them, or is left alone
        cluster.machine.run("docker", "kill", cluster.name("ipam", number))
    cluster.machine.run("docker", "kill", cluster.name("policy-compiler", 1))
    works(cluster, url)  # those that are left do the work
    cluster.up("--no-recreate")  # back to one of each
    works(cluster, url)


def test_services_have_no_privileges(cluster: Stack) -> None:
    for service in ("nats", *SERVICES):
        inside = cluster.on(
            service, "sh", "-c", "grep -hE '^(Uid|CapEff|CapBnd):' /proc/1/status; touch /x && echo writable; true"
        )
        words = [line.split()[1] for line in inside.splitlines()]
        assert words == ["8484", "0" * 16, "0" * 16], service


def test_a_node_has_what_it_needs_and_no_more(cluster: Stack) -> None:
    host = cluster.inspect(cluster.name("node1"))["HostConfig"]
    assert host["Privileged"] is False
    assert set(host["CapDrop"]) == {"ALL"}
    tried = cluster.try_on("node1", "sh", "-c", "echo 0 >/proc/sys/kernel/panic")
    assert "Read-only" in tried.stderr, "settings that are not the node's own stay as they are"


def test_pods_reach_neither_the_bus_nor_the_api(cluster: Stack) -> None:
    api, bus = (
        cluster.inspect(cluster.name(service))["NetworkSettings"]["Networks"]["tortie_uplink"]["IPAddress"]
        for service in ("api", "nats")
    )
    assert not cluster.fetches("node1", url=f"http://{api}:7460/v1/status")
    assert not cluster.fetches("node1", url=f"http://{bus}:4222/")
    assert cluster.on("node1", "curl", "-sS", "-m", "3", f"http://{api}:7460/v1/status")


def test_a_pod_cannot_leave_its_namespace(cluster: Stack) -> None:
    tried = cluster.try_on("node1", "tortie", "pod", "run", "x", "--", "nsenter", "--net=/proc/1/ns/net", "true")
    assert tried.returncode != 0
    assert "not permitted" in tried.stderr or "Permission denied" in tried.stderr


def test_it_stops_cleanly_and_starts_again(cluster: Stack, url: str) -> None:
    address = url.split("/")[2]
    cluster.run("stop")
    assert set(cluster.containers().values()) == {"exited 0"}
    cluster.up()
    assert "not in use" in cluster.on("node2", "tortie", "ipam", "show", "--ip", address), "released on the way out"
    assert "app=web" in cluster.on("node1", "tortie", "get", "networkpolicies"), "the bus kept its streams"
