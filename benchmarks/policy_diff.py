"""How long `tortie policy diff` takes to compare: 1,000 pods in 50 namespaces, 100 policies, one of them changed.

.venv/bin/python -m benchmarks.policy_diff
"""

from __future__ import annotations

import time

from bus_schemas.ids import PodKey
from bus_schemas.manifests import Accepted, read
from bus_schemas.resources import Resource
from tortie.policy.changes import compare
from tortie.policy.offline import OfflineCluster

NAMESPACES, PODS, POLICIES = 50, 1_000, 100


def policy(number: int, ports: str = "") -> str:
    namespace, app = f"ns{number % NAMESPACES}", f"app{number // NAMESPACES}"
    other = f"ns{(number * 7 + 1) % NAMESPACES}"
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: p{number}, namespace: {namespace}}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  ingress:
  - from: [{{podSelector: {{}}}}, {{namespaceSelector: {{matchLabels: {{name: {other}}}}}}}]
    ports: [{{port: {8000 + number}}}{ports}]
  - from: [{{ipBlock: {{cidr: 10.{number}.0.0/16}}}}]
"""


def cluster(texts: list[str]) -> tuple[OfflineCluster, dict[PodKey, tuple[str, ...]]]:
    texts = [*texts]
    for n in range(NAMESPACES):
        texts.append(f"{{apiVersion: v1, kind: Namespace, metadata: {{name: ns{n}, labels: {{name: ns{n}}}}}}}")
    pods: dict[PodKey, tuple[str, ...]] = {}
    for n in range(PODS):
        key = PodKey(f"ns{n % NAMESPACES}", f"pod{n}")
        pods[key] = (f"172.16.{n >> 8}.{n & 255}",)
        metadata = f"{{namespace: {key.namespace}, name: {key.name}, labels: {{app: app{n // NAMESPACES % 4}}}}}"
        texts.append(f"{{apiVersion: v1, kind: Pod, metadata: {metadata}}}")
    made = OfflineCluster(resources("\n---\n".join(texts)))
    for key, addresses in pods.items():
        made.plug(key, "node1", addresses)
    made.settle()
    return made, pods


def resources(text: str) -> list[Resource]:
    return [outcome.resource for outcome in read(text) if isinstance(outcome, Accepted)]


def main() -> None:
    policies = [policy(n) for n in range(POLICIES)]
    started = time.perf_counter()
    before, pods = cluster(policies)
    built = time.perf_counter()
    cases = {
        "one policy gets a port": [policy(0, ", {port: 443}"), *policies[1:]],
        "half of them go": policies[::2],
        "a global policy denies all": [
            *policies,
            "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: d}, "
            "spec: {order: 1, types: [Ingress], ingress: [{action: Deny}]}}",
        ],
    }
    print(f"one cluster read and compiled: {built - started:.2f} s")
    for name, texts in cases.items():
        after, _ = cluster(texts)
        started = time.perf_counter()
        found = compare(before, after, pods)
        took = time.perf_counter() - started
        print(
            f"{name}: {took:.2f} s; {len(found.changes)} rows, {found.classes} classes, "
            f"{found.asked} protocols and ports, {len(found.outside)} regions outside"
        )


if __name__ == "__main__":
    main()
