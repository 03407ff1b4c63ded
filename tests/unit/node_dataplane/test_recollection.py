"""Which pods an agent without notes knows again."""

from __future__ import annotations

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from services.node_dataplane.netlink.readback import Link
from services.node_dataplane.recollection import recollected


def endpoint(name: str, **fields: object) -> Endpoint:
    given = {"handle": HandleId(f"net.{name}"), "addresses": ("10.0.0.1",)} | fields
    return Endpoint(node=NodeName("n"), namespace="ns", name=name, container=name, link=f"tor{name}", **given)  # type: ignore[arg-type]


def link(name: str) -> Link:
    return Link(7, name, b"\xee" * 6, 1450, up=True, running=True, peer=2, kind="veth", group=0)


def known(*endpoints: Endpoint, links: tuple[str, ...]) -> dict[str, tuple[HandleId, ...]]:
    found = recollected({e.link: e for e in endpoints}, {name: link(name) for name in links})
    assert all((plugin.interface, plugin.mtu, bool(plugin.mac)) == ("eth0", 1450, True) for plugin in found)
    return {plugin.endpoint.name: plugin.owes for plugin in found}


def test_pods_whose_link_is_there_are_known_again() -> None:
    assert known(endpoint("a"), endpoint("gone"), links=("tora", "torstranger")) == {"a": (HandleId("net.a"),)}


def test_floating_addresses_are_given_back_with_the_pod() -> None:
    floats = endpoint("a", floating=(("10.0.9.9", "10.0.0.1"),))
    assert known(floats, links=("tora",)) == {"a": (HandleId("net.a"), HandleId("net.a.floating"))}


def test_addresses_that_nobody_assigned_are_not_given_back() -> None:
    assert known(endpoint("a", handle=HandleId("")), links=("tora",)) == {"a": ()}
