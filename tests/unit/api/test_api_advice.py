"""What an apply, dry or not, tells of a host endpoint that shuts its node in."""

from __future__ import annotations

from services.api.requests import Planned
from tests.support.api import Bench

HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {role: node}}
spec: {node: n1, interfaceName: "*", profiles: [projectcalico-default-allow]}
"""
NODE = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 10.0.0.11/24}}
"""
NO_FAILSAFE = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [{protocol: udp, port: 68}]}
"""
CLOSING = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closing}
spec: {selector: role == 'node', types: [Ingress], ingress: [{action: Deny}]}
"""


def told(bench: Bench, *documents: str) -> dict[str, list[str]]:
    decision = bench.apply(*documents)
    assert isinstance(decision, Planned)
    return {result.kind.KIND: list(result.warnings) for result in decision.results}


def test_the_policy_that_closes_is_warned_of() -> None:
    (warning,) = told(Bench(NODE, NO_FAILSAFE, HOST), CLOSING)["GlobalNetworkPolicy"]
    assert "HostEndpoint/h shuts ssh (TCP/22) out of node n1: spec.ingress[0] of GlobalNetworkPolicy/closing" in warning


def test_together_the_host_endpoint_is() -> None:
    found = told(Bench(NODE, NO_FAILSAFE), CLOSING, HOST)
    assert "locked-out" in found["HostEndpoint"][0]
    assert not any("locked-out" in text for text in found["GlobalNetworkPolicy"])


def test_failsafe_ports_are_no_reason() -> None:
    assert told(Bench(NODE), CLOSING, HOST) == {"GlobalNetworkPolicy": [], "HostEndpoint": []}
