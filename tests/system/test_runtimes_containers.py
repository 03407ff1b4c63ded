"""Containers of podman and containerd on one node, and a pod on another: addresses, packets, policy, and every way in
which a container can end. The runtimes are told nothing but what docs/runtimes.md says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bus_schemas.ids import PodKey
from tests.support import netns, runtimes
from tests.support.agent import AgentProcess
from tests.support.netns import Namespace, namespaces
from tests.support.runtimes import IMAGE, NODE, OUTSIDE, SERVER, Host

pytestmark = pytest.mark.root

OBJECTS = f"""
apiVersion: projectcalico.org/v3
kind: Node
metadata: {{name: node2}}
spec: {{bgp: {{ipv4Address: {OUTSIDE}/24}}}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: shop}}
---
apiVersion: v1
kind: Pod
metadata: {{name: far, namespace: shop, labels: {{app: far}}}}
spec: {{nodeName: node2}}
"""
CLOSED = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: published}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}
"""
ONLY_FROM_WEB = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]
"""


@pytest.fixture(scope="module")
def host(base_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with runtimes.host(base_image, tmp_path_factory.mktemp("logs")) as made:
        made.serve(bus=NODE)
        made.machine.run("tortie", "cni", "install", "--network", "tortie", "--label", "app=web", "--chain", "portmap")
        made.podman()
        made.containerd()
        yield made


@pytest.fixture(autouse=True)
def nothing_left(host: Host) -> Iterator[None]:
    """Each test begins without containers."""
    yield
    host.machine.run("podman", "rm", "-f", "-t", "0", "-a")
    host.until(lambda: set(host.endpoints()) <= {"shop/far"}, "nothing is plugged in")


@pytest.fixture(scope="module")
def far(host: Host) -> Iterator[Namespace]:
    """A pod on the other node."""
    with ExitStack() as stack:
        host.apply(OBJECTS)
        (pod,) = stack.enter_context(namespaces(1))
        agent = AgentProcess("node2", host.outside, f"nats://{NODE}:4222", host.logs)
        agent.start()
        stack.callback(agent.stop)
        host.until(Path(agent.socket).exists, "the other agent listens")
        code, answer = agent.cni("ADD", "far", pod, PodKey("shop", "far"))
        assert code == 0, answer
        yield pod


def far_hears(far: Namespace, address: str, port: int) -> bool:
    return netns.tcp(far, address, port, wait_s=0.5)


def test_containers_reach_each_other_and_pods_of_other_nodes(host: Host, far: Namespace) -> None:
    first, second = host.start(), host.start()
    addresses = [host.address(name) for name in (first, second)]
    assert len(set(addresses)) == 2
    assert all(host.handle(address).startswith("tortie.") for address in addresses)
    host.until(lambda: host.hears(addresses[0], 80), "from the node")
    host.until(lambda: host.hears(addresses[1], 80, ["podman", "exec", first]), "from the other container")
    host.until(lambda: far_hears(far, addresses[0], 80), "from the pod on the other node")


def test_a_published_port_is_under_policy(host: Host, far: Namespace) -> None:
    name = host.start("-p", "8082:80")
    host.until(lambda: host.hears(NODE, 8082), "by the node's port, from the node")
    assert host.outside_hears(NODE, 8082)
    assert far_hears(far, NODE, 8082)
    assert host.hears(NODE, 8082, ["podman", "exec", name])
    host.apply(CLOSED)
    host.until(lambda: not host.outside_hears(NODE, 8082), "closed")
    host.apply(CLOSED.replace("192.0.2.0/24", f"{OUTSIDE}/32"))
    host.until(lambda: host.outside_hears(NODE, 8082), "open for the one whom the rule names")
    host.machine.run("tortie", "delete", "networkpolicy", "published")
    host.machine.run("podman", "rm", "-f", "-t", "0", name)
    assert "--to-destination" not in host.machine.run("iptables", "-t", "nat", "-S")


def test_policy_by_the_labels_of_networks(host: Host) -> None:
    for network in ("db", "plain"):
        label = ["--label", "app=db"] if network == "db" else []
        host.machine.run("tortie", "cni", "install", "--network", network, "--file", f"20-{network}.conflist", *label)
    host.apply(ONLY_FROM_WEB)
    web, db, plain = host.start(), host.start("--network", "db"), host.start("--network", "plain")
    address = host.address(db, "db")
    host.until(lambda: host.hears(address, 80, ["podman", "exec", web]), "allowed by its label")
    assert not host.hears(address, 80, ["podman", "exec", plain])
    host.until(lambda: host.hears(host.address(web), 80, ["podman", "exec", plain]), "nothing governs the other")
    host.machine.run("tortie", "delete", "networkpolicy", "db")
    host.until(lambda: host.hears(address, 80, ["podman", "exec", plain]), "without the policy")


def test_a_container_that_an_object_describes(host: Host) -> None:
    host.apply(
        """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, annotations: {cni.projectcalico.org/ipAddrs: '["10.244.9.9"]'}}
