"""Other projects' truth tables, judged by the compiled policy in memory."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest

from bus_schemas.resources import KubernetesNetworkPolicy
from services.policy_compiler.core import Core
from tests.support import truth_tables
from tests.support.compiled_policy import NUMBERS, CompiledPolicy, Packet
from tests.support.policy_judges import CompiledJudge
from tests.support.policy_worlds import desired, endpoint, namespace, pod

NODE = "node1"


@pytest.mark.parametrize("case", [p for file in truth_tables.FILES for p in truth_tables.parameters(file)])
def test_truth_table(case: truth_tables.Case) -> None:
    judge = CompiledJudge()
    for resource in case.start:
        judge.put(resource)
    for number, step in zip(count(1), case.steps, strict=False):
        for resource in step.delete:
            judge.delete(resource)
        for resource in step.put:
            judge.put(resource)
        judge.settle()
        for table in step.tables:
            complaint = table.difference(lambda s, d, table=table: judge.reaches(table, s, d))  # type: ignore[misc]
            assert not complaint, f"step {number}: {complaint}"


def _semantic_cases() -> list[Any]:
    file = "calico_np.json"
    if not (truth_tables.directory() / file).is_file():
        reason = f"{truth_tables.directory() / file} is absent"
        return [pytest.param(None, id=file, marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(case, id=case["id"]) for case in truth_tables.document(file)["cases"] if "semantic" in case]


@pytest.mark.parametrize("case", _semantic_cases())
def test_calico_conversion_probes(case: dict[str, Any]) -> None:
    """The inputs of Calico's converter, with verdicts on which the Kubernetes rules and Calico's output agreed."""
    core, policy = Core(), CompiledPolicy()
    semantic = case["semantic"]
    for name, labels in semantic["namespaces"].items():
        core.apply(namespace(name)._replace(value=truth_tables.namespace(name, labels)))
    for at, end in enumerate(semantic["endpoints"]):
        if end["namespace"] is not None:
            where = f"{end['namespace']}/pod-{at}"
            core.apply(pod(where, end["labels"], [(p["name"], p["protocol"], p["port"]) for p in end["ports"]]))
            core.apply(endpoint(where, end["ip"], node=NODE))
    # As stored, not as applied: some of the inputs would be refused on the way in.
    core.apply(desired(msgspec.convert({"type": "k8snetworkpolicy/1", **case["input"]}, KubernetesNetworkPolicy)))
    policy.take(core.flush())
    wrong = []
    for probe in semantic["probes"]:
        source, destination = (semantic["endpoints"][probe[end]] for end in ("src", "dst"))
        packet = Packet(source["ip"], destination["ip"], NUMBERS[probe["protocol"]], probe["port"])
        seen = {
            way: end["namespace"] is None or policy.allows(way, (NODE, end["namespace"], f"pod-{probe[at]}"), packet)
            for way, end, at in (("ingress", destination, "dst"), ("egress", source, "src"))
        }
        if seen != {"ingress": probe["ingress"], "egress": probe["egress"]}:
            wrong.append((probe, seen))
    assert not wrong
