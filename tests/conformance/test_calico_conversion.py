"""The inputs and outputs of Calico's converter, compared by meaning: what Kubernetes' object does here must be what the
Calico object that it becomes there does here, and, where the file has verdicts, what those say.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from bus_schemas.ids import PodKey
from bus_schemas.manifests import Accepted, Rejected, read_object
from bus_schemas.resources import GlobalNetworkPolicy, Metadata, NetworkPolicy, Pod, Resource
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule, GlobalNetworkPolicySpec, NetworkPolicySpec
from bus_schemas.resources.core import PodStatus
from services.node_dataplane.links import link_name
from tests.support import stored_policies, truth_tables
from tests.support.compiled_policy import NUMBERS
from tests.support.conversions import PORTS, cluster, label_sets, says, words
from tests.support.oracle_world import evaluate
from tests.support.policy_judges import FORGIVING, Connection, MemoryJudge, OracleJudge, Way

FILE = "calico_np.json"
CLIENT, SERVER = "10.99.0.1", "10.99.0.2"

Raw = Mapping[str, Any]
NewJudge = Callable[[], MemoryJudge]


@pytest.mark.parametrize("judge", FORGIVING)
@pytest.mark.parametrize("case", truth_tables.raw_cases(FILE))
def test_conversion(case: Raw, judge: str) -> None:
    KINDS[case["kind"]](case, FORGIVING[judge])


def settled(judge: NewJudge, *resources: Resource) -> MemoryJudge:
    made = judge()
    for resource in resources:
        made.put(resource)
    made.settle()
    return made


def calico(case: Raw) -> Resource:
    return stored_policies.applied(case["expected"]["value"])


# --- policies


def np(case: Raw, judge: NewJudge) -> None:
    manifest = {"apiVersion": stored_policies.KUBERNETES, "kind": "NetworkPolicy", **case["input"]}
    policy = stored_policies.stored(manifest)  # some of them would be refused on the way in
    if "semantic" not in case:
        _mean_the_same(case, policy, judge)
        return
    semantic = case["semantic"]
    world: list[Resource] = [truth_tables.namespace(name, labels) for name, labels in semantic["namespaces"].items()]
    for at, end in enumerate(semantic["endpoints"]):
        if end["namespace"] is not None:
            world.append(
                truth_tables.pod(
                    end["namespace"], f"pod-{at}", end.get("labels") or {}, end["ip"], end.get("ports") or ()
                )
            )
    for governing in (policy, calico(case)):
        seen = settled(judge, *world, governing)
        wrong = []
        for probe in semantic["probes"]:
            source, destination = (semantic["endpoints"][probe[end]] for end in ("src", "dst"))
            packet = Connection(source["ip"], destination["ip"], NUMBERS[probe["protocol"]], probe["port"])
            # An endpoint outside can have the very address of a pod.
            ends: tuple[tuple[Way, Raw], ...] = (("ingress", destination), ("egress", source))
            for way, end in ends:
                if (end["namespace"] is None or seen.passes(packet, (way,))) != probe[way]:
                    wrong.append((probe, way))
        assert not wrong, governing.display


def cnp(case: Raw, judge: NewJudge) -> None:
    manifest = {"apiVersion": stored_policies.CLUSTER, "kind": "ClusterNetworkPolicy", **case["input"]}
    manifest.pop("status", None)
    if (case["expected"] or {}).get("value") is None:
        outcome = read_object(manifest)
        assert isinstance(outcome, Rejected)
        assert all(fault.path.startswith("spec") for fault in outcome.faults), outcome
        return
    _mean_the_same(case, stored_policies.applied(manifest), judge)


def _mean_the_same(case: Raw, policy: Resource, judge: NewJudge) -> None:
    """What is malformed has a meaning only once it is compiled: the oracle is asked about Calico's object alone."""
    among = cluster(
        words(case["input"], case["expected"]["value"]), case["input"]["metadata"].get("namespace") or "ns-0"
    )
    expected = says(OracleJudge(), calico(case), among)
    assert says(judge(), calico(case), among) == expected
    if not case.get("expected_error") or judge is not FORGIVING["oracle"]:
        seen = says(judge(), policy, among)
        assert seen == expected, [key for key in expected if seen[key] != expected[key]][:5]


# --- parts of policies


