"""A Kubernetes cluster as a test sees it: the stand-in, or the real one that TORTIE_KUBECONFIG names.

    async with cluster(tmp_path) as kube:
        await kube.namespace("shop")
        await kube.create(pod("shop", "web", node="node1"))

What is made has a name that is unique to the test (`kube.unique`), and is removed at the end. There is no kubelet:
nodes and pods are made here, and the test says what their status is. `kube.stand_in` skips where the server is real.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import yaml

from services.kube_bridge.client import MERGE, Client
from services.kube_bridge.errors import Refused
from services.kube_bridge.sources import SOURCES, Source
from tests.support.kube_server import KubeServer

REAL = os.environ.get("TORTIE_KUBECONFIG", "")
Object = dict[str, Any]
_ORDER = ("Pod", "Node", "Namespace")


def source_of(api_version: str, kind: str) -> Source:
    return next(source for source in SOURCES if (source.api_version, source.kind) == (api_version, kind))


class KubeCluster:
    def __init__(self, client: Client, kubeconfig: Path, stand_in: KubeServer | None) -> None:
        self.client = client
        self.kubeconfig = kubeconfig
        self._stand_in = stand_in
        self.unique = f"tortie-{uuid4().hex[:8]}"
        self._made: list[tuple[Source, str, str]] = []

    @property
    def real(self) -> bool:
        return self._stand_in is None

    @property
    def stand_in(self) -> KubeServer:
        """Skips the test where there is none."""
        if self._stand_in is None:
            pytest.skip("needs faults on command: not on a real API server")
        return self._stand_in

    def name(self, name: str) -> str:
        """Unique to the test, for namespaces and what is cluster-wide."""
        return f"{self.unique}-{name}"

    async def served(self, source: Source) -> bool:
        try:
            await self.client.get(source.collection, resource="test", limit=1)
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    async def needs(self, api_version: str, kind: str) -> None:
        """Skips the test where the cluster has no such CRD."""
        if not await self.served(source_of(api_version, kind)):
            pytest.skip(f"this cluster has no {kind} of {api_version}")

    async def create(self, body: Object) -> Object:
        source = source_of(body["apiVersion"], body["kind"])
        namespace, name = body["metadata"].get("namespace", ""), body["metadata"]["name"]
        collection = f"{source.root}/namespaces/{namespace}/{source.plural}" if namespace else source.collection
        made: Object = msgspec.json.decode(await self.client.send("POST", collection, body, resource="test"))
        self._made.append((source, namespace, name))
        return made

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        path = source_of(api_version, kind).object(namespace, name)
        found: Object = msgspec.json.decode(await self.client.get(path, resource="test"))
        return found

    async def patch(self, body: Object, patch: Object, *, status: bool = False) -> None:
        source = source_of(body["apiVersion"], body["kind"])
        path = source.object(body["metadata"].get("namespace", ""), body["metadata"]["name"])
        path = f"{path}/status" if status else path
        await self.client.send("PATCH", path, patch, resource="test", content_type=MERGE)

    async def delete(self, body: Object) -> None:
        source = source_of(body["apiVersion"], body["kind"])
        await self._delete(source, body["metadata"].get("namespace", ""), body["metadata"]["name"])

    async def _delete(self, source: Source, namespace: str, name: str) -> None:
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        await self.client.send("DELETE", source.object(namespace, name), options, resource="test")

    async def namespace(self, name: str, **labels: str) -> str:
        """A namespace of a unique name; the name."""
        unique = self.name(name)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": unique, "labels": labels}}
        await self.create(body)
        if self.real:  # what a controller makes elsewhere may be missing where none runs
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            with suppress(Refused):
                await self.create({**account, "metadata": {"name": "default", "namespace": unique}})
        return unique

    async def events(self, namespace: str) -> list[Object]:
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        return list(msgspec.json.decode(await self.client.get(path, resource="test"))["items"])

    async def clean(self) -> None:
        lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{self.unique}"
        with suppress(Refused):
            await self.client.send("DELETE", lease, None, resource="test")
        for source, namespace, name in reversed(self._made):
            with suppress(Refused):
                await self._delete(source, namespace, name)


async def _define(client: Client) -> None:
    """Our definitions, where the real cluster has none of that name. They stay: to delete one deletes its objects."""
    collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for file in sorted((Path(__file__).parents[2] / "k8s" / "crds").glob("*/*.yaml")):
        body = yaml.safe_load(file.read_text())
        if body["kind"] != "CustomResourceDefinition":
            continue
        try:
            await client.send("POST", collection, body, resource="test")
        except Refused as refused:
            if refused.status != 409:
                raise
        async with asyncio.timeout(60):
            while not await _established(client, f"{collection}/{body['metadata']['name']}"):
                pass


async def _established(client: Client, path: str) -> bool:
    found = msgspec.json.decode(await client.get(path, resource="test"))
    conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions", ())}
    return conditions.get("Established") == "True"


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[KubeCluster]:
    if REAL:
        async with Client.open(REAL) as client:
            await _define(client)
            kube = KubeCluster(client, Path(REAL), None)
            try:
                yield kube
            finally:
                await kube.clean()
        return
    async with KubeServer() as server:
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
        async with Client.open(str(kubeconfig)) as client:
            yield KubeCluster(client, kubeconfig, server)


# --- objects


def pod(namespace: str, name: str, *, node: str = "", labels: dict[str, str] | None = None, **spec: Any) -> Object:
    container = {"name": "main", "image": "registry.invalid/none", "ports": [{"name": "http", "containerPort": 80}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels or {}},
        "spec": {"containers": [container], **({"nodeName": node} if node else {}), **spec},
    }


def node(name: str, **annotations: str) -> Object:
    """Its status is patched after it was made: see `node_status`."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}, "annotations": annotations},
        "spec": {"podCIDR": "10.99.0.0/24", "podCIDRs": ["10.99.0.0/24"]},
    }


def node_status(address: str) -> Object:
    return {"status": {"addresses": [{"type": "InternalIP", "address": address}]}}


def running(*addresses: str, phase: str = "Running") -> Object:
    ips = [{"ip": address} for address in addresses]
    return {"status": {"phase": phase, "podIP": addresses[0] if addresses else None, "podIPs": ips or None}}


def policy(namespace: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    }


def calico(kind: str, name: str, spec: Object, *, namespace: str = "", stored: bool = False) -> Object:
    return {
        "apiVersion": "crd.projectcalico.org/v1" if stored else "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": spec,
    }
