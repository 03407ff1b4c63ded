"""The manifests of k8s/ as kubectl builds them, and what is in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

K8S = Path(__file__).resolve().parents[2] / "k8s"
OVERLAYS = ("single-node", "highly-available", "policy-only")
KUBECTL = os.environ.get("TORTIE_TEST_KUBECTL") or shutil.which("kubectl") or ""
"""TORTIE_TEST_KUBECTL: another one, to try how it builds them."""
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
_REFERENCE = re.compile(r"\$\(([A-Z0-9_]+)\)")

Object = dict[str, Any]


@cache
def built(overlay: str) -> tuple[Object, ...]:
    """Every object of an overlay. AssertionError with kubectl's complaint."""
    done = subprocess.run(
        [KUBECTL, "kustomize", str(K8S / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))  # the definitions are long


def named(objects: tuple[Object, ...], kind: str, name: str) -> Object:
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    return [o for o in built(overlay) if o["kind"] in kinds]


class Container(NamedTuple):
    overlay: str
    workload: Object
    init: bool
    spec: Object

    @property
    def pod(self) -> Object:
        spec: Object = self.workload["spec"]["template"]["spec"]
        return spec

    def __repr__(self) -> str:
        return f"{self.overlay}:{self.workload['metadata']['name']}:{self.spec['name']}"

    @property
    def rights(self) -> Object:
        """The security context: the container's own before the pod's."""
        return {**self.pod.get("securityContext", {}), **self.spec.get("securityContext", {})}

    @property
    def command(self) -> list[str]:
        return [*self.spec.get("command", ()), *self.spec.get("args", ())]


def containers() -> Iterator[Container]:
    for overlay in OVERLAYS:
        for workload in of_kind(overlay, *WORKLOADS):
            spec = workload["spec"]["template"]["spec"]
            for init in (True, False):
                for container in spec.get("initContainers" if init else "containers") or ():
                    yield Container(overlay, workload, init, container)


def environment(
    container: Container,
    *,
    pod: str = "tortie-x-0",
    network: str = "10.96.0",
    host: str = "10.0.0.1",
    secret: str = "s",
) -> dict[str, str]:
    """As a kubelet makes it: the Services of the namespace, then each entry in order, with what stands before it.
    `network` has the first three numbers of the Services' addresses."""
    known: dict[str, str] = {}
    for number, service in enumerate(of_kind(container.overlay, "Service"), 10):
        if service["spec"].get("clusterIP") == "None":
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        port = service["spec"]["ports"][0]["port"]
        known |= {f"{name}_SERVICE_HOST": f"{network}.{number}", f"{name}_SERVICE_PORT": str(port)}
        known |= {
            f"{name}_PORT": f"tcp://{network}.{number}:{port}",
            f"{name}_PORT_{port}_TCP_ADDR": f"{network}.{number}",
        }
    for entry in container.spec.get("env") or ():
        if "value" in entry:
            text = _REFERENCE.sub(lambda match: known.get(match[1], match[0]), str(entry["value"]))
        else:
            (source,) = entry["valueFrom"].values()
            text = {
                "metadata.name": pod,
                "metadata.namespace": "kube-system",
                "spec.nodeName": "node1",
                "status.hostIP": host,
            }.get(source.get("fieldPath"), secret)
        known[entry["name"]] = text
    return known
