"""Every setting of every service: documented, and with one meaning."""

from __future__ import annotations

import importlib
from collections import Counter

import msgspec
import pytest

from chassis.settings import PREFIX, ServiceSettings, describe
from tortie.cli.serve import SERVICES


def settings_of(service: str) -> type[ServiceSettings]:
    found: type[ServiceSettings] = importlib.import_module(f"services.{SERVICES[service]}.settings").Settings
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_says_what_it_does(service: str) -> None:
    described = {setting.variable: setting.doc for setting in describe(settings_of(service))}
    fields = {PREFIX + field.name.upper() for field in msgspec.structs.fields(settings_of(service))}
    assert set(described) == fields
    assert [variable for variable, doc in described.items() if not doc.endswith(".")] == []


def test_a_variable_has_one_meaning() -> None:
    common = {field.name for field in msgspec.structs.fields(ServiceSettings)}
    own = Counter(
        field.name
        for service in SERVICES
        for field in msgspec.structs.fields(settings_of(service))
        if field.name not in common
    )
    assert [name for name, count in own.items() if count > 1] == []
