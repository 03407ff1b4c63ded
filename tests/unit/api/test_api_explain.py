"""Whether FROM may speak to TO, from the mirror and compiled policy. The compiler itself says what is compiled."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from bus_schemas.ipam import ServiceAddresses
from bus_schemas.subjects import DESIRED, SERVICE_ADDRESSES, Fact
from services.api.explain import CannotTell, find_end, wanted
from tests.support.explained import Bench

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}
      podSelector: {matchLabels: {role: x}}
  - from: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{port: http}, {port: 443}]
"""


@pytest.fixture
def bench() -> Bench:
    made = Bench(POLICY)
    made.pod("shop/web", "10.244.0.1", app="web")
    made.pod("shop/api", "10.244.0.2", node="node2", app="api")
    made.pod("other/x", "10.244.0.3", node="node2")
    return made


def test_the_rule_that_allows_is_named(bench: Bench) -> None:
    answer = bench.explain("shop/api", "shop/web", "TCP/http")
    assert (answer.action, answer.traffic) == ("allow", "TCP/http")
    assert answer.because.endswith("ingress of shop/web: NetworkPolicy/shop/web ingress[1]")
    assert answer.ingress is not None
    (step,) = answer.ingress.steps
    assert step.says == 'allow TCP from `app == "api"` in namespace shop to port 443 or http'
    assert [(s.rule, s.why) for s in step.skipped] == [
        (
            "ingress[0]",
            'source 10.244.0.2 is not in `role == "x"` in namespaces with `kubernetes.io/metadata.name == "other"`',
        )
    ]
    assert answer.egress is not None
    assert answer.egress.because == "no policy governs it, and the profile of its namespace allows it"


def test_a_denial_says_why_every_rule_did_not_match(bench: Bench) -> None:
    answer = bench.explain("shop/api", "10.244.0.1", "TCP/81")
    assert answer.action == "deny"
    assert answer.because == (
        "ingress of shop/web: no rule of NetworkPolicy/shop/web matches, and tier default then denies"
    )
    assert answer.ingress is not None
    assert answer.ingress.steps[0].skipped[1].why == "destination port 81 is not 443 or http"
    assert "10.244.0.1 is pod shop/web" in answer.notes
    assert any("live on" in note for note in answer.notes)


def test_a_node_reaches_its_own_pods_and_no_others(bench: Bench) -> None:
    assert bench.explain("node:node1", "shop/web", "TCP/80").action == "allow"
    assert bench.explain("node:node2", "shop/web", "TCP/80").action == "deny"
    assert bench.explain("203.0.113.7", "shop/web", "ICMP").action == "deny"
    assert bench.explain("shop/web", "203.0.113.7", "ICMP").action == "allow"


def test_what_is_not_compiled_is_closed(bench: Bench) -> None:
    bench.explain("shop/api", "shop/web", "TCP/443")
    bench.compiled.attachments.clear()
    answer = bench.explain("other/x", "shop/web", "TCP/443")
    assert answer.action == "deny"
    assert answer.egress is not None
    assert answer.egress.because.startswith("nothing is compiled for it")


def test_a_service_address_is_told_apart_and_followed(bench: Bench) -> None:
    bench.tell(_service(["10.96.0.10"]))
    answer = bench.explain("shop/api", "10.96.0.10", "TCP/80")
    assert "Service shop/web" in " ".join(answer.notes)
    assert "it has no endpoints" in " ".join(answer.notes)
    bench.tell(_slice("10.244.0.1", port=8080))
    answer = bench.explain("shop/api", "10.96.0.10", "TCP/80")
    assert (answer.destination, answer.destination_address, answer.action) == ("shop/web", "10.244.0.1", "allow")
    assert "judged is one of its endpoints, shop/web port 8080" in " ".join(answer.notes)


def test_a_load_balancers_address_and_a_node_port_are_followed(bench: Bench) -> None:
    balanced = _service(["10.96.0.10"], type="LoadBalancer", node_port=30080)
    for fact in (balanced, _slice("10.244.0.1", port=8080), _given("198.51.100.1")):
        bench.tell(fact)
    for destination, port in (("198.51.100.1", "TCP/80"), ("node:node1", "TCP/30080")):
        answer = bench.explain("shop/api", destination, port)
        notes = " ".join(answer.notes)
        assert answer.destination == "shop/web"
        assert "Service shop/web" in notes
        assert "sees that node in place of who asks" in notes
    assert "Service" not in " ".join(bench.explain("shop/api", "node:node1", "TCP/30081").notes)


