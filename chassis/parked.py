"""Messages that could not be read: kept out, counted, and named in health until a good one takes their place."""

from __future__ import annotations

from bus_schemas.subjects import Stream
from chassis.health import Health
from chassis.metrics import MALFORMED

SHOWN = 5


class Parked:
    """By reader and subject. The reader goes on with the last good value."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._reasons: dict[tuple[int, str], str] = {}

    def park(self, reader: object, subject: str, stream: Stream, reason: str) -> None:
        MALFORMED.labels(stream).inc()
        self._reasons[id(reader), subject] = reason
        self._name()

    def release(self, reader: object, subject: str) -> None:
        if self._reasons and self._reasons.pop((id(reader), subject), None) is not None:
            self._name()

    def forget(self, reader: object) -> None:
        """The reader is gone."""
        self._reasons = {key: reason for key, reason in self._reasons.items() if key[0] != id(reader)}
        self._name()

    def _name(self) -> None:
        subjects = {subject: reason for (_, subject), reason in self._reasons.items()}
        text = None
        if subjects:
            shown = "; ".join(f"{subject} ({reason})" for subject, reason in sorted(subjects.items())[:SHOWN])
            more = f" and {len(subjects) - SHOWN} more" if len(subjects) > SHOWN else ""
            text = f"{len(subjects)} messages cannot be read, the last good ones stand: {shown}{more}"
        self._health.note("malformed", text)
