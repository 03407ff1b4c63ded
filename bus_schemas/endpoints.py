"""What a node's agent says about the pods that it plugged in. Written by that agent alone."""

from __future__ import annotations

import msgspec

from bus_schemas.codec import Message
from bus_schemas.ids import HandleId, NodeName, PodKey


class EndpointPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named port, for runtimes that have no Pod resource."""

    name: str
    protocol: str
    """TCP, UDP or SCTP."""
    port: int


class Endpoint(Message, tag="endpoint/1", frozen=True, kw_only=True):
    """One pod's attachment to the network: it exists while the agent holds the link."""

    node: NodeName
    namespace: str
    name: str
    container: str
    """The incarnation: the CNI container id, or, where the agent has only policy, the Pod's uid. An attachment for
    another incarnation is not for this endpoint."""
    uid: str = ""
    """metadata.uid of the Pod when the runtime told it (`K8S_POD_UID`): the compiler waits for that Pod."""
    handle: HandleId = HandleId("")
    """What the addresses are held under; empty: they are nobody's to give back (`ipAddrsNoIpam`)."""
    floating: tuple[tuple[str, str], ...] = ()
    """(address, the pod's own address that it is translated to), plain addresses of one family."""
    link: str
    """The device on the node: `tor` + 11 hex, or whatever it is called where the agent has only policy."""
    addresses: tuple[str, ...]
    """Plain addresses without a mask, one or two (one of each family)."""
    labels: dict[str, str] | None = None
    """None: the labels are those of the Pod resource, and without that resource the endpoint gets no attachment.
    A mapping: the endpoint describes itself (a runtime without Pod resources)."""
    service_account: str = ""
    ports: tuple[EndpointPort, ...] = ()

    @property
    def pod(self) -> PodKey:
        return PodKey(self.namespace, self.name)
