"""The tortie command where no api is: it asks Kubernetes itself. And as a plugin of kubectl.

On the stand-in for an API server, or on the real one that TORTIE_KUBECONFIG names.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.kube_cluster import KubeCluster, calico, cluster, node, pod, running
from tests.support.kube_store import ApiError
from tests.support.waiting import until
from tortie.cli import kubectl, way
from tortie.cli.main import main

V3 = "projectcalico.org/v3"
PROGRAMS = Path(sys.executable).parent


class Tortie:
    """Runs the command as a person would, in a thread: `code, out, err`."""

    def __init__(self, kube: KubeCluster, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self.kube = kube
        self._capsys = capsys
        self._directory = directory

    async def __call__(self, line: str, *more: str, plugin: bool = False) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = await asyncio.to_thread(kubectl.main if plugin else main, [*line.split(), *more])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def file(self, *documents: object, name: str = "manifests.yaml") -> str:
        path = self._directory / name
        path.write_text("\n---\n".join(json.dumps(document) for document in documents))
        return str(path)


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with cluster(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """A command that serves itself configures the logs of its process, onto a stream that ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


@pytest.fixture
def tortie(
    kube: KubeCluster, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Tortie:
    for name in ("TORTIE_API", "TORTIE_KUBECONFIG", "TORTIE_KUBE_CONTEXT", "TORTIE_NAMESPACE", way.PLUGIN):
        # set, so that what a command sets is undone
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    monkeypatch.setattr(way, "DEFAULT_ADDRESS", "http://127.0.0.1:9")
    return Tortie(kube, capsys, tmp_path)


def network_policy(namespace: str, name: str, *peers: str) -> dict[str, object]:
    rules = [{"from": [{"podSelector": {"matchLabels": {"app": peer}}} for peer in peers]}] if peers else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": rules},
    }


async def test_what_commands_find(tortie: Tortie) -> None:
    kube = tortie.kube
    shop = await kube.namespace("shop", team="red")
    await kube.create(node(kube.name("one")))
    for number, app in enumerate(("db", "web", "other"), 1):
        made = pod(shop, app, node=kube.name("one"), labels={"app": app})
        await kube.create(made)
        await kube.patch(made, running(f"10.1.2.{number}"), status=True)

    # objects
    code, out, _ = await tortie(f"get pods -n {shop}")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "db", "other", "web"]
    assert "10.1.2.1" in out
    code, out, _ = await tortie(f"get pods -n {shop} -l app=web -o json")
    (item,) = json.loads(out)["items"]
    assert (item["metadata"]["name"], item["spec"]["nodeName"]) == ("web", kube.name("one"))
    assert (await tortie(f"get pod nobody -n {shop}"))[0] == 1
    assert "there is no kind 'nonsense'" in (await tortie("get nonsense"))[2]

    # policies: applied, explained, compared, linted, deleted
    file = tortie.file(network_policy(shop, "db", "web"))
    code, out, _ = await tortie(f"policy diff -f {file}")
    assert code == 1
    assert "allowed now, denied then" in out
    assert (await tortie(f"apply --dry-run -f {file}"))[1] == f"NetworkPolicy/{shop}/db created (dry run)\n"
    assert (await tortie(f"apply -f {file}"))[:2] == (0, f"NetworkPolicy/{shop}/db created\n")
    assert (await tortie(f"apply -f {file}"))[1] == f"NetworkPolicy/{shop}/db unchanged\n"
    stored = await kube.get("networking.k8s.io/v1", "NetworkPolicy", shop, "db")
    assert stored["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]
    assert "tortie" not in json.dumps(stored["metadata"].get("annotations", {})), "the bridge's mark is not written"
    assert (await tortie(f"policy explain {shop}/web {shop}/db TCP/5432"))[0] == 0
    code, out, _ = await tortie(f"policy explain {shop}/other {shop}/db TCP/5432")
    assert code == 1
    assert "NetworkPolicy" in out or "no rule" in out.lower()
    assert (await tortie(f"policy lint -f {file}"))[0] == 0

    # a replacement replaces, and keeps what is others'
    await kube.patch(stored, {"metadata": {"finalizers": ["example.com/kept"]}})
    file = tortie.file(network_policy(shop, "db"))
    assert (await tortie(f"apply -f {file}"))[:2] == (0, f"NetworkPolicy/{shop}/db configured\n")
    stored = await kube.get("networking.k8s.io/v1", "NetworkPolicy", shop, "db")
    assert "ingress" not in stored["spec"] or stored["spec"]["ingress"] == []
    assert stored["metadata"]["finalizers"] == ["example.com/kept"]
    await kube.patch(stored, {"metadata": {"finalizers": None}})
    assert (await tortie(f"delete networkpolicy db -n {shop}"))[:2] == (0, f"NetworkPolicy/{shop}/db deleted\n")
    assert (await tortie(f"delete networkpolicy db -n {shop}"))[0] == 1

    # all or nothing, and what is not ours
    wrong = {**network_policy(shop, "wrong"), "spec": {"podSelector": {}, "policyTypes": ["Sideways"]}}
    code, _, err = await tortie(f"apply -f {tortie.file(network_policy(shop, 'right'), wrong)}")
    assert code == 1
    assert "Sideways" in err
    assert (await tortie(f"get networkpolicies -n {shop}"))[2] == "nothing found\n"
    label = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": shop, "labels": {"team": "blue"}}}
    code, _, err = await tortie(f"apply -f {tortie.file(label)}")
    assert code == 1
    assert f"Namespace/{shop} has more than Tortie knows of: change it with kubectl" in err

    # what only the bus knows
    for line in ("status", "ipam show", "node status", "policy hits", "events tail --no-follow"):
        code, _, err = await tortie(line)
        assert code == 2, line
        assert "only the api does: `kubectl port-forward -n kube-system deployment/tortie-api 7460`" in err


async def test_calicos_kinds_go_where_the_server_has_them(tortie: Tortie) -> None:
    kube = tortie.kube
    name = kube.name("pool")
    pool = {"apiVersion": V3, "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": "10.99.0.0/16"}}
    kube.stand_in.store.drop_crd("/apis/projectcalico.org/v3/ippools")
    assert (await tortie(f"apply -f {tortie.file(pool)}"))[:2] == (0, f"IPPool/{name} created\n")
    stored = await kube.get("crd.projectcalico.org/v1", "IPPool", "", name)
    assert stored["spec"]["cidr"] == "10.99.0.0/16"
    code, out, _ = await tortie(f"get ippool {name} -o json")
    assert json.loads(out)["apiVersion"] == V3
    kube.stand_in.store.drop_crd("/apis/crd.projectcalico.org/v1/ippools")
    code, _, err = await tortie(f"apply -f {tortie.file(pool)}")
    assert code == 1
    assert "Kubernetes has no IPPool: install its CRD, ippools.projectcalico.org" in err
    code, _, err = await tortie("get ippools")
    assert code == 1
    assert "Kubernetes has no IPPool: install its CRD, ippools.projectcalico.org" in err


