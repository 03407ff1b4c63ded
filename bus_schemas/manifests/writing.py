"""Resources -> manifests, as `tortie get -o yaml` prints them: what was read, with the defaults that Calico shows.

Reading what was written gives the same resource.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import yaml

from bus_schemas.manifests import cluster_policy_writing
from bus_schemas.manifests.documents import means_itself
from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    EndpointSlice,
    GlobalNetworkPolicy,
    IPPool,
    KubernetesNetworkPolicy,
    NetworkPolicy,
    Pod,
    Resource,
    Service,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)

Staged = StagedNetworkPolicy | StagedGlobalNetworkPolicy

_EXACT = 2.0**53
"""Below it a float holds every whole number: 1000.0 is printed as people wrote it, 1000."""


def to_manifest(resource: Resource) -> dict[str, Any]:
    """apiVersion, kind, metadata, spec and status, in this order."""
    manifest: dict[str, Any] = {
        "apiVersion": resource.API_VERSION,
        "kind": resource.KIND,
        "metadata": _plain(resource.metadata),
    }
    spec = _spec(resource)
    if isinstance(resource, EndpointSlice):
        manifest |= _slice(resource)
    elif spec is not None:
        manifest["spec"] = spec
    if isinstance(resource, Pod) and (status := _pod_status(resource)):
        manifest["status"] = status
    if isinstance(resource, Service) and resource.status.load_balancer_ingress:
        manifest["status"] = {"loadBalancer": {"ingress": list(map(_plain, resource.status.load_balancer_ingress))}}
    return manifest


def _spec(resource: Resource) -> dict[str, Any] | None:
    match resource:
        case IPPool():
            return _pool_spec(resource)
        case NetworkPolicy() | GlobalNetworkPolicy() | StagedNetworkPolicy() | StagedGlobalNetworkPolicy():
            return _calico_policy_spec(resource)
        case ClusterNetworkPolicy() | AdminNetworkPolicy() | BaselineAdminNetworkPolicy():
            return cluster_policy_writing.spec_of(resource)
        case Service():
            return _service_spec(resource)
        case Tier():
            return _whole_order(_ordered(_plain(resource.spec), defaultAction=resource.spec.default_action))
        case KubernetesNetworkPolicy() | StagedKubernetesNetworkPolicy():
            return _kubernetes_policy_spec(resource)
        case _:
            spec = getattr(resource, "spec", None)
            return None if spec is None else _plain(spec)


def _pool_spec(pool: IPPool) -> dict[str, Any]:
    spec = pool.spec
    shown: dict[str, Any] = {
        "allowedUses": list(spec.allowed_uses),
        "assignmentMode": spec.assignment_mode,
        "blockSize": pool.block_size,
        "cidr": spec.cidr,
        "ipipMode": spec.ipip_mode,
        "natOutgoing": spec.nat_outgoing,
        "nodeSelector": spec.node_selector or "all()",
        "vxlanMode": spec.vxlan_mode,
    }
    return _ordered(_plain(spec), **shown)


def _service_spec(service: Service) -> dict[str, Any]:
    spec: dict[str, Any] = _plain(service.spec)
    timeout = spec.pop("sessionAffinityTimeoutSeconds", None)
    if timeout is not None:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": timeout}}
    return _ordered(spec)


def _calico_policy_spec(policy: NetworkPolicy | GlobalNetworkPolicy | Staged) -> dict[str, Any]:
    shown: dict[str, Any] = {"tier": policy.spec.tier}
    if isinstance(policy, StagedNetworkPolicy | StagedGlobalNetworkPolicy):
        shown["stagedAction"] = policy.spec.staged_action
        if policy.spec.staged_action == "Delete":
            return _ordered({}, **shown)
    return _ordered(_whole_order(_plain(policy.spec)), types=list(policy.spec.types), **shown)


def _whole_order(spec: dict[str, Any]) -> dict[str, Any]:
    order = spec.get("order")
    if isinstance(order, float) and order.is_integer() and abs(order) < _EXACT:
        spec["order"] = int(order)
    return spec


def _slice(resource: EndpointSlice) -> dict[str, Any]:
    """An EndpointSlice has no spec: its fields are the object's own."""
    spec = resource.spec
    return {
        "addressType": spec.address_type,
        "endpoints": [
            {
                "addresses": list(endpoint.addresses),
                "conditions": {
                    "ready": endpoint.ready,
                    **({"serving": endpoint.serving} if endpoint.serving is not None else {}),
                    **({"terminating": True} if endpoint.terminating else {}),
                },
                **({"nodeName": endpoint.node_name} if endpoint.node_name else {}),
            }
            for endpoint in spec.endpoints
        ],
        "ports": [{"protocol": "TCP", **_plain(port)} for port in spec.ports],
    }


def _kubernetes_policy_spec(policy: KubernetesNetworkPolicy | StagedKubernetesNetworkPolicy) -> dict[str, Any]:
    spec: dict[str, Any] = _plain(policy.spec)
    if isinstance(policy, StagedKubernetesNetworkPolicy):
        spec["stagedAction"] = policy.spec.staged_action
        if policy.spec.staged_action == "Delete":
            return {"stagedAction": "Delete"}
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")
    return _ordered(
        spec,
        podSelector=_plain(policy.spec.pod_selector),
        policyTypes=list(policy.spec.policy_types),
    )


def _pod_status(pod: Pod) -> dict[str, Any]:
    status: dict[str, Any] = _plain(pod.status)
    if pod.status.pod_ips:
        status["podIPs"] = [{"ip": address} for address in pod.status.pod_ips]
    return status


def _ordered(spec: dict[str, Any], **shown: Any) -> dict[str, Any]:
    """The fields of `shown` are printed even with their default; all in alphabetical order."""
    return dict(sorted({**spec, **shown}.items()))


def _plain(struct: msgspec.Struct) -> Any:
    """dict, list, str and numbers; `to_builtins` would leave tuples."""
    return msgspec.json.decode(msgspec.json.encode(struct))


# --- YAML

_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BASE):  # type: ignore[misc]
    """Quotes what another reader would not take for text, and never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> yaml.Node:
    node: yaml.Node = dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if means_itself(text) else "'")
    return node


_Dumper.add_representer(str, _text)


def to_yaml(resources: Resource | Iterable[Resource]) -> str:
    """One document for each resource."""
    if isinstance(resources, Resource):
        resources = (resources,)
    return "---\n".join(dump(to_manifest(resource)) for resource in resources)


def dump(manifest: Any) -> str:
    """One YAML document of plain values, quoted so that Kubernetes reads the same."""
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
    return text
