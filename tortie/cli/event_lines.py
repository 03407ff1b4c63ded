"""How an event is printed: one line for a person, with what to do about it, or one JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from bus_schemas.events import SEVERITIES

FIELDS: Mapping[str, Any] = {
    "sequence": 0,
    "time": 0.0,
    "domain": "",
    "what": "",
    "severity": SEVERITIES[0],
    "node": None,
    "object": "",
    "message": "",
    "advice": "",
    "detail": {},
}
"""Of the JSON form, in this order, all of them always there; with what stands there when the event says nothing."""

_COLOURS = {"info": "32", "warning": "33", "error": "31"}
_DIM = "2"


def as_json(event: Mapping[str, Any]) -> str:
    return json.dumps({name: event.get(name, default) for name, default in FIELDS.items()}, ensure_ascii=False)


def as_line(event: Mapping[str, Any], *, colours: bool, today: str) -> str:
    """`today`: the date here, `YYYY-MM-DD`; an event of another day has its date, too."""
    moment = time.localtime(event["time"])
    date = time.strftime("%Y-%m-%d", moment)
    when = time.strftime("%H:%M:%S", moment)
    severity = event.get("severity", SEVERITIES[0])
    name = f"{event['domain']}.{event['what']}".ljust(18)
    mark = "" if severity == SEVERITIES[0] else f"{severity}: "
    advice = event.get("advice", "")

    def painted(text: str, colour: str) -> str:
        return f"\033[{colour}m{_printable(text)}\033[0m" if colours and text else _printable(text)

    parts = (
        painted(when if date == today else f"{date} {when}", _DIM),
        painted(name, _COLOURS.get(severity, "0")),
        _printable(event.get("node") or "-"),
        _printable(event.get("object") or "-"),
        painted(mark, _COLOURS.get(severity, "0")) + _printable(event["message"]),
        painted(f"-> {advice}", _DIM) if advice else "",
    )
    return "  ".join(filter(None, parts))


def _printable(text: str) -> str:
    """Names on the bus may be anybody's: no letter of theirs moves the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