class Once(dict[str, ApiError]):
    """Refusals that are said one time."""

    def get(self, key: str, default: Any = None) -> Any:
        return self.pop(key, default)


async def test_a_write_meets_another_one(tortie: Tortie) -> None:
    """What Kubernetes calls a conflict is decided anew, upon what is there now."""
    stand_in = tortie.kube.stand_in
    stand_in.refusals = Once({"POST networkpolicies": ApiError(409, "AlreadyExists", "somebody was faster")})
    assert (await tortie(f"apply -f {tortie.file(network_policy('default', 'db'))}"))[0] == 0
    stand_in.refusals = Once({"PUT networkpolicies": ApiError(409, "Conflict", "the object has been modified")})
    code, out, _ = await tortie(f"apply -f {tortie.file(network_policy('default', 'db', 'web'))}")
    assert (code, out) == (0, "NetworkPolicy/default/db configured\n")
    assert stand_in.requests["PUT", "networkpolicies"] == 2
    # several are tried out before one is written
    stand_in.refusals = Once({"PUT networkpolicies": ApiError(422, "Invalid", "not with me")})
    both = tortie.file(network_policy("default", "first"), network_policy("default", "db"))
    code, _, err = await tortie(f"apply -f {both}")
    assert code == 1
    assert "Kubernetes refused: not with me" in err
    assert "does not exist" in (await tortie("get networkpolicy first"))[2]


async def test_who_may_not(tortie: Tortie) -> None:
    stand_in = tortie.kube.stand_in
    stand_in.refuse("nodes")
    code, _, err = await tortie("get nodes")
    assert code == 1
    assert "nodes is refused" in err
    stand_in.refuse("POST networkpolicies")
    code, _, err = await tortie(f"apply -f {tortie.file(network_policy('default', 'db'))}")
    assert code == 1
    assert "not looked at: nodes: " in err
    assert "Kubernetes refused: POST networkpolicies is refused" in err
    await stand_in.stop()
    code, _, err = await tortie("get pods")
    assert code == 2
    assert f"Kubernetes at {stand_in.url} cannot be read" in err


async def test_a_watch(tortie: Tortie) -> None:
    kube = tortie.kube
    await kube.needs(V3, "GlobalNetworkPolicy")
    shop = await kube.namespace("shop")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tortie", "get", "globalnetworkpolicies", "-w", "-o", "json"),
        env={**os.environ, way.PLUGIN: "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await kube.create(calico("GlobalNetworkPolicy", kube.name("one"), {"selector": f"team == '{shop}'"}))
        async with asyncio.timeout(60):
            while (told := json.loads(await process.stdout.readline()))["object"]["metadata"]["name"] != kube.name(
                "one"
            ):
                continue
        assert told["type"] == "ADDED"
    finally:
        process.terminate()
        await process.wait()


async def test_as_a_plugin_of_kubectl(tortie: Tortie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kube = tortie.kube
    shop = await kube.namespace("shop")
    await kube.create(pod(shop, "web"))
    config = json.loads(kube.kubeconfig.read_text())
    config["contexts"].append({"name": "other", "context": {**config["contexts"][0]["context"], "namespace": shop}})
    file = tmp_path / "config"
    file.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("TORTIE_API", "http://127.0.0.1:9")
    code, out, _ = await tortie(f"get pods --context other --kubeconfig={file}", plugin=True)
    assert code == 0
    assert "web" in out, "the namespace is that of the context"
    monkeypatch.delenv("TORTIE_NAMESPACE", raising=False)
    code, _, err = await tortie(f"-n default get pods --kubeconfig {file}", plugin=True)
    assert (code, err) == (0, "nothing found\n")
    code, out, _ = await tortie("get --help", plugin=True)
    assert "Usage: kubectl tortie get" in out
    assert "asks Kubernetes by" in (await tortie(f"version --kubeconfig {file}", plugin=True))[1]
    assert (await tortie("get pods --context", plugin=True))[0] == 2

    async def listed() -> bool:
        found = await asyncio.to_thread(
            subprocess.run,
            ["kubectl", "plugin", "list"],
            env={"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return str(PROGRAMS / "kubectl-tortie") in found.stdout

    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl: apt-get install kubernetes-client")
    await until(listed, "kubectl finds the plugin")
