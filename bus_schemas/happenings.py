"""Every event there is: what it means, to whom it happens, what a person can do about it.

`docs/events.md` is made of this table, and an event takes its severity and its advice from here when it is sent
(`completed`). A test holds the table against the services: they send nothing else, and all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from bus_schemas.events import Event, Severity

OFTEN = 200
"""For events that come with every pod: so many at once before they are counted instead."""


@dataclass(frozen=True)
class Happening:
    domain: str
    what: str
    meaning: str
    """What has happened, one sentence."""
    object: str
    """What `Event.object` is."""
    writer: str
    severity: Severity = "info"
    advice: str = ""
    """What a person can do; empty: nothing needs to be done."""
    detail: Mapping[str, str] = field(default_factory=dict)
    """The keys of `Event.detail`, with units."""
    at_once: int | None = 20
    """A sender tells so many one by one, as many again in ten seconds; beyond that one event says how many more. None:
    the service that writes it counts by itself."""

    @property
    def name(self) -> str:
        return f"{self.domain}.{self.what}"


_ADDRESSES = {"handle": "what they are held under", "addresses": "plain addresses, with commas"}
_SESSION = {"type": "why there is a session: mesh, node specific, global, a pod", "remote_as": "AS number"}
_CONNECTION = {
    "direction": "`ingress` or `egress`, as the object sees it",
    "peer": "the other end's address",
    "peer_pod": "the pod that the address belongs to",
    "source": "the source address that a packet claims, where that is the fault",
    "protocol": "`TCP`, `UDP`, `ICMP` ...",
    "port": "of the destination, 1 to 65535",
    "icmp": "type/code",
    "policy": "`Kind/namespace/name`",
    "rule": "place in the policy's list of rules, from 0",
    "rule_name": "the rule's own name, where it has one",
    "tier": "the tier whose default decided",
    "reason": "why, where no rule decided",
    "count": "how many times since it was told last",
}
_POLICY = {
    "policy": "`Kind/namespace/name`",
    "change": "`added`, `changed` or `removed`",
    "endpoints": "how many pods and host endpoints it governs",
    "nodes": "the nodes where these are, with commas; the first 20",
}

ALL: tuple[Happening, ...] = (
    # --- pods
    Happening(
        *("pod", "started", "A pod is plugged in: it has its addresses, and its policy is in the kernel."),
        *("pod `ns/name`", "node_dataplane"),
        detail={
            "addresses": "plain addresses, with commas",
            "link": "device on the node",
            "seconds": "s, from the call",
        },
        at_once=OFTEN,
    ),
    Happening(
        *("pod", "stopped", "A pod is unplugged: its link is gone and its addresses will be given back."),
        *("pod `ns/name`", "node_dataplane"),
        detail={"addresses": "plain addresses, with commas"},
        at_once=OFTEN,
    ),
    Happening(
        *("pod", "start_failed", "A pod could not be plugged in; the runtime was told why and usually tries again."),
        *("pod `ns/name`", "node_dataplane", "error"),
        "The message says what was missing. If it comes again: `tortie status` names what is not ready, "
        "`tortie ipam show` whether addresses are left, `tortie policy lint` what is wrong with policies.",
        detail={"container": "the runtime's id of it"},
    ),
    # --- addresses
    Happening(
        *("ipam", "assigned", "Addresses were given to a pod, a tunnel or a Service."),
        *("pod `ns/name`, or the handle", "ipam"),
        detail=_ADDRESSES,
        at_once=OFTEN,
    ),
    Happening(
        *("ipam", "released", "Addresses were given back, and rest before they are somebody else's."),
        *("pod `ns/name`, or the handle", "ipam"),
        detail=_ADDRESSES,
        at_once=OFTEN,
    ),
    Happening(
        *("ipam", "exhausted", "Somebody asked for an address and there was none."),
        *("the node, or the Service `ns/name`", "ipam", "error"),
        "Add an IPPool or widen one (`tortie get ippools`), or free addresses: `tortie ipam show` tells what is in "
        "use, `tortie ipam check` what nobody uses any more.",
    ),
    Happening("ipam", "claimed", "A node claimed an address block.", "the block's CIDR", "ipam", at_once=OFTEN),
    Happening("ipam", "adopted", "A node took over a block that was nobody's.", "the block's CIDR", "ipam"),
    Happening(
        *("ipam", "reclaimed", "A node took over another node's empty block, as the pool had no free one."),
        *("the block's CIDR", "ipam", "warning"),
        "The pool is nearly used up: add an IPPool or make blocks smaller (`tortie ipam split`).",
    ),
    Happening("ipam", "returned", "A node gave an empty block back.", "the block's CIDR", "ipam"),
    Happening("ipam", "removed", "A block that was nobody's became empty and is gone.", "the block's CIDR", "ipam"),
    Happening(
        *("ipam", "moved", "A block belongs to another pool now, since a pool was split or grew."),
        *("the block's CIDR", "ipam"),
        detail={"before": "the pool it was part of"},
    ),
    Happening(
        *("ipam", "disowned", "A node is gone while addresses of its block are still in use."),
        *("the block's CIDR", "ipam", "warning"),
        "`tortie ipam check` lists who holds them; what nobody uses is given back by itself.",
    ),
    Happening(
        *("ipam", "candidate", "An address looks forgotten: nobody says that he uses it. Nothing is done yet."),
        *("the handle", "ipam", "warning"),
        "`tortie ipam candidates` shows why, and when it will be given back; a pod that still uses it is on a node "
        "whose agent should be looked at (`tortie status`).",
    ),
    Happening(
        *("ipam", "collected", "A forgotten address was given back, after it was seen to be free several times."),
        *("the handle", "ipam"),
        detail={"addresses": "plain addresses, with commas"},
    ),
    Happening(
        *("ipam", "recovering", "The bus lost the address records; they are read back from the nodes meanwhile."),
        *("`epoch`", "ipam", "error"),
        "New pods wait (or start with addresses kept ready). If it does not end, `tortie status` names the nodes that "
        "are missing: bring their agents back, or delete their Node.",
    ),
    Happening("ipam", "recovered", "The address records are complete again.", "`epoch`", "ipam"),
    Happening(
        *("ipam", "duplicate", "Two nodes list one address for some seconds now: who has it by the records stays."),
        *("the address", "ipam", "error"),
        "Delete the pod on the node that the message names last; if it is a copied machine, give it a name and a state "
        "directory of its own.",
    ),
    Happening(
        *("ipam", "resolved", "An address that two nodes listed is listed by one again."),
        *("the address", "ipam"),
    ),
    Happening(
        *("ipam", "conflict", "While records were read back, two sides said different things of an address."),
        *("`epoch`", "ipam", "error"),
        "Restart one of the two pods that the message names; `tortie ipam check` shows whether it is settled.",
    ),
    # --- routes
    Happening(
        *("route", "changed", "The way to a destination is new, another one, or gone, for all nodes."),
        *("the destination's CIDR", "route_distribution"),
        detail={
            "change": "`added`, `changed` or `removed`",
            "node": "the node where it leads",
            "before": "the node where it led",
            "tunnel": "`none`, `vxlan`, `ipip`",
            "count": "routes that changed, where one message stands for many",
        },
    ),
    Happening(
        *("route", "contested", "Two blocks overlap: the older one keeps its route, the younger has none."),
        *("the younger block's CIDR", "route_distribution", "error"),
        "Pods in the younger block cannot be reached. `tortie ipam show --show-blocks` tells whose it is: drain that "
        "node's pods, and look for a pool that was deleted and made anew.",
    ),
    Happening(
        *(
            "route",
            "duplicate",
            "Two nodes say that they have one address: the older keeps it, the other is not reached.",
        ),
        *("the younger node", "route_distribution", "error"),
        "`tortie node explain NODE` on both tells where each has it from: give one of them another, or delete the Node "
        "of a machine that came back under another name.",
    ),
    Happening(
        *("route", "malformed", "A block or a pool cannot be understood and has no route."),
        *("its CIDR or name", "route_distribution", "error"),
        "Apply the pool again; a block that does not describe itself is a fault: `tortie ipam check`.",
    ),
    Happening(
        *("route", "orphaned", "A pool is gone while its blocks are in use: they are routed without a tunnel."),
        *("the pool's name", "route_distribution", "warning"),
        "Make the pool again, or move its pods to another one.",
    ),
    Happening(
        *("route", "missing", "A BGPPeer names something that does not exist, so a part of it is left out."),
        *("`<peer>/<what it names>`", "route_distribution", "warning"),
        "Create what is named, or correct the BGPPeer: `tortie get bgppeers -o yaml`.",
    ),
    Happening("route", "resolved", "A trouble with routes is over.", "as in the trouble", "route_distribution"),
    # --- BGP
    Happening(
        *("bgp", "lost", "An established BGP session broke off."),
        *("the neighbour's address", "node_dataplane", "error"),
        "`tortie node status NODE` shows the session and BIRD's last error; see whether the neighbour can be reached "
        "and whether AS number and password still agree.",
        detail=_SESSION,
    ),
    Happening(
        *("bgp", "established", "A BGP session is up."),
        *("the neighbour's address", "node_dataplane"),
        detail=_SESSION,
    ),
    Happening(
        *("bgp", "bird_ended", "BIRD ended on a node and is started again; its routes stay meanwhile."),
        *("the node", "node_dataplane", "warning"),
        "Once is harmless. If it comes again, the node's log has BIRD's words.",
    ),
    # --- policy
    Happening(
        *(
            "policy",
            "compiled",
            "A policy was added, changed or removed; what it means is on its way to the nodes.",
        ),
        *("policy `Kind/ns/name`", "policy_compiler", "info"),
        "`policy.in_force` follows from every node that it concerns. A policy that governs 0 endpoints selects "
        "nothing: `tortie policy lint`.",
        detail=_POLICY,
    ),
    Happening(
        *("policy", "in_force", "A change of policy is in the kernel of a node."),
        *("policy `Kind/ns/name`", "node_dataplane"),
        detail={
            "policy": "`Kind/namespace/name`",
            "change": "`changed` (its rules), `governs` or `leaves` (the pods)",
            "pods": "`ns/name` with commas, the first 20; of a host endpoint its name",
            "endpoints": "how many these are",
        },
    ),
    Happening(
        *("policy", "not_compiled", "A part of a policy cannot be understood: what it would have covered is dropped."),
        *("policy `kind/ns/name`", "policy_compiler", "error"),
        "Correct the field that the message names and apply it again; `tortie validate -f FILE` tries it before.",
    ),
    Happening(
        "policy", "resolved", "What could not be compiled can be now.", "policy `kind/ns/name`", "policy_compiler"
    ),
    Happening(
        *("policy", "denied", "A connection was denied by a policy, or as none allows it."),
        *("pod `ns/name`, host endpoint, or `node:device`", "node_dataplane", "warning"),
        "If it should be allowed: `tortie policy explain FROM TO PROTOCOL/PORT` shows which rule decided and why none "
        "matched. If not, see who knocks there: detail.peer and detail.peer_pod.",
        detail=_CONNECTION,
        at_once=None,
    ),
    Happening(
        *("policy", "would_be_denied", "A staged policy would have denied a connection that was allowed."),
        *("pod `ns/name`, or host endpoint", "node_dataplane", "info"),
        "Widen the staged policy before it is enforced, or leave it if that is what it is for.",
        detail=_CONNECTION,
        at_once=None,
    ),
    Happening(
        *("policy", "guarded", "A packet was dropped that no policy may allow: spoofed, from a stranger, too early."),
        *("pod `ns/name`, or `node:device`", "node_dataplane", "warning"),
        "A pod that sends with foreign addresses is broken or hostile: look into it. An address that it may use is "
        "allowed by the annotation cni.projectcalico.org/allowedSourcePrefixes.",
        detail=_CONNECTION,
        at_once=None,
    ),
    Happening(
        *("policy", "logged", "A rule with the action Log matched."),
        *("pod `ns/name`, or host endpoint", "node_dataplane"),
        detail=_CONNECTION,
        at_once=None,
    ),
    Happening(
        *("policy", "denials_untold", "More different connections were denied than are told one by one."),
        *("empty", "node_dataplane", "warning"),
        "A scan or a policy that shuts out many: `tortie policy hits` counts all of them by policy. "
        "TORTIE_DENIED_EVENTS_PER_S raises the limit.",
        detail={"count": "packets"},
        at_once=None,
    ),
    Happening(
        *("policy", "cut", "An established connection was ended as a changed policy does not allow it any more."),
        *("pod `ns/name`, or host endpoint", "node_dataplane"),
        detail={
            "direction": "`ingress` or `egress`",
            "peer": "the other end's address",
            "protocol": "`TCP`, `UDP` ...",
            "port": "of the destination, 1 to 65535",
            "policy": "`Kind/namespace/name`",
            "count": "connections",
        },
        at_once=None,
    ),
    # --- nodes
    Happening(
        *(
            "node",
            "lost",
            "Nothing is heard of a node's agent any more. Its pods keep running, with their last policy.",
        ),
        *("the node", "api", "error"),
        "See whether the machine runs and reaches the bus, then whether its agent does (`tortie serve node_dataplane`)."
        " Policy changes do not reach it until it is back. A machine that is gone for good: `tortie delete node NAME` "
        "frees its addresses.",
        detail={"silent_s": "s since its last word, about"},
    ),
    Happening(
        *("node", "found", "A node's agent is heard again."),
        *("the node", "api"),
        detail={"silent_s": "s for which nothing was heard, about; absent: unknown"},
    ),
    Happening(
        *(
            "node",
            "repaired",
            "Somebody else had changed or deleted what is ours in a node's kernel; it was put right.",
        ),
        *("the route, device, link, table or setting", "node_dataplane", "warning"),
        "Once may be an accident. If it comes again, another program manages the same thing: look for a second network "
        "plugin, a firewall service or a script on that node.",
        detail={"count": "things put right, where one message stands for many"},
    ),
    Happening(
        *(
            "node",
            "address_changed",
            "A node has another address; routes, tunnels and BGP follow, pods' connections stay.",
        ),
        *("the node", "node_dataplane"),
    ),
    Happening(
        *("node", "contested", "What is ours in a node's kernel is broken again and again; it is mended more slowly."),
        *("the route, device or setting", "node_dataplane", "error"),
        "Another program fights for it: run on the node what the message names, and switch that program off or away.",
    ),
    Happening(
        *("node", "settled", "What was broken again and again has been left alone for some minutes."),
        *("the route, device or setting", "node_dataplane"),
    ),
    Happening(
        *(
            "node",
            "link_gone",
            "A pod's link was deleted by somebody else and cannot be made again without the runtime.",
        ),
        *("pod `ns/name`", "node_dataplane", "error"),
        "Restart the pod.",
    ),
    Happening(
        *("node", "started_closed", "A pod was started while its policy was not known: it is closed until then."),
        *("pod `ns/name`", "node_dataplane", "warning"),
        "It opens by itself once the bus is back (`node.opened`): see to the bus.",
    ),
    Happening("node", "opened", "A pod that was started closed has its policy now.", "pod `ns/name`", "node_dataplane"),
    Happening(
        *("node", "started_otherwise", "A pod that started in an outage got other than its resource asks for."),
        *("pod `ns/name`", "node_dataplane", "warning"),
        "Restart the pod, and it gets what it asks for.",
    ),
    Happening(
        *("node", "take_over_refused", "A pod uses an address that the records do not give it."),
        *("pod `ns/name`", "node_dataplane", "error"),
        "Restart the pod; `tortie ipam check` shows whom the address belongs to.",
    ),
    Happening(
        *("node", "recollected", "An agent's notes were gone; it knows its pods again from the bus and the kernel."),
        *("the node", "node_dataplane", "warning"),
        "Its state directory (TORTIE_STATE_DIR) should be on a disk that survives restarts.",
    ),
    # --- Kubernetes
    Happening(
        *("kube", "invalid", "An object of the Kubernetes API cannot be understood; what was last good stays."),
        *("the object, `Kind/ns/name`", "kube_bridge", "error"),
        "Mend what the message names, and apply the object again.",
    ),
    Happening(
        *("kube", "shadowed", "Two objects of the Kubernetes API have one name in different API groups: one counts."),
        *("the object that does not count, `Kind/ns/name`", "kube_bridge", "warning"),
        "Delete one of the two.",
    ),
    Happening(
        *("kube", "resolved", "An object of the Kubernetes API that could not be mirrored is, or is gone."),
        *("the object, `Kind/ns/name`", "kube_bridge"),
    ),
)
BY_NAME: dict[tuple[str, str], Happening] = {(one.domain, one.what): one for one in ALL}
DOMAINS: dict[str, str] = {
    "pod": "Pods on their node",
    "ipam": "Addresses",
    "route": "Routes",
    "bgp": "BGP",
    "policy": "Policy",
    "node": "Nodes",
    "kube": "Kubernetes",
}


def completed(event: Event) -> Event:
    """The event with the severity and the advice of its kind, where its sender said nothing else."""
    known = BY_NAME.get((event.domain, event.what))
    if known is None or event.advice or event.severity != "info":
        return event
    return msgspec.structs.replace(event, severity=known.severity, advice=known.advice)


def pods_of(event: Event) -> frozenset[str]:
    """The pods `ns/name` that an event concerns, as far as it says so."""
    known = BY_NAME.get((event.domain, event.what))
    own = known is not None and known.object.startswith("pod") and event.object.count("/") == 1
    said = (event.detail.get("pod", ""), event.detail.get("peer_pod", ""), *event.detail.get("pods", "").split(","))
    return frozenset(filter(None, (event.object if own else "", *said)))


def namespaces_of(event: Event) -> frozenset[str]:
    """The namespaces of what an event concerns: of pods, and of objects `Kind/ns/name`."""
    objects = (event.object, event.detail.get("policy", ""))
    named = {text.split("/")[1] for text in objects if text.count("/") == 2}
    return frozenset(named | {pod.split("/")[0] for pod in pods_of(event)})
