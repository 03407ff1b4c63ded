"""An event of every kind, as its sender would word it."""

from __future__ import annotations

from bus_schemas.events import Event
from bus_schemas.happenings import completed
from bus_schemas.ids import NodeName
from bus_schemas.routes import Encapsulation, Route, Tunnel
from services.api.vigil import Turn, sentence
from services.route_distribution.news import changed

NOON = 1767268800.0
_ROUTE = Route(
    cidr="10.244.76.128/26",
    node=NodeName("node1"),
    address="10.0.0.11/24",
    tunnel=Tunnel.VXLAN,
    encapsulation=Encapsulation.CROSS_SUBNET,
)


def _event(name: str, object_: str, message: str, node: str = "", **detail: str) -> Event:
    domain, _, what = name.partition(".")
    return Event(
        time=NOON,
        domain=domain,
        what=what,
        node=NodeName(node) if node else None,
        object=object_,
        message=message,
        detail=detail,
    )


def _all() -> list[Event]:
    route = changed(_ROUTE.cidr, None, _ROUTE, NOON)
    assert route is not None
    connection = {"direction": "ingress", "peer": "10.244.174.70", "protocol": "TCP", "port": "5432"}
    db = {"handle": "pods.4f1c8e07d2b3", "addresses": "10.244.76.129"}
    session = {"type": "node specific", "remote_as": "64600"}
    policy = "NetworkPolicy/shop/db"
    cidr = _ROUTE.cidr
    denied = "shop/web (10.244.174.70) to shop/db, TCP port 5432,"
    return [
        _event(
            *("pod.started", "shop/db", "shop/db is plugged in with 10.244.76.129, after 0.02 s.", "node1"),
            addresses="10.244.76.129",
            link="tor2d7243dcff6",
            seconds="0.017",
        ),
        _event(
            *("pod.stopped", "shop/db", "shop/db is unplugged and gives 10.244.76.129 back.", "node1"),
            addresses="10.244.76.129",
        ),
        _event(
            "pod.start_failed",
            "shop/db",
            "shop/db could not be started: assigning addresses: pool pods has no free address.",
            "node1",
            container="4f1c8e07d2b3",
        ),
        _event("ipam.assigned", "shop/db", "shop/db on node node1 has 10.244.76.129.", "node1", **db),
        _event("ipam.released", "shop/db", "shop/db on node node1 gave back 10.244.76.129.", "node1", **db),
        _event("ipam.exhausted", "node1", "pool pods has no free block and node1's blocks are full", "node1"),
        _event("ipam.claimed", cidr, "Node node1 claimed it.", "node1"),
        _event("ipam.adopted", cidr, "Node node1 took it over.", "node1"),
        _event("ipam.reclaimed", cidr, f"Node node2 takes over the empty block {cidr} of node node1.", "node1"),
        _event("ipam.returned", cidr, "The empty block of node node1 is free again: the node has others.", "node1"),
        _event("ipam.removed", cidr, "Nobody's block is empty and goes."),
        _event("ipam.moved", cidr, "It is part of split-1 now.", "node1", before="pods"),
        _event("ipam.disowned", cidr, "Node node1 is gone, its addresses are not.", "node1"),
        _event(
            *("ipam.candidate", "pods.77aa00c1d2e3"),
            *("10.244.174.70 looks forgotten: node node2 does not list it.", "node2"),
        ),
        _event(
            *("ipam.collected", "pods.77aa00c1d2e3"),
            *("10.244.174.70 of node node2 was forgotten (node node2 does not list it) and is free again.", "node2"),
            addresses="10.244.174.70",
        ),
        _event("ipam.recovering", "epoch", "The bus lost the address records (blocks); they are read back."),
        _event("ipam.recovered", "epoch", "The address records were read back: 120 handles."),
        _event("ipam.conflict", "epoch", "10.244.76.129 is said to be shop/db's and shop/api's."),
        _event(
            *("ipam.duplicate", "10.244.76.129"),
            "10.244.76.129 is shop/db's on node1 by the records, and node3 (shop/db) lists it, too.",
        ),
        _event("ipam.resolved", "10.244.76.129", "10.244.76.129 is listed by one node again."),
        route,
        _event(
            "route.contested",
            "10.244.76.160/27",
            f"block 10.244.76.160/27 overlaps the older block {cidr}: it has no route",
        ),
        _event(
            *("route.duplicate", "node3"),
            "node node3 says that its address is 10.0.0.15, which node node1 has had for longer: node3 is not reached "
            "until one of them has another (tortie node explain node3), or the Node that is gone is deleted",
        ),
        _event("route.malformed", "pods", "the CIDR of pool pods is not a network"),
        _event("route.orphaned", "pods", "pool pods is gone: its blocks are routed without a tunnel"),
        _event(
            "route.missing",
            "top-of-rack/only-pods",
            "BGPPeer top-of-rack names the BGPFilter only-pods, which does not exist",
        ),
        _event("route.resolved", "pods", "no longer: pool pods is gone: its blocks are routed without a tunnel"),
        _event(
            *("bgp.lost", "10.0.0.1"),
            *("The BGP session with 10.0.0.1 (AS 64600, node specific) is lost: Hold timer expired.", "node1"),
            **session,
        ),
        _event(
            *("bgp.established", "10.0.0.1"),
            *("The BGP session with 10.0.0.1 (AS 64600, node specific) is established.", "node1"),
            **session,
        ),
        _event("bgp.bird_ended", "node1", "BIRD ended and is started again; its routes stay meanwhile.", "node1"),
        _event(
            *("policy.compiled", policy, f"{policy} was changed: it governs 1 endpoint on 1 node."),
            policy=policy,
            change="changed",
            endpoints="1",
            nodes="node1",
        ),
        _event(
            *("policy.in_force", policy, f"{policy} is in force as changed; it governs shop/db.", "node1"),
            policy=policy,
            change="changed",
            pods="shop/db",
            endpoints="1",
        ),
        _event(
            "policy.not_compiled",
            "clusternetworkpolicy/by-domain",
            "spec.egress[0].to[0].domainNames: cannot be enforced",
        ),
        _event(
            *("policy.resolved", "clusternetworkpolicy/by-domain"),
            "no longer: spec.egress[0].to[0].domainNames: cannot be enforced",
        ),
        _event(
            *("policy.denied", "shop/db", f"{denied} was denied: nothing in the tier default allows it.", "node1"),
            **connection,
            peer_pod="shop/web",
            tier="default",
            reason="end of tier default",
            count="1",
        ),
        _event(
            *("policy.would_be_denied", "shop/db"),
            *(f"{denied} would be denied with the staged policies: nothing in the tier default allows it.", "node1"),
            **connection,
            tier="default",
            reason="end of tier default",
            count="1",
        ),
        _event(
            *("policy.guarded", "shop/web"),
            *("shop/web to 10.0.0.1, UDP port 53, was dropped: the source address is not one of its own.", "node2"),
            direction="egress",
            peer="10.0.0.1",
            source="192.0.2.1",
            protocol="UDP",
            port="53",
            reason="spoofed",
            count="1",
        ),
        _event(
            *(
                "policy.logged",
                "shop/db",
                f"{denied} was logged by NetworkPolicy/shop/security.audit, rule 0.",
                "node1",
            ),
            **connection,
            policy="NetworkPolicy/shop/security.audit",
            rule="0",
            count="1",
        ),
        _event(
            *("policy.denials_untold", ""),
            "310 more packets were denied and are not told one by one: more than 20 different ones came in a second.",
            *("node1",),
            count="310",
        ),
        _event(
            *("policy.cut", "shop/db"),
            *(
                "The connection of shop/web to shop/db, TCP port 5432, was cut: NetworkPolicy/shop/db denies it.",
                "node1",
            ),
            **connection,
            policy=policy,
            count="1",
        ),
        _event("node.lost", "node2", sentence(Turn("lost", "node2", 21.0), 1, 2), "node2", silent_s="21"),
        _event("node.found", "node2", sentence(Turn("found", "node2", 64.0), 2, 2), "node2", silent_s="64"),
        _event(
            *("node.repaired", "10.244.174.64/26"),
            *("The route to 10.244.174.64/26 had been changed; it was put right.", "node1"),
        ),
        _event(
            *("node.address_changed", "node1"),
            *("The node's IPv4 address is 10.0.0.16/24 on eth0 now; it was 10.0.0.15/24.", "node1"),
        ),
        _event(
            *("node.contested", "10.244.174.64/26"),
            "10.244.174.64/26 was put right 8 times and is broken again and again: from now on with longer pauses. "
            "Another program fights for it; `ip monitor route` on the node shows when it acts.",
            "node1",
        ),
        _event(
            *("node.settled", "10.244.174.64/26"),
            *("Nobody has broken 10.244.174.64/26 for some minutes: it is not fought for any more.", "node1"),
        ),
        _event("node.link_gone", "shop/db", "The link tor2d7243dcff6 of shop/db is gone from the node.", "node1"),
        _event(
            *("node.started_closed", "shop/db"),
            *("The pod was started closed: the bus is away, and its policy with it.", "node1"),
        ),
        _event(
            *("node.opened", "shop/db", "The policy of the pod, which was started closed, is in place.", "node1"),
        ),
        _event(
            *("node.started_otherwise", "shop/db"),
            *("The pod started in an outage, and its annotations ask for other addresses.", "node1"),
        ),
        _event(
            *("node.take_over_refused", "shop/db"),
            *("The pod holds a warm address, but it is another handle's.", "node1"),
        ),
        _event(
            *("node.recollected", "node1"),
            *("The notes of this node were gone: 12 pods are known again.", "node1"),
        ),
        _event(
            *("kube.invalid", "NetworkPolicy/shop/db"),
            "spec.ingress[0].ports[0].port: 70000 is not a port (what was last good stays)",
        ),
        _event(
            *("kube.shadowed", "GlobalNetworkPolicy/lock"),
            "projectcalico.org/v3 has one of this name, too (the other one is in force)",
        ),
        _event("kube.resolved", "NetworkPolicy/shop/db", "is mirrored as it is, or gone"),
    ]


EVENTS: dict[str, Event] = {f"{event.domain}.{event.what}": completed(event) for event in _all()}
"""By domain and what."""
