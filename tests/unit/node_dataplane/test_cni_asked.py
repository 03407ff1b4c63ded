"""What a runtime asks for one container, by each of the conventions."""

from __future__ import annotations

from typing import Any

import pytest

from services.node_dataplane import cni_asked
from services.node_dataplane.cni_asked import Asked
from services.node_dataplane.cni_errors import CniError, Code


@pytest.mark.parametrize(
    ("raw", "arguments", "asked"),
    [
        ({}, {}, Asked()),
        ({}, {"IP": "10.244.0.9", "MAC": "02-00-00-00-00-0A"}, Asked(("10.244.0.9",), "02:00:00:00:00:0a")),
        ({}, {"IP": "10.244.0.9,fd00::9"}, Asked(("10.244.0.9", "fd00::9"))),
        ({"runtimeConfig": {"ips": ["10.244.0.9/24"]}}, {"IP": "10.244.0.1"}, Asked(("10.244.0.9",))),
        (
            {"args": {"cni": {"ips": ["10.244.0.9"], "mac": "02:00:00:00:00:01"}}},
            {},
            Asked(("10.244.0.9",), "02:00:00:00:00:01"),
        ),
        ({"runtimeConfig": {"mac": "02:00:00:00:00:02"}}, {"MAC": "02:00:00:00:00:01"}, Asked((), "02:00:00:00:00:02")),
    ],
)
def test_the_first_convention_that_says_something_counts(
    raw: dict[str, Any], arguments: dict[str, str], asked: Asked
) -> None:
    assert cni_asked.read(raw, arguments) == asked


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ({}, {"IP": "web"}),
        ({}, {"IP": "127.0.0.1"}),
        ({}, {"IP": "10.244.0.1,10.244.0.2"}),
        ({}, {"MAC": "01:00:00:00:00:01"}),
        ({}, {"MAC": "02:00"}),
        ({"runtimeConfig": {"ips": "10.244.0.1"}}, {}),
        ({"runtimeConfig": {"mac": 7}}, {}),
        ({"runtimeConfig": ["ips"]}, {}),
    ],
)
def test_what_cannot_be_honoured_is_said(raw: dict[str, Any], arguments: dict[str, str]) -> None:
    with pytest.raises(CniError) as caught:
        cni_asked.read(raw, arguments)
    assert caught.value.code == Code.INVALID_CONFIGURATION
