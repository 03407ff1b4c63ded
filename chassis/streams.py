"""The streams of the system, as `bus_schemas.subjects.STREAMS` asks for them, made and then checked.

An older server ignores configuration fields that it does not know and says nothing. So what the server answers is
compared with what was asked, field by field; a difference makes the bus unusable, with the field's name, rather than
quietly without compare-and-swap, delete markers or a live feed.

A stream that is made begins at a sequence that no earlier life of it can have reached: the clock in microseconds. So a
sequence that somebody still believes in from before the stream was lost is never, by chance, that of another message
now: what he swaps on it conflicts.
"""

from __future__ import annotations

import re
import time
from typing import Any

from bus_schemas.subjects import LIVE_PREFIX, PREFIX, STREAMS, Stream, StreamSpec
from chassis.errors import Rejected, Unusable
from chassis.jetstream import StreamInfo, create_stream, stream_info, update_stream
from chassis.session import Session

MINIMUM_VERSION = (2, 12)
MARKER_TTL_S = 3600
"""How long the server's own marker of an expired message stays: as long as a tombstone of ours."""

_SECOND = 1_000_000_000
_MADE_BY_ANOTHER = 10058
"""The server's word that a stream of the name exists and is configured differently: it begins elsewhere."""


def wanted(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    """The configuration in the server's own terms (durations in nanoseconds)."""
    config: dict[str, Any] = {
        "name": str(spec.stream),
        "subjects": [PREFIX + subject for subject in spec.subjects],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1 if spec.last_per_subject else -1,
        "max_age": round(spec.max_age_s * _SECOND),
        "max_bytes": spec.max_bytes,
        "allow_direct": True,
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "republish": {"src": PREFIX + ">", "dest": LIVE_PREFIX + ">"},
    }
    if spec.stream is Stream.STATUS:
        config |= {"subject_delete_marker_ttl": MARKER_TTL_S * _SECOND, "allow_rollup_hdrs": True}
    return config


def differences(asked: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """One sentence for every field that the server did not take as asked. Fields not asked for do not matter."""
    return [
        f"{asked['name']}: asked for {field} = {value!r}, the server has {got.get(field)!r}"
        for field, value in asked.items()
        if got.get(field) != value and not (field not in got and value in (0, False))
    ]


def too_old(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is None or (int(found[1]), int(found[2])) < MINIMUM_VERSION


async def ensure(session: Session, replicas: int) -> None:
    """Every stream exists and is as asked. Raises Unusable, Unavailable."""
    if too_old(session.server_version):
        raise Unusable(
            f"nats-server {session.server_version} at {session.server} is too old: Tortie needs "
            f"{'.'.join(map(str, MINIMUM_VERSION))} or newer"
        )
    for spec in STREAMS.values():
        await _ensure(session, wanted(spec, replicas))


async def _ensure(session: Session, asked: dict[str, Any]) -> None:
    try:
        info = await stream_info(session, asked["name"])
        if info is None:
            info = await _create(session, asked)
        else:
            # whoever runs the servers may have changed it, and a service with the default must not change it back
            asked = asked | {"num_replicas": info.config.get("num_replicas", asked["num_replicas"])}
        if differences(asked, info.config):
            info = await update_stream(session, asked)
    except Rejected as error:
        raise Unusable(f"stream {asked['name']} cannot be made: {error}") from error
    faults = differences(asked, info.config)
    if faults:
        raise Unusable(f"nats-server {session.server_version} at {session.server} ignored: " + "; ".join(faults))


async def _create(session: Session, asked: dict[str, Any]) -> StreamInfo:
    """Many services start at the same moment: the first one's stream is everybody's."""
    try:
        return await create_stream(session, asked | {"first_seq": time.time_ns() // 1000})
    except Rejected as error:
        info = await stream_info(session, asked["name"]) if error.code == _MADE_BY_ANOTHER else None
        if info is None:
            raise
        return info
