"""One version: that of the code is that of the installed package."""

from __future__ import annotations

from importlib import metadata

from bus_schemas import VERSION


def test_the_package_is_of_this_version() -> None:
    assert metadata.version("tortie") == VERSION
