"""An api's mirror beside a compiler, to ask for explanations without a bus."""

from __future__ import annotations

from bus_schemas.endpoints import Endpoint
from bus_schemas.explanations import Explanation
from bus_schemas.ids import NodeName
from bus_schemas.manifests import Accepted, read
from bus_schemas.subjects import DESIRED, ENDPOINT, Fact
from services.api.core import Core
from services.api.explain import Compiled, asked, explain, find_end, find_service
from services.policy_compiler.core import Core as Compiler

CLUSTER = """
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {kubernetes.io/metadata.name: other}}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: node1}, spec: {bgp: {ipv4Address: 10.0.0.15/24}}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: node2}, spec: {bgp: {ipv4Address: 10.0.0.16/24}}}
"""


class Bench:
    """An api's mirror beside a compiler, told the same things."""

    def __init__(self, *documents: str) -> None:
        self.api, self.compiler, self.compiled = Core(), Compiler(), Compiled()
        self.sequence = 0
        self.put(CLUSTER, *documents)

    def put(self, *documents: str) -> None:
        for read_ in read("---\n".join(documents)):
            assert isinstance(read_, Accepted), read_
            kind = type(read_.resource)
            self.tell(Fact(DESIRED[kind], read_.resource.key, read_.resource, 1))

    def tell(self, fact: Fact) -> None:
        self.api.apply(fact)
        self.compiler.apply(fact)

    def pod(self, name: str, address: str = "", node: str = "node1", spec: str = "", **labels: str) -> None:
        namespace, _, short = name.partition("/")
        ports = "containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]"
        self.put(
            f"{{apiVersion: v1, kind: Pod, metadata: {{namespace: {namespace}, name: {short}, labels: "
            f"{{{', '.join(f'{k}: {v}' for k, v in labels.items())}}}}}, spec: {{nodeName: {node}, {spec or ports}}}}}"
        )
        if address:
            endpoint = Endpoint(
                node=NodeName(node), namespace=namespace, name=short, container="c", link="t", addresses=(address,)
            )
            self.tell(Fact(ENDPOINT, (node, namespace, short), endpoint, 1))

    def explain(self, source: str, destination: str, traffic: str) -> Explanation:
        changes = self.compiler.flush()
        for (group, at), value in changes.groups.items():
            self.compiled.world.set_group(group, at, value)
        for id, rules in changes.rules.items():
            self.compiled.world.set_rules(id, rules)
        for key, attachment in changes.attachments.items():
            self.compiled.attachments[tuple(key)] = attachment  # type: ignore[index]
        for host, compiled in changes.hosts.items():
            self.compiled.hosts[host.node, host.name] = compiled
        question = asked(traffic)
        end, question = find_service(self.api, find_end(self.api, destination), question)
        return explain(self.api, find_end(self.api, source), end, question, self.compiled)
