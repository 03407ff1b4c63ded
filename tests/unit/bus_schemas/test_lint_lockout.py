"""Host endpoints that shut out what their node lives by: where lint says so, and where it must not."""

from __future__ import annotations

import pytest
import yaml

from bus_schemas.lint import Finding, Landscape, lint
from bus_schemas.manifests import Accepted, read
from bus_schemas.resources import Resource


def resources(*documents: dict[str, object]) -> list[Resource]:
    found = []
    for outcome in read(yaml.safe_dump_all(documents)):
        assert isinstance(outcome, Accepted), outcome
        found.append(outcome.resource)
    return found


def calico(kind: str, name: str, labels: dict[str, str] | None = None, **spec: object) -> dict[str, object]:
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


def node(number: int, **labels: str) -> dict[str, object]:
    named = {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}
    return calico("Node", f"n{number}", named, bgp={"ipv4Address": f"10.0.0.1{number}/24"})


NODES = (node(1), node(2))
WORKER = {"kubernetes.io/os": "linux"}
CONTROL = {**WORKER, "node-role.kubernetes.io/control-plane": ""}


def kubernetes(number: int, labels: dict[str, str]) -> dict[str, object]:
    return calico("Node", f"n{number}", labels, bgp={"ipv4Address": f"10.0.0.1{number}/24"})


def host(**spec: object) -> dict[str, object]:
    return calico("HostEndpoint", "h", {"role": "node"}, **{"node": "n1", "interfaceName": "*", **spec})


def policy(name: str = "p", /, **spec: object) -> dict[str, object]:
    return calico("GlobalNetworkPolicy", name, **{"selector": "role == 'node'", **spec})


def allow(protocol: str, *ports: object, **more: object) -> dict[str, object]:
    return {"action": "Allow", "protocol": protocol, "destination": {"ports": list(ports)}, **more}


BOTH = {"types": ["Ingress", "Egress"]}
DENY = {"action": "Deny"}
SSH = {"protocol": "tcp", "port": 22}
NO_FAILSAFE = calico("FelixConfiguration", "default", failsafeInboundHostPorts=[], failsafeOutboundHostPorts=[])
EVERYTHING = (allow("TCP", 22, 10250), allow("UDP", 68))


def locked(
    given: tuple[dict[str, object], ...], beside: tuple[dict[str, object], ...] = NODES, *, cluster: bool = True
) -> list[Finding]:
    asked = resources(*given)
    landscape = Landscape.from_resources([*asked, *resources(*beside)], cluster=cluster)
    return [finding for finding in lint(asked, landscape) if finding.code == "locked-out"]


def test_what_decides_is_named_and_what_to_do() -> None:
    given = (NO_FAILSAFE, host(), policy(ingress=[allow("TCP", 80)]))
    inbound, outbound = locked(given)
    assert inbound.object == "HostEndpoint/h"
    assert inbound.text == (
        "spec: it shuts ssh (TCP/22), DHCP's answers (UDP/68) out of node n1: no rule of "
        "GlobalNetworkPolicy/p allows it, and tier default then denies: allow it by ingress rules such as {action: "
        "Allow, protocol: TCP, destination: {ports: [22]}} and so on in a policy of tier default, before it, or list "
        "it in failsafeInboundHostPorts of FelixConfiguration [locked-out]"
    )
    assert outbound.says == (
        "it keeps node n1 from the bus (TCP/4222), DNS (UDP/53), DHCP (UDP/67): "
        "no policy decides, and it has no profile"
    )


