"""`tortie node takeover` on a machine as flannel or Calico leave it, with the objects they make, beside others'."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import foreign
from tests.support.machine import Machine
from tests.support.netns import links, namespaces

pytestmark = pytest.mark.root

FLANNEL = """
ip link add flannel.1 type vxlan id 1 dev up0 dstport 8472
ip address add 10.88.1.0/32 dev flannel.1 && ip link set flannel.1 up
ip route add 10.88.2.0/24 via 10.88.2.0 dev flannel.1 onlink
ip route add 10.88.3.0/24 via 10.0.0.3
ip link add cni0 type bridge && ip address add 10.88.1.1/24 dev cni0 && ip link set cni0 up
for program in iptables-legacy iptables-nft; do
  $program -t nat -N FLANNEL-POSTRTG
  $program -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
  $program -t nat -A FLANNEL-POSTRTG -s 10.88.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE
  $program -N FLANNEL-FWD
  $program -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
  $program -A FLANNEL-FWD -s 10.88.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
done
nft add table ip flannel-ipv4
nft add chain ip flannel-ipv4 postrtg '{ type nat hook postrouting priority 100; }'
mkdir -p /etc/cni/net.d /run/flannel /opt/cni/bin /var/lib/cni/flannel /var/lib/cni/networks/cbr0
echo '{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel"},{"type":"portmap"}]}' \
  >/etc/cni/net.d/10-flannel.conflist
printf 'FLANNEL_NETWORK=10.88.0.0/16\\nFLANNEL_SUBNET=10.88.1.1/24\\nFLANNEL_MTU=1450\\n' >/run/flannel/subnet.env
touch /opt/cni/bin/flannel /opt/cni/bin/portmap /var/lib/cni/networks/cbr0/10.88.1.2
"""
FLANNEL_POD = """
ip link add vethpod1 type veth peer name eth0pod && ip link set vethpod1 master cni0 up
mkdir -p /var/lib/cni/results
echo '{"kind":"cniCacheV1","containerId":"c1","networkName":"cbr0","ifName":"eth0",
"cniArgs":[["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","web"]],
"result":{"interfaces":[{"name":"vethpod1"},{"name":"eth0","sandbox":"/x"}],"ips":[]}}' \
  >/var/lib/cni/results/cbr0-c1-eth0
"""
CALICO = """
ip link add vxlan.calico type vxlan id 4096 dev up0 dstport 4789
ip address add 10.99.1.0/32 dev vxlan.calico && ip link set vxlan.calico up
ip route add 10.99.2.0/26 via 10.99.2.0 dev vxlan.calico onlink proto 80
ip route add 10.99.3.0/26 via 10.0.0.3 proto bird
ip route add blackhole 10.99.1.0/26 proto 80
ip -6 route add blackhole fd00:99::/122 proto 80
for program in iptables-legacy iptables-nft; do
  $program -N cali-FORWARD && $program -N cali-tw-cali0123456789a
  $program -I FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
  $program -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m mark --mark 0x10000/0x10000 -j ACCEPT
  $program -A cali-FORWARD -m comment --comment "cali:vjrMJCRpqwy5oRoX" -j cali-tw-cali0123456789a
  $program -t nat -N cali-nat-outgoing && $program -t nat -A POSTROUTING -j cali-nat-outgoing
done
ip6tables-nft -t raw -N cali-PREROUTING && ip6tables-nft -t raw -A PREROUTING -j cali-PREROUTING
for set in all masq; do
  ipset create cali40$set-ipam-pools hash:net && ipset add cali40$set-ipam-pools 10.99.0.0/16
done
ipset create cali60all-ipam-pools hash:net family inet6 && ipset add cali60all-ipam-pools fd00:99::/48
ipset create cali40s:Abc hash:net
iptables-nft -t nat -A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -j MASQUERADE
nft add table ip calico
nft add chain ip calico filter-FORWARD '{ type filter hook forward priority 0; }'
mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/calico /run/calico
echo '{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico"},{"type":"portmap"}]}' \
  >/etc/cni/net.d/10-calico.conflist