def test_a_service_leads_to_addresses_of_its_own_family(bench: Bench) -> None:
    bench.tell(_service(["10.96.0.10"]))
    for piece in (
        _slice("web.example.com", port=8080, kind="FQDN"),
        _slice("fd00::1", port=8080, kind="IPv6"),
        _slice(port=8080),
    ):
        bench.tell(piece)
        notes = " ".join(bench.explain("shop/api", "10.96.0.10", "TCP/80").notes)
        assert "it has no endpoints" in notes


def _given(*addresses: str) -> Fact:
    given = ServiceAddresses(namespace="shop", service="web", addresses=addresses)
    return Fact(SERVICE_ADDRESSES, ("shop", "web"), given, 1)


def _service(ips: list[str], node_port: int = 0, **spec: Any) -> Fact:
    from bus_schemas.resources import Metadata, Service
    from bus_schemas.resources.services import ServicePort, ServiceSpec

    service = Service(
        metadata=Metadata(namespace="shop", name="web"),
        spec=ServiceSpec(cluster_ips=tuple(ips), ports=(ServicePort(name="w", port=80, node_port=node_port),), **spec),
    )
    return Fact(DESIRED[Service], ("shop", "web"), service, 1)


def _slice(*addresses: str, port: int, kind: Literal["IPv4", "IPv6", "FQDN"] = "IPv4") -> Fact:
    from bus_schemas.resources import EndpointSlice, Metadata
    from bus_schemas.resources.services import SERVICE_NAME, EndpointSliceSpec, SliceEndpoint, SlicePort

    spec = EndpointSliceSpec(
        address_type=kind,
        endpoints=(SliceEndpoint(addresses=addresses),),
        ports=(SlicePort(name="w", port=port),),
    )
    metadata = Metadata(namespace="shop", name="web-1", labels={SERVICE_NAME: "web"})
    return Fact(DESIRED[EndpointSlice], ("shop", "web-1"), EndpointSlice(metadata=metadata, spec=spec), 1)


def test_pods_of_the_host_network_are_named(bench: Bench) -> None:
    bench.pod("shop/agent", node="node2", spec="hostNetwork: true")
    answer = bench.explain("shop/agent", "shop/web", "TCP/80")
    assert (answer.source_address, answer.action) == ("10.0.0.16", "deny")
    assert "no policy applies to it" in answer.notes[0]


@pytest.mark.parametrize(
    ("source", "destination", "traffic", "says"),
    [
        ("shop/absent", "shop/web", "TCP/80", "there is no pod shop/absent"),
        ("web", "shop/web", "TCP/80", "Is it default/web?"),
        ("shop/web", "node:nowhere", "TCP/80", "there is no node"),
        ("shop/api", "shop/web", "TCP", "which port?"),
        ("shop/api", "shop/web", "XYZ/80", "is not PROTOCOL/PORT"),
        ("shop/api", "shop/web", "TCP/0", "from 1 to 65535"),
        ("shop/api", "shop/web", "TCP/metrics", "has no port named 'metrics' for it (it has http)"),
        ("shop/api", "fd00::1", "TCP/80", "no address of one family"),
        ("shop/waiting", "shop/web", "TCP/80", "no node has plugged it in"),
    ],
)
def test_what_cannot_be_told_is_a_sentence(
    bench: Bench, source: str, destination: str, traffic: str, says: str
) -> None:
    bench.pod("shop/waiting")
    with pytest.raises(CannotTell) as error:
        bench.explain(source, destination, traffic)
    assert says in str(error.value)


def test_only_what_decides_is_read(bench: Bench) -> None:
    ends: list[Any] = [find_end(bench.api, "shop/web"), find_end(bench.api, "203.0.113.7")]
    assert wanted(bench.api, *ends) == ([("node1", "shop", "web")], [])
