"""The manifests of k8s/: what Kubernetes would refuse, and what would only show in a cluster."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from bus_schemas import VERSION
from chassis import embedded, settings
from services.kube_bridge.settings import Settings as BridgeSettings
from services.kube_bridge.sources import RULES
from tests.support.kustomized import K8S, KUBECTL, OVERLAYS, Container, built, containers, environment, named, of_kind
from tortie.cli.main import build
from tortie.cli.serve import SERVICES

pytestmark = pytest.mark.skipif(not KUBECTL, reason="needs kubectl: apt-get install kubernetes-client")

REPOSITORY = K8S.parent
VERSIONS = ("1.25", "1.37")
"""The oldest and the newest whose schemas the validator has."""
EVERYWHERE = list(containers()) if KUBECTL else []
RUNNING = [container for container in EVERYWHERE if not container.init]


def service_of(container: Container) -> str:
    """Empty: not one of ours."""
    command = container.command
    return command[2] if command[:2] == ["tortie", "serve"] else ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_knows_every_field(overlay: str, version: str) -> None:
    for document in built(overlay):
        if document["kind"] != "CustomResourceDefinition":  # tests/unit of their generator
            kubernetes_validate.validate(document, version, strict=True)


def test_each_overlay_has_what_it_needs() -> None:
    def components(overlay: str) -> set[str]:
        return {o["metadata"]["name"].removeprefix("tortie-") for o in of_kind(overlay, "Deployment")}

    everything = {"api", "ipam", "route-distribution", "policy-compiler", "kube-bridge"}
    assert components("single-node") == components("highly-available") == everything
    assert components("policy-only") == everything - {"ipam", "route-distribution"}
    for overlay in OVERLAYS:
        assert {o["metadata"]["name"] for o in of_kind(overlay, "DaemonSet")} == {"tortie-agent"}
        (bus,) = of_kind(overlay, "StatefulSet")
        assert bus["spec"]["replicas"] == (3 if overlay == "highly-available" else 1)


def test_everything_is_in_one_namespace_and_of_one_image() -> None:
    for overlay in OVERLAYS:
        for document in built(overlay):
            if document["kind"] == "CustomResourceDefinition":
                continue
            labels = document["metadata"]["labels"]
            assert labels["app.kubernetes.io/name"] == "tortie", "by which all of it is removed"
            if document["kind"] not in ("ClusterRole", "ClusterRoleBinding"):
                assert document["metadata"]["namespace"] == "kube-system"
    assert {container.spec["image"] for container in EVERYWHERE} == {f"tortie:{VERSION}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_select(overlay: str) -> None:
    pods = []
    for workload in of_kind(overlay, "Deployment", "StatefulSet", "DaemonSet"):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
        name = workload["metadata"]["name"]
        for number in range(workload["spec"].get("replicas", 1)):
            pods.append({**labels, "statefulset.kubernetes.io/pod-name": f"{name}-{number}"})
        pod = workload["spec"]["template"]["spec"]
        spreads = pod.get("topologySpreadConstraints", [])
        apart = pod.get("affinity", {}).get("podAntiAffinity", {})
        terms = apart.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        for rule in (*spreads, *terms):
            assert rule["labelSelector"]["matchLabels"].items() <= labels.items(), name

    def selected(selector: dict[str, str]) -> int:
        return sum(selector.items() <= labels.items() for labels in pods)

    for service in of_kind(overlay, "Service"):
        headless = service["spec"].get("clusterIP") == "None"
        assert selected(service["spec"]["selector"]) == (len(of_kind(overlay, "Service")) - 1 if headless else 1)
    budgets = {o["metadata"]["name"]: o for o in of_kind(overlay, "PodDisruptionBudget")}
    for budget in budgets.values():
        assert selected(budget["spec"]["selector"]["matchLabels"]) >= 2, "it would forbid every drain, or is for nobody"
    if overlay == "highly-available":
        several = of_kind(overlay, "Deployment", "StatefulSet")
        assert budgets.keys() == {o["metadata"]["name"] for o in several}
        assert all(o["spec"]["replicas"] >= 2 for o in several)


# --- what a container is told


@pytest.mark.parametrize("container", [c for c in RUNNING if service_of(c)], ids=repr)
def test_settings_are_settings(container: Container) -> None:
    told = environment(container)
    type_: Any = importlib.import_module(f"services.{SERVICES[service_of(container)]}.settings").Settings
    ours = {n for n in told if n.startswith("TORTIE_") and not re.fullmatch(r"TORTIE_NATS_\d_.*", n)}
    unknown = ours - settings.variables(type_)
    if unknown == {"TORTIE_POLICY_ONLY"}:
        pytest.skip("this agent has no policy-only mode")
    assert not unknown, "a setting of another service is of no use here"
    loaded = settings.load(type_, told)
    high = container.overlay == "highly-available"
    services = [o["metadata"]["name"] for o in of_kind(container.overlay, "Service")]
    servers = [f"tortie:s@10.96.0.{services.index(f'tortie-nats-{n}') + 10}:4222" for n in range(3 if high else 1)]
    assert loaded.nats_url == ",".join(f"nats://{server}" for server in servers)
    assert loaded.nats_replicas == (3 if high else 1)
    assert loaded.instance == ("node1" if service_of(container) == "node-dataplane" else "tortie-x-0")
    if service_of(container) == "node-dataplane":
        assert loaded.node == "node1"
        assert told.get("TORTIE_POLICY_ONLY", "false") == str(container.overlay == "policy-only").lower()


@pytest.mark.parametrize("container", EVERYWHERE, ids=repr)
def test_nothing_is_left_unsaid_in_a_variable(container: Container) -> None:
    left = {name: text for name, text in environment(container).items() if "$(" in text}
    assert not left, "what is named there stands behind it, or nowhere"


@pytest.mark.parametrize("container", EVERYWHERE, ids=repr)
def test_every_command_is_one(container: Container) -> None:
    command = container.command
    if command[0] == "sh":
        (script,) = command[2:]
        commands = [part.split() for part in re.split(r"&&|\|\|", script)]
        tortie = [part for part in commands if part[0] == "tortie"]
    else:
        tortie = [command] if command[0] == "tortie" else []
        assert command[0] in ("tortie", "nats-server")
    for words in tortie:
        group = typer.main.get_command(build(words[1]))
        with group.make_context("tortie", words[1:], resilient_parsing=False) as context:
            name, found, rest = group.resolve_command(context, words[1:])  # type: ignore[attr-defined]
            assert name == words[1]
            if name == "serve":
                assert rest == [words[2]]
                assert words[2] in SERVICES
            else:
                inner = found.make_context(name, list(rest))
                _, leaf, options = found.resolve_command(inner, list(rest))
                leaf.make_context("", options)


# --- who may live without what


@pytest.mark.parametrize("container", EVERYWHERE, ids=repr)
def test_nobody_needs_the_pod_network_or_a_name(container: Container) -> None:
    assert container.pod["hostNetwork"] is True
    assert container.pod["dnsPolicy"] == "Default", "not the cluster's DNS"
    addresses = [part for text in environment(container).values() for part in re.findall(r"@?([\w.\-]+):\d{2,5}", text)]
    assert all(re.fullmatch(r"[\d.]+", address) for address in addresses), addresses
    assert ".svc" not in str(container.spec)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_makes_nodes_ready_runs_on_nodes_that_are_not(overlay: str) -> None:
    for workload in of_kind(overlay, "Deployment", "StatefulSet", "DaemonSet"):
        tolerations = workload["spec"]["template"]["spec"]["tolerations"]
        always = [t for t in tolerations if t["operator"] == "Exists" and "tolerationSeconds" not in t]
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/network-unavailable"):
            assert any(t.get("key") in (None, key) for t in always), workload["metadata"]["name"]


@pytest.mark.parametrize("container", EVERYWHERE, ids=repr)
def test_what_everybody_asks_for(container: Container) -> None:
    assert container.spec["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "cpu" not in container.spec["resources"].get("limits", {})
    assert container.pod["priorityClassName"].startswith("system-")
    if container.init or container.spec["name"] == "cni-configuration":
        return
    ports = [port["containerPort"] for port in container.spec["ports"]]
    for probe in ("readinessProbe", "livenessProbe"):
        get = container.spec[probe]["httpGet"]
        assert get["host"] == "127.0.0.1"
        assert get["port"] in ports, "the scheduler must know the node's ports"
        if service_of(container):
            assert environment(container)["TORTIE_HEALTH_LISTEN"] == f"127.0.0.1:{get['port']}"
            assert get["path"] == ("/readyz" if probe == "readinessProbe" else "/livez")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_has_the_port_of_another(overlay: str) -> None:
    ports = {
        repr(c): {port["containerPort"] for port in c.spec.get("ports", ())} for c in RUNNING if c.overlay == overlay
    }
    for (one, mine), (other, theirs) in combinations(ports.items(), 2):
        assert not mine & theirs, (one, other)


def test_whose_port_is_the_nodes_makes_way_for_the_next() -> None:
    for overlay in OVERLAYS:
        for deployment in of_kind(overlay, "Deployment"):
            assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        (agent,) = of_kind(overlay, "DaemonSet")
        assert "maxSurge" not in agent["spec"]["updateStrategy"]["rollingUpdate"]


# --- rights


@pytest.mark.parametrize("container", EVERYWHERE, ids=repr)
def test_nobody_has_more_rights_than_it_needs(container: Container) -> None:
    rights = container.rights
    assert "privileged" not in rights
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"]["drop"] == ["ALL"]
    added = set(rights["capabilities"].get("add", ()))
    name = container.spec["name"]
    assert added == {"agent": documented(), "own-store": {"CHOWN"}}.get(name, set())
    if name != "agent":
        assert rights["allowPrivilegeEscalation"] is False
    else:
        assert "allowPrivilegeEscalation" not in rights, "false is refused beside SYS_ADMIN"
    as_root = {"agent", "own-store", "cni-plugin", "cni-configuration"}
    assert (rights["runAsUser"], rights.get("runAsNonRoot")) == (
        (0, rights.get("runAsNonRoot")) if name in as_root else (8484, True)
    )
    assert not ({"hostPID", "hostIPC"} & container.pod.keys())
    token = container.pod["automountServiceAccountToken"]
    assert token is (container.workload["metadata"]["name"] == "tortie-kube-bridge")


def documented() -> set[str]:
    """The table of docs/kubernetes.md."""
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    table = text.partition("<!-- capabilities -->")[2].partition("<!-- /capabilities -->")[0]
    return set(re.findall(r"^\| ([A-Z_]+) \|", table, re.MULTILINE))


def test_the_hosts_files_are_the_documented_ones() -> None:
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    table = text.partition("<!-- host paths -->")[2].partition("<!-- /host paths -->")[0]
    written = set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))
    mounted = {
        volume["hostPath"]["path"]
        for overlay in OVERLAYS
        for workload in of_kind(overlay, "Deployment", "StatefulSet", "DaemonSet")
        for volume in workload["spec"]["template"]["spec"].get("volumes", ())
        if "hostPath" in volume
    }
    assert mounted == written
    paths = {v["name"] for v in of_kind("policy-only", "DaemonSet")[0]["spec"]["template"]["spec"]["volumes"]}
    assert not any(name.startswith("cni") for name in paths)


def granted(rules: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, verb


def test_the_bridge_may_do_what_it_does_and_nothing_else() -> None:
    needed = {(rule.group, rule.resource, verb) for rule in RULES for verb in rule.verbs}
    leases = {row for row in needed if row[1] == "leases"}
    for overlay in OVERLAYS:
        objects = built(overlay)
        everywhere = named(objects, "ClusterRole", "tortie-kube-bridge")["rules"]
        here = named(objects, "Role", "tortie-kube-bridge")["rules"]
        assert sorted(granted(everywhere)) == sorted(needed - leases)
        assert sorted(granted(here)) == sorted(leases)
        names = {name for rule in here if rule["verbs"] != ["create"] for name in rule["resourceNames"]}
        assert names == {BridgeSettings().kube_lease_name}
        for kind in ("ClusterRoleBinding", "RoleBinding"):
            (binding,) = of_kind(overlay, kind)
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": "tortie-kube-bridge", "namespace": "kube-system"}
            ]


# --- the bus


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nats_server_takes_its_configuration(overlay: str, tmp_path: Path) -> None:
    (bus,) = [c for c in RUNNING if c.overlay == overlay and c.spec["name"] == "nats"]
    (text,) = (o["data"]["nats.conf"] for o in of_kind(overlay, "ConfigMap"))
    assert f"max_payload: {embedded.MAX_PAYLOAD}\n" in text
    assert f"max_pending: {16 * embedded.MAX_PAYLOAD}\n" in text
    file = tmp_path / "nats.conf"
    file.write_text(text)
    for password in ("0123", "1e9", "12345678901234567890", "deadbeef"):  # what a configuration takes for numbers
        told = environment(bus, secret=password)
        done = subprocess.run(
            [embedded.binary(), "--config", file, "-t"], env=told, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    mounts = {mount["mountPath"]: mount for mount in bus.spec["volumeMounts"]}
    assert mounts["/data"]["subPathExpr"] == "$(POD_NAME)", "a server finds its own streams, on whichever node"


def test_kubectl_1_20_can_build_them() -> None:
    """Debian's. It knows neither components nor directories as resources, and of what is deleted a hollow remains.
    (TORTIE_TEST_KUBECTL=/path/to/kubectl has it build all of them.)"""
    for file in K8S.rglob("kustomization.yaml"):
        says = yaml.safe_load(file.read_text())
        assert not {"components", "replacements", "patches", "labels"} & says.keys(), file
        assert all(name.endswith(".yaml") for name in says.get("resources") or ()), f"{file}: directories are `bases`"
    for overlay in OVERLAYS:
        assert all(built(overlay)), "an empty object: kubectl apply -k would refuse it"
