"""Names for the peers of events: a node knows its own pods only, the api knows them all. Pure.

10.244.1.7 to shop/db, TCP port 80, was denied  ->  shop/web (10.244.1.7) to shop/db, TCP port 80, was denied
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from bus_schemas.events import Event

RECENT_S = 60.0
"""An address has one owner after the other: of what is older, nobody says whose it was."""


def named(event: Event, owner: Callable[[str], str], now: float) -> Event:
    """The event with the pod that its peer's address belongs to. `owner`: `namespace/name`; empty: not a pod's."""
    peer = event.detail.get("peer", "")
    if not peer or "peer_pod" in event.detail or event.time < now - RECENT_S:
        return event
    pod = owner(peer)
    if not pod:
        return event
    message = re.sub(rf"(?<![\w.:(]){re.escape(peer)}(?![\w:]|\.\w)", f"{pod} ({peer})", event.message, count=1)
    return msgspec.structs.replace(event, message=message, detail={**event.detail, "peer_pod": pod})
