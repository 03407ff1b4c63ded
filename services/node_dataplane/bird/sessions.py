"""From what BIRD says of its protocols to the node's BGP sessions. Pure.

Our configuration names a session's protocol for why it is there: `Mesh_`, `Global_`, `Node_`, `Local_` and the
neighbour's address. Protocols of other names are not sessions of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address

from bus_schemas.bgp import Origin
from bus_schemas.sessions import SessionState
from services.node_dataplane.bird.control import Line

PROTOCOL, DETAIL = 1002, 1006
ORIGINS: Mapping[str, Origin] = {
    "Mesh": Origin.MESH,
    "Global": Origin.GLOBAL,
    "Node": Origin.NODE,
    "Local": Origin.LOCAL,
}
ESTABLISHED = "Established"

_ROUTES = re.compile(r"(\d+) imported(?:, \d+ filtered)?, (\d+) exported")
_TIME = re.compile(r"(?:(\d{4}-\d\d-\d\d) ?)?(?:(\d\d:\d\d:\d\d)(?:\.\d+)?)?")


def sessions(lines: Iterable[Line], now: datetime) -> tuple[SessionState, ...]:
    """Those of the reply to `show protocols all`, by family and address; `now` is in the zone of BIRD's clock."""
    found = [_session(summary, details, now) for summary, details in _protocols(lines)]
    return tuple(sorted((s for s in found if s is not None), key=lambda s: (ip_address(s.neighbour).packed, s.port)))


def _protocols(lines: Iterable[Line]) -> list[tuple[str, list[str]]]:
    """The summary line and the details of each."""
    made: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.code == PROTOCOL and line.text.strip():
            made.append((line.text, []))
        elif line.code == DETAIL and made:
            made[-1][1].append(line.text.strip())
    return made


def _session(summary: str, details: list[str], now: datetime) -> SessionState | None:
    """None: not one of ours."""
    words = summary.split(None, 4)
    if len(words) < 5 or words[1] != "BGP" or words[0].partition("_")[0] not in ORIGINS:
        return None
    name, _, _, state, rest = words
    facts = dict(_fact(text) for text in details if ":" in text)
    neighbour = facts.get("Neighbor address", "").partition("%")[0]
    if not neighbour:
        return None
    since, info = moment(rest, now)
    phase, _, reason = info.partition(" ")
    imported, exported = _counts(details)
    return SessionState(
        protocol=name,
        neighbour=neighbour,
        port=int(facts.get("Neighbor port", "0")),
        remote_as=int(facts.get("Neighbor AS", "0")),
        origin=ORIGINS[name.partition("_")[0]],
        state=state,
        since=since,
        established=phase == ESTABLISHED,
        info=" ".join(filter(None, (phase, reason.strip()))),
        imported=imported,
        exported=exported,
    )


def _fact(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


def _counts(details: Iterable[str]) -> tuple[int, int]:
    """Routes that came by all channels of the session, and that went."""
    pairs = [(int(found[1]), int(found[2])) for text in details if (found := _ROUTES.search(text))]
    return sum(came for came, _ in pairs), sum(went for _, went in pairs)


def moment(text: str, now: datetime) -> tuple[float, str]:
    """The time that a text begins with, in any of BIRD's formats, as Unix time; and the rest of the text.

    A time without its day was at most a day ago, a day without a time is told as its beginning."""
    found = _TIME.match(text)
    assert found is not None, "every part of it is optional"
    day, clock = found.groups()
    if day is None and clock is None:
        return 0.0, text.strip()
    date = datetime.fromisoformat(day) if day is not None else now
    at = datetime.combine(date.date(), datetime.fromisoformat(f"2000-01-01T{clock or '00:00:00'}").time(), now.tzinfo)
    if day is None and at > now + timedelta(seconds=1):
        at -= timedelta(days=1)
    return at.timestamp(), text[found.end() :].strip()
