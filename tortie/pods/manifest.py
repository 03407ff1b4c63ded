"""The Pod resource that Kubernetes would hold. Pure.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bus_schemas.ids import PodKey

PROTOCOLS = ("tcp", "udp", "sctp")
Port = tuple[str, int]
"""("tcp", 80)."""


def pod(
    key: PodKey,
    *,
    uid: str,
    node: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    ports: Mapping[str, Port],
    service_account: str = "default",
    addresses: Sequence[str] = (),
) -> dict[str, Any]:
    """`ports`: by name; `addresses`: those that its status says, none while it is being started."""
    told = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": ip} for ip in addresses]} if addresses else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "uid": uid,
            "labels": dict(labels),
            "annotations": dict(annotations),
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": service_account,
            "containers": [
                {
                    "name": "main",
                    "ports": [
                        {"name": name, "protocol": protocol.upper(), "containerPort": number}
                        for name, (protocol, number) in ports.items()
                    ],
                }
            ],
        },
        **({"status": told} if told else {}),
    }


def port(text: str) -> Port:
    """`tcp/80` -> ("tcp", 80). Raises ValueError with a sentence."""
    protocol, _, number = text.partition("/")
    if protocol not in PROTOCOLS or not number.isdecimal() or not 0 < int(number) < 65536:
        raise ValueError(f"a port is written {' or '.join(f'{p}/<number>' for p in PROTOCOLS)}, not {text!r}")
    return protocol, int(number)
