"""The cluster of compose/docker-compose.yml by docker-compose 1.29: what README.md says of it, that it heals, how it
scales, what it may do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import compose, readme
from tests.support.compose import NODES, SERVICES, Stack, answered, lost

pytestmark = [pytest.mark.root, pytest.mark.compose]

SERVER = ("--", "python", "-m", "http.server", "80")
PODS = (
    ("node1", "web", ("-d", "-l", "app=web", *SERVER)),
    ("node1", "still", ()),
    ("node2", "client", ("-d", "-l", "app=client", "--", "sleep", "infinity")),
)


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> Iterator[Stack]:
    assert readme.UP == "docker-compose up -d"
    readme.done(stack, readme.UP)
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
    other = cluster.fetching("node3", url=url)
    cluster.until(lambda: cluster.fetches("node2", "--label app=client", url=url), "a new client is answered")
    assert not answered(other), "others are not"


def traffic(cluster: Stack, url: str) -> subprocess.Popen[str]:
    return cluster.stream("node2", "client", url, cluster.address("node1", "still"))


def ready(cluster: Stack) -> tuple[int, int]:
    """Replicas of ipam and of the compiler that say so."""
    lines = [line.split()[:3] for line in cluster.on("node1", "tortie", "status").splitlines()]
    names = [line[0] for line in lines if len(line) == 3 and line[2] == "yes"]
    return names.count("ipam"), names.count("policy_compiler")


def pods(cluster: Stack) -> set[str]:
    """Those that the cluster knows."""
    return {line.split()[0] for line in cluster.on("node3", "tortie", "get", "pods").splitlines()}


def test_the_readme(cluster: Stack, tmp_path: Path) -> None:
    assert readme.WEB == "docker-compose exec node1 tortie pod run web --label app=web -- python -m http.server 80"
    readme.walk(cluster, tmp_path / "web.log")


def test_more_replicas(cluster: Stack, url: str) -> None:
    assert readme.SCALE == "docker-compose up -d --scale ipam=3 --scale policy-compiler=2"
    readme.done(cluster, readme.SCALE)
    cluster.settle()
    cluster.until(lambda: ready(cluster) == (3, 2), lambda: f"3 and 2 are ready: {ready(cluster)}")
    stream = traffic(cluster, url)
    for number in (1, 2):  # whoever leads is among them, or is left alone
        cluster.machine.run("docker", "kill", cluster.name("ipam", number))
    cluster.machine.run("docker", "kill", cluster.name("policy-compiler", 1))
    works(cluster, url)  # those that are left do the work
    assert not lost(stream)
    readme.done(cluster, readme.UP)  # back to one of each
    cluster.settle()
    cluster.until(lambda: ready(cluster) == (1, 1), lambda: f"1 and 1 are ready: {ready(cluster)}")
    works(cluster, url)


@pytest.mark.parametrize("service", ["nats", *SERVICES, "node3"])
def test_traffic_goes_on_and_control_returns_when_a_container_crashes(cluster: Stack, url: str, service: str) -> None:
    container = cluster.name(service)
    stream = traffic(cluster, url)
    before = cluster.inspect(container)["State"]["StartedAt"]
    cluster.crash(container)
    cluster.until(lambda: cluster.inspect(container)["State"]["StartedAt"] != before, f"{container} starts again")
    cluster.settle()
    works(cluster, url)
    assert not lost(stream)


def test_and_when_all_of_control_is_killed_and_started(cluster: Stack, url: str) -> None:
    stream = traffic(cluster, url)
    killed = ("nats", *SERVICES, "node3")
    cluster.machine.run("docker", "kill", *(cluster.name(service) for service in killed))
    cluster.run("up", "-d", "--no-recreate")  # Docker takes it for the operator's wish, and waits for another
    cluster.settle()
    works(cluster, url)
    assert not lost(stream)


def test_a_dead_agent_is_started_again_and_its_pods_stay(cluster: Stack, url: str) -> None:
    stream = traffic(cluster, url)
    agent = cluster.on("node1", "sh", "-c", "grep -lsz '^node-dataplane$' /proc/[0-9]*/cmdline; true").split("/")[2]
    cluster.on("node1", "sh", "-c", f"kill -9 {agent}")
    assert not lost(stream)
    cluster.settle()
    assert "running" in cluster.on("node1", "tortie", "pod", "ls")
    works(cluster, url)
    cluster.on("node1", "tortie", "pod", "rm", "web")
    assert "not in use" in cluster.on("node1", "tortie", "ipam", "show", "--ip", url.split("/")[2])


@pytest.mark.parametrize(("node", "pod", "how"), [("node1", "web", "crash"), ("node2", "client", "docker kill")])
def test_what_a_dead_node_leaves_is_collected(cluster: Stack, url: str, node: str, pod: str, how: str) -> None:
    address, container = cluster.address(node, pod), cluster.name(node)
    if how == "crash":
        cluster.crash(container)
    else:
        cluster.machine.run("docker", "kill", container)
        cluster.run("up", "-d", "--no-recreate")
    cluster.until(lambda: pod not in pods(cluster), "the pod is deleted")
    cluster.until(
        lambda: "not in use" in cluster.on("node3", "tortie", "ipam", "show", "--ip", address), "the address is free"
    )
    assert {"web", "client"} - {pod} <= pods(cluster), "those of other nodes are not touched"
    cluster.settle()
    if pod == "web":
        cluster.on("node1", "tortie", "pod", "run", "-d", "web", "--label", "app=web", *SERVER)
    works(cluster, f"http://{cluster.address('node1', 'web')}/")
    cluster.until(lambda: "found 0 problems" in cluster.on("node1", "tortie", "ipam", "check"), "the books are right")


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
    tries = [cluster.fetching("node1", url=f"http://{where}/") for where in (f"{api}:7460", f"{bus}:4222")]
    assert [answered(each) for each in tries] == [False, False]
    assert cluster.on("node1", "curl", "-sS", "-m", "3", f"http://{api}:7460/v1/status")


def test_a_pod_cannot_leave_its_namespace(cluster: Stack) -> None:
    tried = cluster.try_on("node1", "tortie", "pod", "run", "x", "--", "nsenter", "--net=/proc/1/ns/net", "true")
    assert tried.returncode != 0
    assert "not permitted" in tried.stderr or "Permission denied" in tried.stderr


def test_the_static_cni_front_end_plugs_a_namespace_in(cluster: Stack, url: str) -> None:
    """As a container runtime does it on a node, by what `tortie cni install` put there."""
    there = "/var/lib/tortie/cni"  # a volume: what is in memory cannot be run
    cluster.on("node1", "tortie", "cni", "install", "--label", "app=client", "--bin-dir", there, "--conf-dir", there)
    assert cluster.on("node1", "cmp", compose.FRONT, f"{there}/tortie") == ""
    network = json.loads(cluster.on("node1", "cat", f"{there}/10-tortie.conflist"))
    conf = json.dumps({**network["plugins"][0], "name": network["name"], "cniVersion": network["cniVersion"]})

    def plugin(command: str) -> str:
        env = f"env -i CNI_COMMAND={command} CNI_CONTAINERID=made CNI_IFNAME=eth0 CNI_NETNS=/run/netns/made"
        return cluster.on("node1", *f"{env} CNI_PATH={there} {there}/tortie".split(), text=conf)

    cluster.on("node1", "ip", "netns", "add", "made")
    address = json.loads(plugin("ADD"))["ips"][0]["address"]
    assert address.startswith("10.244.")
    cluster.on("node1", *f"ip netns exec made curl -sS -m 5 -o /dev/null {url}".split())
    assert plugin("DEL") == ""
    cluster.on("node1", "ip", "netns", "delete", "made")
    assert "not in use" in cluster.on("node1", "tortie", "ipam", "show", "--ip", address.partition("/")[0])


def test_it_stops_cleanly_and_starts_again(cluster: Stack, url: str) -> None:
    address = url.split("/")[2]
    cluster.run("stop")
    assert set(cluster.containers().values()) == {"exited 0"}
    cluster.up()
    assert "not in use" in cluster.on("node2", "tortie", "ipam", "show", "--ip", address), "released on the way out"
    assert "app=web" in cluster.on("node1", "tortie", "get", "networkpolicies"), "the bus kept its streams"


def test_down_leaves_nothing(cluster: Stack) -> None:
    assert readme.DOWN == "docker-compose down -v"
    readme.done(cluster, readme.DOWN)
    assert cluster.containers() == {}
    for kind in ("volume", "network"):
        assert "tortie" not in cluster.machine.run("docker", kind, "ls", "--format", "{{.Name}}")
