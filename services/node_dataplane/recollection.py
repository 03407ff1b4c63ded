"""An agent whose notes are gone while pods run on its node: somebody emptied the state directory, or it does not
outlast the agent. Such an agent must not say that nobody has the pods' addresses, for they would be given to others.

    notes there, or no pod's link on the node  -> nothing to do
    else  the bus --the node's endpoints--> those whose link is there are noted again -> adopted like any others

This comes before anything is touched: as long as the bus is away, routes, links and the table stay as they are, no pod
starts, and `/readyz` says why. What the bus does not know is lost: the sources that a pod may use beside its own
addresses, the MAC that it asked for, and pods that were never announced. Those are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.subjects import ENDPOINT
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.health import Health
from services.node_dataplane.endpoint_store import EndpointStore
from services.node_dataplane.links import PodLinks
from services.node_dataplane.netlink.readback import Link
from services.node_dataplane.plugins import Plugin

CAUSE = "notes"
INTERFACE = "eth0"
"""The pod's end, which only the notes name otherwise."""


async def recollect(
    node: NodeName,
    store: EndpointStore,
    links: PodLinks,
    bus: Bus,
    health: Health,
    report: Callable[[str, str, str], None],
) -> None:
    """Returns when the store knows the node's pods. `report(what, object, message)` emits an event. Raises
    NetlinkError, StoreError."""
    if store.found or not (present := links.present()):
        return
    health.fail(
        CAUSE,
        f"there are links of {len(present)} pods on this node and no notes of them in the state directory: they are "
        "read back from the bus",
    )
    plugins = recollected(await _endpoints(bus, node), present)
    for plugin in plugins:
        store.put(plugin)
    await store.save()
    unknown = sorted(present.keys() - {plugin.endpoint.link for plugin in plugins})
    health.note(CAUSE, f"no pod is known of the links {', '.join(unknown)}" if unknown else None)
    health.ok(CAUSE)
    beside = f"; of the links {', '.join(unknown)} no pod is known" if unknown else ""
    report("recollected", node, f"The notes of this node were gone: {len(plugins)} pods are known again{beside}.")


def recollected(endpoints: Mapping[str, Endpoint], present: Mapping[str, Link]) -> list[Plugin]:
    """`endpoints` and `present`: by the link's name. Pure."""
    return [
        Plugin(
            endpoint=endpoint,
            handle=endpoint.handle or HandleId(f"unassigned.{endpoint.container}"),
            interface=INTERFACE,
            netns="",
            mac=present[name].mac.hex(":"),  # of the node's end: that of the pod's end nobody asks for
            mtu=present[name].mtu,
            also=(HandleId(f"{endpoint.handle}.floating"),) if endpoint.floating else (),
            unassigned=not endpoint.handle,
        )
        for name, endpoint in sorted(endpoints.items())
        if name in present
    ]


async def _endpoints(bus: Bus, node: NodeName) -> dict[str, Endpoint]:
    """What the bus has of the node's pods, by their links."""
    found: dict[str, Endpoint] = {}
    async with bus.follow(Interest(ENDPOINT, (node,))) as feed:
        while not feed.in_sync:
            for fact in (await feed.next()).facts:
                if fact.value is not None:
                    found[fact.value.link] = fact.value
    return found
