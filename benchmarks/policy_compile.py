"""How long the policy compiler's core takes, from cold and for one change, at a given size.

    python -m benchmarks.policy_compile --namespaces 25000 --pods 100000 --policies 75000

The cluster is many small namespaces, as in the published comparisons: in each, pods of a few applications and, in turn,
a policy that isolates everything, one that lets one application reach another on a port, and one for egress. Decoding
of the messages is not counted; everything from `apply` to the messages that `flush` returns is, and encoding is said
apart. Run it alone and pinned to one core (`taskset -c 1`) for figures to compare.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator

from bus_schemas.codec import encode
from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName
from bus_schemas.resources import KubernetesNetworkPolicy, LabelSelector, Metadata, Namespace, Pod
from bus_schemas.resources.network_policy import (
    KubernetesNetworkPolicySpec,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from bus_schemas.subjects import DESIRED, ENDPOINT, Fact
from services.policy_compiler.core import Changes, Core
from services.policy_compiler.longevity import Longevity

APPS = 4
BATCH = 4096


def namespace(n: int, labels: dict[str, str]) -> Fact:
    name = f"ns-{n}"
    labels = {"kubernetes.io/metadata.name": name, **labels}
    return Fact(DESIRED[Namespace], ("", name), Namespace(metadata=Metadata(name=name, labels=labels)))


def pod(n: int, namespaces: int, labels: dict[str, str]) -> Fact:
    space, name = f"ns-{n % namespaces}", f"pod-{n}"
    labels = {"app": f"app-{n // namespaces % APPS}", "pod-template-hash": f"{n:x}", **labels}
    metadata = Metadata(namespace=space, name=name, labels=labels, uid=f"{n:032x}")
    return Fact(DESIRED[Pod], (space, name), Pod(metadata=metadata))


def endpoint(n: int, namespaces: int) -> Fact:
    space, name, node = f"ns-{n % namespaces}", f"pod-{n}", NodeName(f"node-{n % 1000}")
    address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
    value = Endpoint(
        node=node, namespace=space, name=name, container=f"{n:064x}", link=f"tor{n:011x}", addresses=(address,)
    )
    return Fact(ENDPOINT, (node, space, name), value)


def policy(n: int, namespaces: int, port: int = 80) -> Fact:
    space, name = f"ns-{n % namespaces}", f"policy-{n}"
    turn = n // namespaces

    def app(offset: int) -> LabelSelector:
        return LabelSelector(match_labels={"app": f"app-{(turn + offset) % APPS}"})

    ports = (NetworkPolicyPort(port=port),)
    match turn % 3:
        case 0:
            spec = KubernetesNetworkPolicySpec()
        case 1:
            rule = NetworkPolicyIngressRule(from_=(NetworkPolicyPeer(pod_selector=app(1)),), ports=ports)
            spec = KubernetesNetworkPolicySpec(pod_selector=app(0), ingress=(rule,))
        case _:
            to = NetworkPolicyEgressRule(to=(NetworkPolicyPeer(pod_selector=app(2)),), ports=ports)
            spec = KubernetesNetworkPolicySpec(pod_selector=app(0), policy_types=("Egress",), egress=(to,))
    value = KubernetesNetworkPolicy(metadata=Metadata(namespace=space, name=name), spec=spec)
    return Fact(DESIRED[KubernetesNetworkPolicy], (space, name), value)


def cluster(namespaces: int, pods: int, policies: int) -> Iterator[Fact]:
    yield from (namespace(n, {}) for n in range(namespaces))
    yield from (policy(n, namespaces) for n in range(policies))
    yield from (pod(n, namespaces, {}) for n in range(pods))
    yield from (endpoint(n, namespaces) for n in range(pods))


def compiled(core: Core, facts: Iterator[Fact] | list[Fact]) -> tuple[float, float, Changes]:
    """Seconds of applying, of flushing, and what came of it."""
    start = time.perf_counter()
    for fact in facts:
        core.apply(fact)
    applied = time.perf_counter()
    changes = core.flush()
    return applied - start, time.perf_counter() - applied, changes


def compiled_from_cold(core: Core, facts: list[Fact]) -> tuple[float, float, Changes]:
    """As the service does it: batch by batch, with what was read out of the cyclic collector's sight."""
    start = time.perf_counter()
    for at in range(0, len(facts), BATCH):
        for fact in facts[at : at + BATCH]:
            core.apply(fact)
        gc.freeze()
    applied = time.perf_counter()
    longevity = Longevity()
    changes = longevity.first_flush(core)
    longevity.settle()
    return applied - start, time.perf_counter() - applied, changes


