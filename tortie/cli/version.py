"""`tortie version`."""

from __future__ import annotations

from bus_schemas import VERSION
from tortie.cli import way
from tortie.cli.options import Api


def command(api: Api = "") -> None:
    """Show the version, and whom commands would ask: an api, or Kubernetes where there is none."""
    print(f"tortie {VERSION}")
    print(f"asks {way.chosen(api)}")