def selector(case: Raw, judge: NewJudge) -> None:
    """As whom a policy governs, or as whose namespaces it names."""
    given, of_pods = case["input"]["selector"], case["input"]["scope"] == "pod"
    assert case["input"]["scope"] in ("pod", "namespace")
    sets = label_sets(words({"in": given}).labels or {"some": "label"})
    governed = (given if of_pods else {"matchLabels": {"is": "governed"}}) or {}
    peer = {"podSelector": {}} if given is None else {"namespaceSelector": given}
    rules = [] if of_pods else [{"from": [peer]}]
    policy = stored_policies.applied(
        {
            "apiVersion": stored_policies.KUBERNETES,
            "kind": "NetworkPolicy",
            "metadata": {"namespace": "here", "name": "p"},
            "spec": {"podSelector": governed, "policyTypes": ["Ingress"], "ingress": rules},
        }
    )
    world = [truth_tables.namespace("here", {}), truth_tables.pod("here", "target", {"is": "governed"}, SERVER, ())]
    for at, labels in enumerate(sets):
        space, own = ("here", labels) if of_pods else (f"ns-{at}", {})
        world += [truth_tables.namespace(space, {} if of_pods else labels)] if not of_pods else []
        world.append(truth_tables.pod(space, f"pod-{at}", own, f"10.99.1.{at + 1}", ()))
    seen = settled(judge, *world, policy)
    for at, labels in enumerate(sets):
        expected = case["expected"] != "" and evaluate(
            case["expected"], {**labels, **({"projectcalico.org/orchestrator": "k8s"} if of_pods else {})}
        )
        if of_pods:
            assert seen.passes(Connection(CLIENT, f"10.99.1.{at + 1}", 6, 80)) != expected, labels
        else:
            assert seen.passes(Connection(f"10.99.1.{at + 1}", SERVER, 6, 80)) == expected, labels


def simplify_ports(case: Raw, judge: NewJudge) -> None:
    """Two lists of ports that open the same."""
    lists = [tuple(case[key] or ()) for key in ("input", "expected")]
    numbers = {int(n) for ports in lists for port in ports for n in re.findall(r"\d+", str(port))}
    numbers |= {p["port"] for p in PORTS} | {12345}
    near = {n for m in numbers for n in (m - 1, m, m + 1)} & set(range(1, 65536))
    judges = [settled(judge, *_with_ports(ports)) for ports in lists]
    opened = [{n for n in near if seen.passes(Connection(CLIENT, SERVER, 6, n))} for seen in judges]
    assert opened[0] == opened[1]
    assert opened[0]


def _with_ports(ports: tuple[int | str, ...]) -> list[Resource]:
    rule = CalicoRule(action="Allow", protocol="TCP", destination=EntityRule(ports=ports))
    return [
        truth_tables.namespace("here", {}),
        truth_tables.pod("here", "server", {}, SERVER, PORTS),
        NetworkPolicy(metadata=Metadata(namespace="here", name="p"), spec=NetworkPolicySpec(ingress=(rule,))),
    ]


def peer(case: Raw, judge: NewJudge) -> None:
    """A peer of Kubernetes against the nets that it becomes."""
    expected = case["expected"]
    assert expected["selector"] == expected["namespaceSelector"] == "", "only blocks of addresses are expected here"
    policy = stored_policies.applied(
        {
            "apiVersion": stored_policies.KUBERNETES,
            "kind": "NetworkPolicy",
            "metadata": {"namespace": "here", "name": "p"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [case["input"]]}]},
        }
    )
    seen = settled(
        judge, truth_tables.namespace("here", {}), truth_tables.pod("here", "server", {}, SERVER, ()), policy
    )
    nets, without = expected["nets"] or [], expected["notNets"] or []
    for text in (*nets, *without):
        net = ip_network(text)
        for address in (net.network_address - 1, net[0], net[-1], net.broadcast_address + 1):
            inside = any(address in ip_network(n) for n in nets) and not any(address in ip_network(n) for n in without)
            assert seen.passes(Connection(str(address), SERVER, 6, 80)) == inside, address


# --- what becomes of namespaces, service accounts and pods: labels, ports, an open profile


def namespace_profile(case: Raw, judge: NewJudge) -> None:
    space = _read("v1", "Namespace", case["input"])
    value = case["expected"]["value"]["spec"]
    allowed = [rule["action"] for way in ("ingress", "egress") for rule in value.get(way) or ()]
    assert allowed == ["Allow", "Allow"]
    server = truth_tables.pod(space.metadata.name, "server", {}, SERVER, ())
    assert settled(judge, space, server).passes(Connection(CLIENT, SERVER, 6, 80))
    assert settled(judge, space, server).passes(Connection(SERVER, CLIENT, 6, 80))
    _shows(judge, [space, server], value["labelsToApply"])


def service_account_profile(case: Raw, judge: NewJudge) -> None:
    account = _read("v1", "ServiceAccount", case["input"])
    value = case["expected"]["value"]["spec"]
    assert value.keys() <= {"labelsToApply"}
    space, name = account.key
    server = truth_tables.pod(space, "server", {}, SERVER, ())
    spec = msgspec.structs.replace(server.spec, service_account_name=name)
    world = [truth_tables.namespace(space, {}), account, msgspec.structs.replace(server, spec=spec)]
    _shows(judge, world, value["labelsToApply"])