def repeated(core: Core, name: str, times: int, change: Callable[[int], list[Fact]]) -> None:
    took, messages = [], []
    for n in range(times):
        apply, flush, changes = compiled(core, change(n))
        took.append((apply + flush) * 1e3)
        messages.append(len(changes))
    took.sort()
    print(
        f"  {name:34} p50 {statistics.median(took):7.3f} ms   p99 {took[int(len(took) * 0.99)]:7.3f} ms   "
        f"max {took[-1]:7.3f} ms   {statistics.mean(messages):.1f} messages"
    )


def calibration() -> float:
    """CPU seconds of a fixed loop of plain Python: to tell a slow machine from a slow program."""
    began = time.process_time()
    counts: Counter[int] = Counter()
    for n in range(2_000_000):
        counts[n * 2654435761 & 1023] += n & 7
    return time.process_time() - began


def memory_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespaces", type=int, default=2_500)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--policies", type=int, default=7_500)
    parser.add_argument("--changes", type=int, default=200, help="how often each single change is made")
    args = parser.parse_args()
    spaces, pods, policies = args.namespaces, args.pods, args.policies

    empty = memory_mb()
    facts = list(cluster(spaces, pods, policies))
    gc.freeze()
    before = memory_mb()
    core = Core()
    cpu = time.process_time()
    apply, flush, changes = compiled_from_cold(core, facts)
    cpu = time.process_time() - cpu
    start = time.perf_counter()
    for group in changes.groups.values():
        if group is not None:
            encode(group)
    for rules in changes.rules.values():
        if rules is not None:
            encode(rules)
    for attachment in changes.attachments.values():
        if attachment is not None:
            encode(attachment)
    encoding = time.perf_counter() - start
    print(f"{spaces} namespaces, {pods} pods, {policies} policies: {core.sizes}")
    print(f"  cold: {apply + flush:.2f} s (apply {apply:.2f}, flush {flush:.2f}), encoding {encoding:.2f} s more")
    print(f"  cold, CPU: {cpu:.2f} s, {cpu / calibration():.1f}x a fixed loop of plain Python")
    print(
        f"  memory: {memory_mb():.0f} MB (interpreter {empty:.0f}, facts {before - empty:.0f}, "
        f"compiled {memory_mb() - before:.0f}); {len(changes)} messages"
    )
    del changes, facts
    gc.collect()
    gc.freeze()

    step = max(1, pods // args.changes)
    repeated(core, "a pod's label changes", args.changes, lambda n: [pod(n * step, spaces, {"role": f"r{n}"})])
    repeated(core, "a pod changes its application", args.changes, lambda n: [pod(n * step, spaces, {"app": "app-9"})])
    repeated(core, "a pod comes", args.changes, lambda n: [pod(pods + n, spaces, {}), endpoint(pods + n, spaces)])
    repeated(core, "a namespace's label changes", args.changes, lambda n: [namespace(n, {"team": f"t{n}"})])
    repeated(core, "a policy's rules change", args.changes, lambda n: [policy(spaces + n, spaces, port=1000 + n)])
    repeated(core, "a policy comes", args.changes, lambda n: [policy(policies + n, spaces)])
    repeated(core, "a policy goes", args.changes, lambda n: [policy(policies + n, spaces)._replace(value=None)])


if __name__ == "__main__":
    main()