@pytest.mark.parametrize(
    ("given", "shut"),
    [
        pytest.param((host(), policy(**BOTH, ingress=[DENY], egress=[DENY])), [], id="failsafe ports are open"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"])), [], id="a profile allows all"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]), policy(ingress=[DENY])),
                     ["ssh (TCP/22), DHCP's answers (UDP/68)"], id="a rule denies"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]), policy(ingress=[*EVERYTHING, DENY])),
                     [], id="after others allowed"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]),
                      policy(ingress=[allow("TCP", 22, source={"nets": ["192.0.2.0/24"]}), allow("UDP", 68)])),
                     [], id="somebody may come in"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]),
                      policy(ingress=[{**DENY, "source": {"nets": ["192.0.2.0/24"]}}, {"action": "Allow"}])),
                     [], id="somebody may not"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]),
                      policy(ingress=[{**DENY, "source": {"nets": ["0.0.0.0/0"]}}, {"action": "Allow"}])),
                     ["ssh (TCP/22), DHCP's answers (UDP/68)"], id="everybody, where only IPv4 is spoken"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]), calico("Tier", "t", order=1),
                      policy(tier="t", ingress=[{"action": "Pass"}])), [], id="passed on to the profile"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]), calico("Tier", "t", order=1),
                      policy(tier="t", ingress=[{"action": "Pass", "protocol": "TCP"}])),
                     ["DHCP's answers (UDP/68)"], id="what is not passed on is denied"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]),
                      calico("Tier", "t", order=1, defaultAction="Pass"), policy(tier="t", ingress=[])),
                     [], id="a tier that passes"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]),
                      policy(preDNAT=True, applyOnForward=True, types=["Ingress"], ingress=[DENY])),
                     ["ssh (TCP/22), DHCP's answers (UDP/68)"], id="before NAT"),
        pytest.param((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]),
                      policy(doNotTrack=True, applyOnForward=True, **BOTH, ingress=[DENY], egress=[DENY])),
                     [], id="of `*` nothing is untracked"),
        pytest.param((NO_FAILSAFE, host(interfaceName="eth0", profiles=["projectcalico-default-allow"]),
                      policy(doNotTrack=True, applyOnForward=True, types=["Ingress"], ingress=[DENY])),
                     ["ssh (TCP/22), DHCP's answers (UDP/68)"], id="untracked"),
        pytest.param((NO_FAILSAFE, host(interfaceName="eth1", expectedIPs=["172.16.0.1"]),
                      policy(**BOTH, ingress=[DENY], egress=[DENY])), [], id="a device that is not the way in"),
        pytest.param((calico("FelixConfiguration", "default", failsafeInboundHostPorts=[SSH]),
                      host(profiles=["projectcalico-default-allow"]), policy(ingress=[DENY])),
                     ["DHCP's answers (UDP/68)"], id="a list that somebody wrote"),
        pytest.param((NO_FAILSAFE, calico("FelixConfiguration", "node.n1",
                                          failsafeInboundHostPorts=[SSH, {"protocol": "udp", "port": 68}]),
                      host(profiles=["projectcalico-default-allow"]), policy(ingress=[DENY])),
                     [], id="the node's own list"),
        pytest.param((NO_FAILSAFE, host(profiles=["gone"]), policy(**BOTH, ingress=EVERYTHING, egress=[])),
                     ["the bus (TCP/4222), DNS (UDP/53), DHCP (UDP/67)"], id="outbound"),
    ],
)  # fmt: skip
def test_needs_of_every_node(given: tuple[dict[str, object], ...], shut: list[str]) -> None:
    found = locked(given)
    assert len(found) == len(shut), [finding.text for finding in found]
    assert all(listed in finding.says for listed, finding in zip(shut, found, strict=True))


def test_needs_of_kubernetes() -> None:
    def found(*nodes: dict[str, object], **spec: object) -> list[str]:
        given = (host(profiles=["projectcalico-default-allow"]), policy(**spec))
        return [finding.says for finding in locked(given, nodes)]

    ssh = allow("TCP", 22)
    (kubelet,) = found(kubernetes(1, WORKER), kubernetes(2, WORKER), ingress=[ssh])
    assert kubelet.startswith("it shuts the kubelet (TCP/10250) out of node n1: no rule of GlobalNetworkPolicy/p")
    from_nodes = allow("TCP", 10250, source={"nets": ["10.0.0.0/24"]})
    assert found(kubernetes(1, WORKER), kubernetes(2, WORKER), ingress=[from_nodes]) == []
    from_elsewhere = allow("TCP", 10250, source={"nets": ["192.168.0.0/16"]})
    assert len(found(kubernetes(1, WORKER), kubernetes(2, WORKER), ingress=[from_elsewhere])) == 1
    assert found(node(1), node(2), ingress=[ssh]) == [], "not a node of Kubernetes"
    given = (NO_FAILSAFE, host(), policy(**BOTH, ingress=[ssh], egress=[]))
    inbound, outbound = (finding.says for finding in locked(given, (kubernetes(1, CONTROL), kubernetes(2, WORKER))))
    for needed in ("the kubelet (TCP/10250)", "the Kubernetes API (TCP/6443)", "etcd (TCP/2379)", "etcd's peers"):
        assert needed in inbound
    assert "the Kubernetes API (TCP/6443), etcd (TCP/2379)" in outbound


def test_bgp_where_it_is_spoken() -> None:
    given = (NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]), policy(ingress=[*EVERYTHING]))
    assert locked(given) == []
    (found,) = locked(given, (*NODES, calico("BGPConfiguration", "default", asNumber=64512)))
    assert "BGP (TCP/179)" in found.says


def test_whoever_is_given_and_has_a_part_in_it() -> None:
    open_host, deny = host(profiles=["projectcalico-default-allow"]), policy(ingress=[DENY])
    assert [f.object for f in locked((deny,), (*NODES, NO_FAILSAFE, open_host))] == ["GlobalNetworkPolicy/p"]
    assert [f.object for f in locked((NO_FAILSAFE,), (*NODES, deny, open_host))] == ["FelixConfiguration/default"]
    other = policy("q", selector="role == 'other'")
    assert locked((other,), (*NODES, NO_FAILSAFE, deny, open_host)) == []


def test_without_the_cluster_the_files_speak_for_themselves() -> None:
    deny = policy(ingress=[DENY])
    assert len(locked((NO_FAILSAFE, host(profiles=["projectcalico-default-allow"]), deny), (), cluster=False)) == 1
    assert locked((NO_FAILSAFE, host()), (), cluster=False) == []
