"""Manifests and facts for tests of the api and of the command line."""

from __future__ import annotations

from itertools import count

from bus_schemas.manifests import Accepted, read
from bus_schemas.resources import Resource
from bus_schemas.subjects import DESIRED, Fact
from services.api.core import Core
from services.api.requests import Apply, Decision, Planned, Stamp

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 10.244.0.0/16, blockSize: 26, natOutgoing: true}
"""

NODE = """\
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1}
spec: {bgp: {ipv4Address: 10.0.0.15/24}}
"""

NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata: {name: develop, labels: {purpose: test}}
"""

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: develop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80, name: http}]}]}
"""

CALICO_POLICY = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: allow-web, namespace: develop}
spec: {order: 10, selector: app == 'web', ingress: [{action: Allow}]}
"""

KUBERNETES_POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all, namespace: develop}
spec: {podSelector: {}}
"""

EVERYTHING = (POD, CALICO_POLICY, KUBERNETES_POLICY, NAMESPACE, NODE, POOL)
"""In no sensible order."""


def joined(*documents: str) -> str:
    return "---\n".join(documents)


def resource(text: str) -> Resource:
    (outcome,) = read(text)
    assert isinstance(outcome, Accepted), outcome
    return outcome.resource


def stamp(time: str = "2026-01-02T03:04:05Z") -> Stamp:
    return Stamp(time, (f"uid-{number}" for number in count(1)))


class Bench:
    """A core and the bus that it would write to, with a sequence that counts."""

    def __init__(self, *documents: str) -> None:
        self.core = Core()
        self.sequence = 0
        if documents:
            self.do(Apply(read(joined(*documents))))

    def apply(self, *documents: str) -> Decision:
        return self.do(Apply(read(joined(*documents))))

    def do(self, request: object, time: str = "2026-01-02T03:04:05Z") -> Decision:
        """Decides and, where the answer is a plan, carries it out."""
        decision = self.core.decide(request, stamp(time))  # type: ignore[arg-type]
        if isinstance(decision, Planned):
            for write in decision.writes:
                self.sequence += 1
                self.core.apply(Fact(DESIRED[write.kind], write.key, write.resource, self.sequence))
        return decision