echo node1 >/var/lib/calico/nodename
touch /etc/cni/net.d/calico-kubeconfig /opt/cni/bin/calico /opt/cni/bin/calico-ipam /opt/cni/bin/portmap
"""
CALICO_POD = """
ip link add cali0123456789a type veth peer name eth0pod && ip link set cali0123456789a up
ip route add 10.99.1.5 dev cali0123456789a proto boot
"""
STRANGE = """
ip route add 10.98.0.0/26 via 10.0.0.3 proto 80
ip link add calico0 type bridge
iptables-legacy -N calico-like && iptables-legacy -A FORWARD -m comment --comment "cali: mine" -j calico-like
ipset create california hash:net
nft add table inet calico2
"""
"""Like Calico's, and not Calico's."""


@pytest.fixture
def machine() -> Iterator[Machine]:
    with namespaces(1) as (node,):
        node.ip("link", "add", "up0", "type", "bridge")
        node.ip("address", "add", "10.0.0.1/24", "dev", "up0")
        node.ip("link", "set", "up0", "up")
        node.ip("-6", "address", "add", "fd00::1/64", "dev", "up0", "nodad")
        foreign.make(node, (*foreign.FIXED, *foreign.routes(7, 40)))
        with Machine(node) as made:
            made.shell(STRANGE)
            yield made


def takeover(machine: Machine, source: str, *options: str) -> Any:
    said = machine.run("tortie", "node", "takeover", "--from", source, "-o", "json", *options)
    return json.loads(said)


def files(machine: Machine) -> set[str]:
    return set(machine.shell("find /etc/cni /opt/cni /run /var/lib/cni /var/lib/calico -type f || true").split())


@pytest.mark.parametrize(("source", "setup"), [("flannel", FLANNEL), ("calico", CALICO)])
def test_their_things_go_and_nobody_elses(machine: Machine, source: str, setup: str) -> None:
    before, files_before = foreign.snapshot(machine.network), files(machine)
    machine.shell(setup)
    with_theirs, files_with_theirs = foreign.snapshot(machine.network), files(machine)

    planned = takeover(machine, source, "--dry-run")
    assert planned["steps"]
    assert foreign.snapshot(machine.network) == with_theirs
    assert files(machine) == files_with_theirs
    assert planned["steps"][0]["kind"] == "CNI configuration"

    done = takeover(machine, source, "--yes", "--backup", "/run/backup")
    assert [step["command"] for step in done["steps"]] == [step["command"] for step in planned["steps"]]
    assert [step for step in done["steps"] if step["failure"]] == []
    after = foreign.snapshot(machine.network)
    # What only they have made in it is empty now, and belongs to the iptables programs.
    after["nft"], before["nft"] = ([*filter(_matters, side["nft"])] for side in (after, before))
    after["legacy"], before["legacy"] = ([*filter(_matters, side["legacy"])] for side in (after, before))
    assert after == before
    left = files(machine)
    moved = {path.removeprefix("/run/backup") for path in left if path.startswith("/run/backup")}
    assert moved | {path for path in left if not path.startswith("/run/backup")} == files_with_theirs
    assert {path for path in left if not path.startswith("/run/backup")} - files_before == {"/opt/cni/bin/portmap"}

    again = takeover(machine, source, "--yes")
    assert again["steps"] == []


def _matters(line: str) -> bool:
    hooks = ("*", "COMMIT", ":PREROUTING", ":INPUT", ":FORWARD", ":OUTPUT", ":POSTROUTING", "table ", "}")
    stripped = line.strip()
    chain = stripped.startswith(("chain ", "type ")) and not any(word in stripped for word in ("KUBE", "pod_ingress"))
    return bool(stripped) and not stripped.startswith(hooks) and not chain


@pytest.mark.parametrize(
    ("source", "setup", "link", "pod", "binary"),
    [
        ("flannel", FLANNEL + FLANNEL_POD, "vethpod1", "shop/web", "/opt/cni/bin/flannel"),
        ("calico", CALICO + CALICO_POD, "cali0123456789a", "the pod behind cali0123456789a", "/opt/cni/bin/calico"),
    ],
)
def test_pods_that_run_keep_their_links_until_told_otherwise(
    machine: Machine, source: str, setup: str, link: str, pod: str, binary: str
) -> None:
    machine.shell(setup)
    done = takeover(machine, source, "--yes", "--backup", "/run/backup")
    assert done["restart"] == [pod]
    assert link in links(machine.network)
    assert binary in {kept["object"] for kept in done["kept"]}
    assert binary in files(machine)
    if source == "calico":
        assert "dev cali0123456789a" in machine.network.ip("route", "show", "10.99.1.5")
    rest = takeover(machine, source, "--yes", "--pods", "--backup", "/run/backup2")
    assert [step for step in rest["steps"] if step["failure"]] == []
    assert link not in links(machine.network)
    assert binary not in files(machine)
    assert takeover(machine, source, "--dry-run")["steps"] == []


def test_what_cannot_be_told_is_named_and_more_pools_can_be_given(machine: Machine) -> None:
    machine.shell("ip link add cni0 type bridge && ip address add 10.55.0.1/24 dev cni0")
    kept = {row["object"]: row["reason"] for row in takeover(machine, "flannel", "--dry-run")["kept"]}
    assert "may be another's" in kept["cni0"]
    machine.shell(CALICO)
    plan = takeover(machine, "calico", "--dry-run")
    assert "--pool" in {row["object"]: row["reason"] for row in plan["kept"]}["10.98.0.0/26"]
    more = takeover(machine, "calico", "--dry-run", "--pool", "10.98.0.0/16")
    assert "10.98.0.0/26" in {step["object"] for step in more["steps"]}
    assert machine.try_("tortie", "node", "takeover", "--from", "calico", "--pool", "nonsense").returncode == 2
    asked = machine.try_("tortie", "node", "takeover", "--from", "calico")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr


def test_while_its_program_runs_it_refuses(machine: Machine) -> None:
    machine.shell(FLANNEL)
    machine.shell("cp /bin/sleep /run/flanneld && { /run/flanneld 600 </dev/null >/dev/null 2>&1 & }")
    refused = machine.try_("tortie", "node", "takeover", "--from", "flannel", "--yes")
    assert refused.returncode == 1
    assert "DaemonSet" in refused.stderr
    assert "flannel.1" in links(machine.network)
    assert takeover(machine, "flannel", "--dry-run")["steps"]
