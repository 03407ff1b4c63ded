from __future__ import annotations

from typing import Any

import pytest

from tortie.lab import kernel

ROUTES: list[dict[str, Any]] = [
    {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0", "flags": []},
    {"dst": "10.244.0.1", "dev": "tor1", "scope": "link", "protocol": "84", "flags": []},
    {"dst": "10.244.6.0/24", "gateway": "10.244.6.0", "dev": "vxlan.tortie", "flags": ["onlink", "pervasive"]},
    {"type": "blackhole", "dst": "10.244.0.0/26", "protocol": "84", "flags": []},
]
NEIGHBOURS = [{"dst": "10.244.6.0", "dev": "vxlan.tortie", "lladdr": "66:00:00:00:00:01", "state": ["PERMANENT"]}]
FDB = [{"mac": "66:00:00:00:00:01", "ifname": "vxlan.tortie", "dst": "10.0.0.16", "flags": ["self"]}]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (ROUTES, {"dst": "default"}),
        (ROUTES, {"dst": "10.244.0.1/32", "dev": "tor1", "scope": "link"}),
        (ROUTES, {"dst": "10.244.6.0/24", "flags": ["onlink"]}),
        (ROUTES, {"dst": "10.244.0.0/26", "type": "blackhole", "protocol": 84}),
        (NEIGHBOURS, {"dst": "10.244.6.0", "state": "PERMANENT"}),
        (FDB, {"dst": "10.0.0.16", "dev": "vxlan.tortie"}),
    ],
)
def test_a_row_that_has_all_that_is_wanted(rows: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    assert len(kernel.matching(rows, wanted)) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {"dst": "10.244.0.2"},
        {"dst": "10.244.6.0/24", "gateway": "10.0.0.16"},
        {"dst": "10.244.6.0/24", "flags": ["onlink", "dead"]},
        {"dst": "10.244.6.0/24", "scope": "link"},
    ],
)
def test_a_row_that_lacks_something(wanted: dict[str, Any]) -> None:
    assert kernel.matching(ROUTES, wanted) == []


def test_the_rows_about_the_same_destination_are_what_a_person_is_shown() -> None:
    assert kernel.near(ROUTES, {"dst": "10.244.6.0/24", "gateway": "10.0.0.16"}) == [ROUTES[2]]