spec: {nodeName: node1}
"""
    )
    name = host.start(env={"CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db"})
    assert host.address(name) == "10.244.9.9"
    host.until(lambda: host.endpoints().get("shop/db") == ("10.244.9.9",), "known by its name")
    host.machine.run("podman", "rm", "-f", "-t", "0", name)
    host.until(lambda: not host.handle("10.244.9.9"), "the address is free")


def test_an_address_and_a_mac_that_the_owner_asks_for(host: Host) -> None:
    name = host.start("--ip", "10.244.9.10", "--mac-address", "02:00:0a:f4:09:0a")
    assert host.address(name) == "10.244.9.10"
    assert host.inspect(name, ".NetworkSettings.Networks.tortie.MacAddress") == "02:00:0a:f4:09:0a"
    host.until(lambda: host.hears("10.244.9.10", 80), "it is reached")
    taken = host.machine.try_("podman", "run", "--rm", "--ip", "10.244.9.10", IMAGE, "true")
    assert taken.returncode
    assert "10.244.9.10" in taken.stderr


def test_a_container_that_ends_by_itself_or_is_killed_is_unplugged(host: Host) -> None:
    host.machine.run("podman", "run", "--rm", IMAGE, "true")
    name = host.start()
    address = host.address(name)
    host.machine.run("podman", "kill", name)
    host.until(lambda: not host.handle(address), "the address is free")
    host.machine.run("podman", "start", name)
    again = host.address(name)
    host.until(lambda: host.hears(again, 80), "started again")
    host.machine.run("podman", "restart", "-t", "0", name)
    again = host.address(name)
    host.until(lambda: host.hears(again, 80), "restarted")


def test_what_a_runtime_forgot_is_collected(host: Host) -> None:
    kept, lost = host.start(), host.start()
    address, container = host.address(lost), host.inspect(lost, ".Id")
    pids = host.inspect(lost, ".State.ConmonPid}} {{.State.Pid").split()
    host.machine.run("kill", "-s", "KILL", *pids)
    host.until(lambda: not alive(host, pids), "the runtime and the container are gone")
    assert container in host.handle(address)
    collect(host, [host.inspect(kept, ".Id")])
    host.until(lambda: not host.handle(address), "the address is free")
    host.until(lambda: host.hears(host.address(kept), 80), "the other is as it was")


def test_check_of_what_podman_was_answered(host: Host) -> None:
    name = host.start("-p", "8083:80")
    container = host.inspect(name, ".Id")
    kept = json.loads(host.machine.run("cat", f"/var/lib/cni/results/tortie-{container}-eth0"))
    result = kept["result"]
    asked = {
        "CNI_COMMAND": "CHECK",
        "CNI_CONTAINERID": container,
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": result["interfaces"][1]["sandbox"],
        "CNI_ARGS": ";".join("=".join(pair) for pair in kept["cniArgs"]),
    }
    configuration = {"cniVersion": "1.0.0", "name": "tortie", "type": "tortie", "prevResult": result}
    assert host.machine.run("/opt/cni/bin/tortie", text=json.dumps(configuration), env=asked) == ""
    host.machine.run("ip", "link", "delete", result["interfaces"][0]["name"])
    done = host.machine.try_("/opt/cni/bin/tortie", text=json.dumps(configuration), env=asked)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 100)


def test_a_container_of_containerd_is_unplugged_when_it_ends(host: Host) -> None:
    web = host.start()
    host.until(lambda: host.hears(host.address(web), 80), "it serves")
    command = ("bash", "-c", f"cat </dev/tcp/{host.address(web)}/80")
    said = host.machine.run("ctr", "run", "--rm", "--cni", f"{IMAGE}:latest", "once", *command)
    assert said == "hello\n"
    host.until(lambda: "default/default-once" not in host.endpoints(), "unplugged")


def test_containers_of_containerd_outlive_it_and_are_collected(host: Host) -> None:
    host.machine.run("ctr", "run", "-d", "--cni", f"{IMAGE}:latest", "stays", *SERVER)
    host.until(lambda: "default/default-stays" in host.endpoints(), "plugged in")
    (address,) = host.endpoints()["default/default-stays"]
    host.until(lambda: host.hears(address, 80), "it serves")
    (_, container, _) = host.machine.run("ctr", "task", "ls").splitlines()[-1].split()
    shim = host.machine.run("ps", "-o", "ppid=", "-p", container).strip()
    host.machine.run("kill", "-s", "KILL", host.machine.run("pidof", "containerd").strip())
    assert host.hears(address, 80)
    host.machine.run("kill", "-s", "KILL", shim, container)
    collect(host, [])
    host.until(lambda: "default/default-stays" not in host.endpoints(), "collected")


def alive(host: Host, pids: list[str]) -> bool:
    """A process that nobody waits for any more is dead, too."""
    states = host.machine.try_("ps", "-o", "stat=", "-p", ",".join(pids)).stdout.split()
    return any(not state.startswith("Z") for state in states)


def collect(host: Host, keep: list[str]) -> None:
    """The verb GC, of which podman and ctr know nothing."""
    attachments = [{"containerID": container, "ifname": "eth0"} for container in keep]
    configuration = {"cniVersion": "1.1.0", "name": "tortie", "cni.dev/valid-attachments": attachments}
    environment = {"CNI_COMMAND": "GC", "CNI_PATH": "/opt/cni/bin"}
    host.machine.run("/opt/cni/bin/tortie", text=json.dumps(configuration), env=environment)
