"""Who a pod is, and under which handles its addresses are held. Pure.

With `K8S_POD_*` arguments a pod is described by its Pod resource; without them (podman, nerdctl, a plain `cnitool`) it
describes itself: its name is the container id, its labels come from the network configuration.
"""

from __future__ import annotations

from bus_schemas.ids import HandleId, PodKey
from services.node_dataplane.cni_protocol import Call

NAMESPACE_WITHOUT_KUBERNETES = "default"


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


def floating_handle_of(call: Call) -> HandleId:
    """Of the pod's floating addresses, which come and go with it."""
    return HandleId(f"{handle_of(call)}.floating")
