"""`tortie version`."""

from __future__ import annotations

from bus_schemas import VERSION


def command() -> None:
    print(f"tortie {VERSION}")
