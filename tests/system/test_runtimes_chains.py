"""Our plugin in a list with those of others: behind one, before them, with what a runtime was asked for; the shape of
its results in every version. The runtime is played (`tests.support.cni_chain`), everything else is real."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import cni_spec, runtimes
from tests.support.cni_chain import Chain
from tests.support.runtimes import NODE, Host
from tortie.cni import install

pytestmark = pytest.mark.root

SIX = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: six}
spec: {cidr: "fd00:10:244::/64"}
"""

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def host(base_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with runtimes.host(base_image, tmp_path_factory.mktemp("logs")) as made:
        made.serve()
        made.machine.run("tortie", "cni", "install")
        yield made


class Container:
    """A network namespace of the machine, and a name."""

    def __init__(self, host: Host) -> None:
        self.name = f"c{next(numbers)}"
        self.netns = f"/run/netns/{self.name}"
        self.machine = host.machine
        self.machine.run("ip", "netns", "add", self.name)

    def run(self, *command: str) -> str:
        return self.machine.run("ip", "netns", "exec", self.name, *command)


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    made = Container(host)
    yield made
    made.machine.run("ip", "netns", "delete", made.name)


def serving(host: Host, container: Container, tmp_path: Path) -> None:
    """Says hello on port 80 of the container."""
    host.machine.start("ip", "netns", "exec", container.name, *runtimes.SERVER, log=tmp_path / "server.log")


def address_of(result: Mapping[str, Any]) -> str:
    return str(result["ips"][-1]["address"]).partition("/")[0]


@pytest.mark.parametrize("version", cni_spec.VERSIONS)
def test_a_result_is_what_its_version_says(host: Host, container: Container, version: str) -> None:
    chain = Chain(host.machine, install.conflist(version=version))
    result = chain.add(container.name, container.netns)
    assert cni_spec.complaints(result, version) == []
    near, far = result["interfaces"]
    assert near["name"] in host.machine.run("ip", "-br", "link")
    assert (far["name"], far["sandbox"]) == ("eth0", container.netns)
    assert far["mac"] in container.run("ip", "link", "show", "eth0")
    if version >= "0.4.0":
        chain.check(container.name, container.netns, result)
    chain.delete(container.name, container.netns, result)
    host.until(lambda: not host.handle(address_of(result)), "the address is free")


def test_a_plugin_before_ours_keeps_its_part_of_the_result(host: Host, container: Container) -> None:
    configuration = install.conflist(version="1.0.0")
    configuration["plugins"].insert(0, {"type": "loopback"})
    chain = Chain(host.machine, configuration)
    result = chain.add(container.name, container.netns)
    assert cni_spec.complaints(result, "1.0.0") == []
    assert [interface["name"] for interface in result["interfaces"]][::2] == ["lo", "eth0"]
    assert result["ips"][0]["address"] == "127.0.0.1/8"
    assert result["interfaces"][result["ips"][-1]["interface"]]["name"] == "eth0"
    chain.check(container.name, container.netns, result)
    chain.delete(container.name, container.netns, result)


def test_ports_that_the_runtime_asks_for(host: Host, container: Container, tmp_path: Path) -> None:
    ports = [{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]
    chain = Chain(host.machine, install.conflist(chain=["portmap"]), {"portMappings": ports})
    result = chain.add(container.name, container.netns)
    assert cni_spec.complaints(result, "1.0.0") == []
    serving(host, container, tmp_path)
    host.until(lambda: host.hears(address_of(result), 80), "the container's own port")
    for address in (NODE, "127.0.0.1"):
        assert host.hears(address, 8081)
    assert host.outside_hears(NODE, 8081)
    # CHECK of portmap 1.1 looks for the rules of the container's first address in the tables of both families.
    chain.check(container.name, container.netns, result, but=["portmap"])
    chain.delete(container.name, container.netns, result)
    assert "--to-destination" not in host.machine.run("iptables", "-t", "nat", "-S")


@pytest.fixture
def six(host: Host) -> Iterator[None]:
    """A pool of the other family."""
    host.apply(SIX)
    yield
    host.machine.run("tortie", "delete", "ippool", "six")


@pytest.mark.usefixtures("six")
def test_addresses_of_both_families(host: Host, container: Container) -> None:
    configuration = install.conflist(chain=["portmap", "bandwidth"])
    configuration["plugins"][0]["ipam"] = {"assign_ipv4": "true", "assign_ipv6": "true"}
    ports = [{"hostPort": 8084, "containerPort": 80, "protocol": "tcp"}]
    rates = {"ingressRate": 8_000_000, "ingressBurst": 800_000}
    chain = Chain(host.machine, configuration, {"portMappings": ports, "bandwidth": rates})
    result = chain.add(container.name, container.netns)
    assert cni_spec.complaints(result, "1.0.0") == []
    addresses = [row["address"].partition("/")[0] for row in result["ips"]]
    assert [":" in address for address in addresses] == [False, True]
    for version, table in (("4", "iptables"), ("6", "ip6tables")):
        assert addresses[version == "6"] in host.machine.run(table, "-t", "nat", "-S")
    chain.check(container.name, container.netns, result, but=["portmap"])
    chain.delete(container.name, container.netns, result)


def test_rates_that_the_runtime_asks_for(host: Host, container: Container) -> None:
    rates = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4_000_000, "egressBurst": 400_000}
    chain = Chain(host.machine, install.conflist(chain=["portmap", "bandwidth"]), {"bandwidth": rates})
    result = chain.add(container.name, container.netns)
    assert cni_spec.complaints(result, "1.0.0") == []
    link, _, other = (interface["name"] for interface in result["interfaces"])
    assert token_bucket(host, link)["options"]["rate"] == rates["ingressRate"] // 8
    assert token_bucket(host, other)["options"]["rate"] == rates["egressRate"] // 8
    chain.check(container.name, container.netns, result)

    flood(host, address_of(result))
    assert token_bucket(host, link)["overlimits"]
    chain.delete(container.name, container.netns, result)
    assert other not in host.machine.run("ip", "-br", "link")


def token_bucket(host: Host, device: str) -> dict[str, Any]:
    """What limits what the device sends."""
    found = json.loads(host.machine.run("tc", "-s", "-j", "qdisc", "show", "dev", device))
    return next(row for row in found if row["kind"] == "tbf")


def flood(host: Host, address: str) -> None:
    """Ten times the burst, from the node, at once."""
    script = f"for i in range(1000): s.sendto(bytes(1000), ({address!r}, 9))"
    host.machine.run("python3", "-c", f"import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n{script}")


def test_a_pod_of_kubernetes(host: Host, container: Container) -> None:
    host.apply(
        """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata:
  {name: cart, namespace: shop, uid: 6fe0, annotations: {cni.projectcalico.org/ipAddrs: '["10.244.7.7"]'}}
spec: {nodeName: node1}
"""
    )
    arguments = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "shop",
        "K8S_POD_NAME": "cart",
        "K8S_POD_INFRA_CONTAINER_ID": container.name,
        "K8S_POD_UID": "6fe0",
        "FOO": "bar",
    }
    chain = Chain(host.machine, install.conflist(), arguments=arguments)
    result = chain.add(container.name, container.netns)
    assert address_of(result) == "10.244.7.7"
    host.until(lambda: "shop/cart" in host.endpoints(), "the pod is known by its name")
    chain.delete(container.name, container.netns, result)


def test_a_container_whose_runtime_died_is_collected(host: Host, container: Container) -> None:
    lost, kept = Container(host), container
    chain = Chain(host.machine, install.conflist())
    results = {one.name: chain.add(one.name, one.netns) for one in (lost, kept)}
    host.machine.run("ip", "netns", "delete", lost.name)
    chain.collect([kept.name])
    chain.check(kept.name, kept.netns, results[kept.name])
    host.until(lambda: not host.handle(address_of(results[lost.name])), "the lost container's address is free")
    chain.delete(lost.name, "")
    chain.delete(kept.name, kept.netns, results[kept.name])
