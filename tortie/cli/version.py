"""`tortie version`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def command() -> None:
    try:
        print(f"tortie {version('tortie')}")
    except PackageNotFoundError:
        print("tortie, run from its sources without being installed")