def pod_wep(case: Raw, judge: NewJudge) -> None:
    """A pod's addresses and devices are its agent's word here; with those, it must show the same labels and ports. One
    that cannot be converted is refused, and the annotation is named."""
    if case["expected"] is None:
        outcome = read_object({"apiVersion": "v1", "kind": "Pod", **_manifest(case)})
        assert isinstance(outcome, Rejected)
        named = {f"metadata.annotations.{name}" for name in case["input"]["metadata"]["annotations"]}
        assert {fault.path for fault in outcome.faults} <= named, outcome
        return
    pod = _pod(case)
    (endpoint,) = (entry["value"] for entry in case["expected"])
    assert (
        link_name(PodKey(pod.metadata.namespace, case["input"]["metadata"]["name"]))[3:]
        == endpoint["spec"]["interfaceName"][4:]
    )
    addresses = tuple(net.partition("/")[0] for net in endpoint["spec"].get("ipNetworks") or ())
    assert set(addresses) <= set(pod.status.pod_ips)
    world: list[Resource] = [truth_tables.namespace(pod.metadata.namespace, {})]
    phase = pod.status.phase
    if not addresses:
        # Nothing can be reached; of a pod that has finished there is no endpoint even if its agent still has one.
        addresses = (SERVER,)
        finished = phase in ("Succeeded", "Failed")
        world.append(msgspec.structs.replace(pod, status=PodStatus(phase=phase, pod_ips=addresses)))
        if not finished:
            _shows(judge, world, endpoint["metadata"]["labels"])
        return
    world.append(msgspec.structs.replace(pod, status=PodStatus(phase=phase, pod_ips=addresses)))
    for address in addresses:
        _shows(judge, world, endpoint["metadata"]["labels"], address)
    client = "2001:db8::1" if ":" in addresses[0] else CLIENT
    declared = {(_name(p), p.get("protocol") or "TCP", p["containerPort"]) for p in _ports(case) if p.get("name")}
    expected = {(_name(p), p["protocol"], p["port"]) for p in endpoint["spec"].get("ports") or () if p["name"]}
    for name, protocol, port in declared | expected:
        known = protocol if protocol in ("TCP", "UDP", "SCTP") else "TCP"
        rule = CalicoRule(action="Allow", protocol=known, destination=EntityRule(ports=(name,)))
        policy = GlobalNetworkPolicy(
            metadata=Metadata(name="p"), spec=GlobalNetworkPolicySpec(selector="all()", ingress=(rule,))
        )
        seen = settled(judge, *world, policy)
        packet = Connection(client, addresses[0], NUMBERS[known], port)
        assert seen.passes(packet) == ((name, protocol, port) in expected), (name, protocol, port)


def _pod(case: Raw) -> Pod:
    pod = _read("v1", "Pod", _manifest(case))
    assert isinstance(pod, Pod)
    return pod


def _manifest(case: Raw) -> dict[str, Any]:
    """But for what the authors' converter is not asked about, a pod that an API server would take."""
    manifest = json.loads(json.dumps({key: value for key, value in case["input"].items() if value is not None}))
    manifest["metadata"]["name"] = manifest["metadata"]["name"].lower()
    spec = manifest.setdefault("spec", {})
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        ports = [p for p in container.get("ports") or () if p.get("protocol", "TCP") in NUMBERS]
        container["ports"] = [{**port, "name": _name(port)} for port in ports]
    return dict(manifest)


def _name(port: Raw) -> str:
    """Kubernetes has no longer ones."""
    name = str(port.get("name") or "")
    return name if len(name) < 16 else f"p-{zlib.crc32(name.encode()):08x}"


def _ports(case: Raw) -> list[Raw]:
    """Those of the containers that only begin, too."""
    spec = case["input"].get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return [port for container in containers for port in container.get("ports") or ()]


def _shows(judge: NewJudge, world: list[Resource], labels: Mapping[str, str], address: str = SERVER) -> None:
    """A selector that asks for all these labels selects the pod at the address, and its negation does not."""
    client = "2001:db8::1" if ip_address(address).version == 6 else CLIENT
    wanted = " && ".join(f"{key} == '{value}'" for key, value in labels.items())
    for text, selected in ((wanted, True), (f"!({wanted})", False)):
        rule = CalicoRule(action="Deny")
        policy = GlobalNetworkPolicy(
            metadata=Metadata(name="p"), spec=GlobalNetworkPolicySpec(selector=text, ingress=(rule,))
        )
        assert settled(judge, *world, policy).passes(Connection(client, address, 6, 80)) != selected, text


def _read(version: str, kind: str, manifest: Raw) -> Resource:
    outcome = read_object({"apiVersion": version, "kind": kind, **manifest})
    assert isinstance(outcome, Accepted), outcome
    return outcome.resource


KINDS: dict[str, Callable[[Raw, NewJudge], None]] = {
    "np": np,
    "cnp": cnp,
    "selector": selector,
    "simplify-ports": simplify_ports,
    "peer": peer,
    "namespace-profile": namespace_profile,
    "serviceaccount-profile": service_account_profile,
    "pod-wep": pod_wep,
}
