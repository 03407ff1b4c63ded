"""The environment, all faults at once."""

from __future__ import annotations

import socket
from typing import Literal

import pytest

from chassis.errors import SettingsError
from chassis.settings import ServiceSettings, every_variable, load


class Sample(ServiceSettings, frozen=True, kw_only=True):
    pools: int = 4
    strict: bool = False
    flush_s: float = 0.5
    mode: Literal["fast", "safe"] = "fast"


def test_defaults() -> None:
    settings = load(Sample, {"PATH": "/bin"})
    assert (settings.pools, settings.strict, settings.instance) == (4, False, socket.gethostname())


def test_values_are_converted() -> None:
    environ = {"TORTIE_POOLS": " 7 ", "TORTIE_STRICT": "true", "TORTIE_FLUSH_S": "1.5", "TORTIE_MODE": "safe"}
    settings = load(Sample, environ)
    assert (settings.pools, settings.strict, settings.flush_s, settings.mode) == (7, True, 1.5, "safe")


def test_every_fault_is_said_at_once() -> None:
    environ = {"TORTIE_POOLS": "many", "TORTIE_MODE": "slow", "TORTIE_POOL": "1", "TORTIE_ELSEWHERE": "1"}
    with pytest.raises(SettingsError) as caught:
        load(Sample, environ, known=frozenset({"TORTIE_ELSEWHERE"}))
    assert len(caught.value.faults) == 3
    assert "TORTIE_POOL is not a setting; did you mean TORTIE_POOLS?" in caught.value.faults


def test_secrets_are_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        load(Sample, {"TORTIE_NATS_URLS": "nats://user:geheim@host", "TORTIE_NATS_REPLICAS": "geheim"})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TORTIE_NATS_URL", ""),
        ("TORTIE_NATS_URL", "nats://a:4222,http://b"),
        ("TORTIE_NATS_URL", "nats://a:geheim"),
        ("TORTIE_NATS_URL", "nats://"),
        ("TORTIE_NATS_URL", "nats://user:geheim@$(TORTIE_NATS_0_SERVICE_HOST):4222"),
        ("TORTIE_NATS_REPLICAS", "2"),
    ],
)
def test_what_can_never_work_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Sample, {variable: value})
    (fault,) = caught.value.faults
    assert fault.startswith(variable)
    assert "geheim" not in fault


@pytest.mark.parametrize("url", ["127.0.0.1:4222", "nats://[::1]:4222", "tls://user:pw@a, tls://b:4443"])
def test_servers_of_every_spelling(url: str) -> None:
    assert load(Sample, {"TORTIE_NATS_URL": url}).nats_url == url


def test_neighbours_are_known() -> None:
    assert {"TORTIE_NATS_URL", "TORTIE_STRICT_AFFINITY", "TORTIE_NODE"} <= every_variable()


def test_what_kubernetes_says_of_services_is_no_setting() -> None:
    links = {"SERVICE_HOST": "10.96.0.1", "SERVICE_PORT_CLIENT": "4222", "PORT_4222_TCP_ADDR": "10.96.0.1"}
    environ = {f"TORTIE_NATS_0_{name}": value for name, value in links.items()} | {"TORTIE_NATS_0_PORT": "tcp://x:1"}
    assert load(Sample, environ | {"TORTIE_POOLS": "7"}).pools == 7
    with pytest.raises(SettingsError):
        load(Sample, {name: value for name, value in environ.items() if name != "TORTIE_NATS_0_SERVICE_HOST"})
    with pytest.raises(SettingsError):
        load(Sample, environ | {"TORTIE_NATS_0_REPLICAS": "3"})
