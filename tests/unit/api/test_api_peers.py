"""Peers of events by name."""

from __future__ import annotations

import pytest

from bus_schemas.endpoints import Endpoint
from bus_schemas.events import Event
from bus_schemas.ids import NodeName
from bus_schemas.subjects import ENDPOINT, Fact
from services.api.core import Core
from services.api.peers import RECENT_S, named

OWNERS = {"10.244.1.7": "shop/web", "fd00::7": "shop/web"}


def event(message: str, **detail: str) -> Event:
    return Event(time=1000.0, domain="policy", what="denied", message=message, detail=detail)


def owner(address: str) -> str:
    return OWNERS.get(address, "")


@pytest.mark.parametrize(
    ("peer", "message", "says"),
    [
        ("10.244.1.7", "10.244.1.7 to shop/db, TCP port 80.", "shop/web (10.244.1.7) to shop/db, TCP port 80."),
        ("10.244.1.7", "shop/db to 10.244.1.7, was denied.", "shop/db to shop/web (10.244.1.7), was denied."),
        ("10.244.1.7", "shop/db to 10.244.1.7.", "shop/db to shop/web (10.244.1.7)."),
        ("10.244.1.7", "10.244.1.77 and 110.244.1.7 and 10.244.1.7.5", "10.244.1.77 and 110.244.1.7 and 10.244.1.7.5"),
        ("fd00::7", "fd00::7 to shop/db.", "shop/web (fd00::7) to shop/db."),
    ],
)
def test_a_pod_of_another_node_is_named(peer: str, message: str, says: str) -> None:
    told = named(event(message, peer=peer), owner, 1001.0)
    assert (told.message, told.detail["peer_pod"]) == (says, "shop/web")


@pytest.mark.parametrize(
    ("given", "now"),
    [
        (event("203.0.113.7 to shop/db.", peer="203.0.113.7"), 1001.0),
        (event("other/x (10.244.1.7) to shop/db.", peer="10.244.1.7", peer_pod="other/x"), 1001.0),
        (event("10.244.1.7 to shop/db.", peer="10.244.1.7"), 1001.0 + RECENT_S),
        (event("a route was repaired"), 1001.0),
    ],
)
def test_what_is_not_known_stays(given: Event, now: float) -> None:
    assert named(given, owner, now) == given


def test_whose_an_address_is() -> None:
    core = Core()

    def tell(name: str, *addresses: str) -> None:
        made = Endpoint(node=NodeName("n1"), namespace="shop", name=name, container="c", link="t", addresses=addresses)
        core.apply(Fact(ENDPOINT, ("n1", "shop", name), made if addresses else None, 1))

    tell("web", "10.244.1.7", "fd00::7")
    assert (core.owner("fd00::7"), core.owner("10.244.1.8")) == ("shop/web", "")
    tell("web", "10.244.1.8")
    assert (core.owner("10.244.1.7"), core.owner("10.244.1.8")) == ("", "shop/web")
    tell("new", "10.244.1.8")
    tell("web")
    assert core.owner("10.244.1.8") == "shop/new"
    tell("new")
    assert core.owner("10.244.1.8") == ""
