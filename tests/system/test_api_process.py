"""`tortie serve`, as processes: what a person starts, asks, and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.api import NODE, POOL, joined
from tests.support.api_server import free_port
from tests.support.waiting import until

END_S = 20.0


@contextmanager
def tortie(directory: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TORTIE_")}
    log = directory / f"{arguments[1]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tortie", *arguments], env=kept | environment, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def ask(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tortie", *arguments, "--api", address], capture_output=True, text=True, check=False
    )


async def test_a_bus_an_api_and_route_distribution(tmp_path: Path) -> None:
    port = free_port()
    socket = f"unix:{tmp_path}/api.sock"
    environment = {"TORTIE_NATS_URL": f"nats://127.0.0.1:{port}", "TORTIE_API_LISTEN": socket}
    with (
        tortie(tmp_path, "serve", "api", **environment) as api,
        tortie(tmp_path, "serve", "route-distribution", **environment) as routes,
    ):

        async def answers(code: int, text: str) -> bool:
            asked = ask(socket, "get", "nodes")
            return asked.returncode == code and text in asked.stderr

        await until(lambda: answers(2, "the bus is away"), "the api says that there is no bus yet")
        store = str(tmp_path / "nats")
        with tortie(tmp_path, "serve", "nats", "--store", store, "--port", str(port)) as nats:
            await until(lambda: answers(0, "nothing found"), "the api has found the bus")
            manifests = tmp_path / "manifests.yaml"
            manifests.write_text(joined(POOL, NODE))
            assert ask(socket, "apply", "-f", str(manifests)).returncode == 0

            async def alive() -> bool:
                said = ask(socket, "status").stdout
                return all(name in said for name in ("api", "route_distribution", "node1"))

            await until(alive, "all components are named")
            for process in (api, routes, nats):
                process.send_signal(signal.SIGTERM)
            assert [process.wait(END_S) for process in (api, routes, nats)] == [0, 0, 0]
    assert not (tmp_path / "api.sock").exists()


def test_a_misspelt_setting_ends_the_service_with_2(tmp_path: Path) -> None:
    with tortie(tmp_path, "serve", "api", TORTIE_API_LISTN="127.0.0.1:0") as process:
        assert process.wait(END_S) == 2
    assert "TORTIE_API_LISTN is not a setting; did you mean TORTIE_API_LISTEN?" in (tmp_path / "api.log").read_text()


@pytest.mark.parametrize(
    "service", ["api", "ipam", "route-distribution", "policy-compiler", "node-dataplane", "node_dataplane"]
)
def test_help_names_every_setting_with_its_text(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tortie.cli.main import main

    assert main(["serve", service, "--help"]) == 0
    said = capsys.readouterr().out
    assert "TORTIE_NATS_URL  [nats://127.0.0.1:4222]" in said
    assert "Where the bus is" in said
