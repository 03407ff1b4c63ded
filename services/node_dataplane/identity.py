"""Who a pod is, and what it asks of the address service. Pure.

With `K8S_POD_*` arguments a pod is described by its Pod resource; without them (podman, nerdctl, a plain `cnitool`) it
describes itself: its name is the container id, its labels come from the network configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

import msgspec

from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import AssignRequest
from services.node_dataplane.cni_protocol import Call, CniError, Code

NAMESPACE_WITHOUT_KUBERNETES = "default"
_POOLS4 = "cni.projectcalico.org/ipv4pools"
_POOLS6 = "cni.projectcalico.org/ipv6pools"
_ADDRESSES = "cni.projectcalico.org/ipAddrs"


def pod_of(call: Call) -> PodKey:
    namespace, name = call.args.get("K8S_POD_NAMESPACE", ""), call.args.get("K8S_POD_NAME", "")
    if namespace and name:
        return PodKey(namespace, name)
    return PodKey(NAMESPACE_WITHOUT_KUBERNETES, call.container)


def has_resource(call: Call) -> bool:
    """A Pod resource describes this pod."""
    return bool(call.args.get("K8S_POD_NAMESPACE") and call.args.get("K8S_POD_NAME"))


def uid_of(call: Call) -> str:
    return call.args.get("K8S_POD_UID", "")


def handle_of(call: Call) -> HandleId:
    return HandleId(f"{call.config.name}.{call.container}")


def request(
    call: Call, node: NodeName, pod_annotations: Mapping[str, str], namespace_annotations: Mapping[str, str]
) -> AssignRequest:
    """Pools by precedence: the pod's annotation, its namespace's, the network configuration. Raises CniError."""
    addresses = _list(pod_annotations, _ADDRESSES)
    for address in addresses:
        try:
            ip_address(address)
        except ValueError as error:
            raise CniError(Code.INVALID_CONFIGURATION, f"annotation {_ADDRESSES}: {address!r} is no address") from error

    def pools(annotation: str, configured: tuple[str, ...]) -> tuple[str, ...]:
        return _list(pod_annotations, annotation) or _list(namespace_annotations, annotation) or configured

    pod = pod_of(call)
    return AssignRequest(
        node=node,
        handle=handle_of(call),
        families=() if addresses else call.config.families,
        namespace=pod.namespace,
        pod=pod.name,
        addresses=addresses,
        pools=pools(_POOLS4, call.config.pools4) + pools(_POOLS6, call.config.pools6),
    )


def _list(annotations: Mapping[str, str], key: str) -> tuple[str, ...]:
    text = annotations.get(key, "")
    if not text:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise CniError(
            Code.INVALID_CONFIGURATION, f"annotation {key} is not a JSON list of strings", str(error)
        ) from error
