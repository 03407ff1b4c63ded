"""`tortie cni install`: what it writes, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.node_dataplane import cni_server
from tortie.cli.main import main


def test_both_files_are_written_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")]
    assert main(["cni", "install", "--network", "one", *places]) == 0
    assert main(["cni", "install", "--network", "two", "--label", "app=web", "--cni-version", "1.1.0", *places]) == 0
    executable, configuration = (Path(line) for line in capsys.readouterr().out.splitlines()[-2:])
    assert executable.stat().st_mode & 0o777 == 0o755
    written = json.loads(configuration.read_text())
    assert (written["name"], written["cniVersion"]) == ("two", "1.1.0")
    assert written["plugins"][0]["args"] == {"cni": {"labels": [{"key": "app", "value": "web"}]}}
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["10-tortie.conflist", "tortie"]


def test_the_static_front_end_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "built").write_bytes(b"\x7fELF\xff")
    places = ["--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")]
    assert main(["cni", "install", "--front", str(tmp_path / "built"), *places]) == 0
    executable = tmp_path / "bin" / "tortie"
    assert (executable.read_bytes(), executable.stat().st_mode & 0o777) == (b"\x7fELF\xff", 0o755)
    assert main(["cni", "install", "--front", str(tmp_path / "nothing"), *places]) == 2
    assert "is not there" in capsys.readouterr().err
    assert executable.read_bytes() == b"\x7fELF\xff"


def test_the_plugin_and_the_configuration_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")]
    assert main(["cni", "install", "--no-configuration", *places]) == 0
    assert [path.name for path in tmp_path.glob("*/*")] == ["tortie"]
    (tmp_path / "bin" / "portmap").touch(0o755)
    perhaps = ["--chain-if-there", "portmap", "--chain-if-there", "bandwidth"]
    assert main(["cni", "install", "--no-plugin", *perhaps, *places]) == 0
    written = json.loads((tmp_path / "net.d" / "10-tortie.conflist").read_text())
    assert [entry["type"] for entry in written["plugins"]] == ["tortie", "portmap"]
    assert main(["cni", "install", "--no-plugin", "--no-configuration", *places]) == 2
    assert "nothing is left" in capsys.readouterr().err


async def test_the_configuration_waits_for_the_agent(tmp_path: Path) -> None:
    """A process as in the node's container: it says what it waits for, and writes once the agent takes pods."""
    socket, configuration = tmp_path / "cni.sock", tmp_path / "net.d" / "10-tortie.conflist"
    waits = asyncio.Event()

    async def status(env: Mapping[str, str], stdin: str) -> tuple[int, str]:
        assert (env["CNI_COMMAND"], json.loads(stdin)["cniVersion"]) == ("STATUS", "1.1.0")
        return (0, "") if waits.is_set() else (1, '{"code": 50, "msg": "not yet", "details": "bus: away"}')

    command = ["cni", "install", "--no-plugin", "--when-ready", "--socket", str(socket)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tortie", *command, "--conf-dir", str(configuration.parent)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stderr.readline() == f"tortie: waiting: no agent listens at {socket}\n".encode()
            async with cni_server.serve(str(socket), status):
                while (line := await process.stderr.readline()) != b"tortie: waiting: not yet: bus: away\n":
                    assert line.startswith(b"tortie: waiting:"), line
                assert not configuration.exists()
                waits.set()
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert json.loads(configuration.read_text())["plugins"][0]["socket"] == str(socket)


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cni", "install", "--dry-run", "--chain", "portmap", "--conf-dir", str(tmp_path / "net.d")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [entry["type"] for entry in shown["plugins"]] == ["tortie", "portmap"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--chain", "bridge"], "--chain: bridge is not one of"),
        (["--label", "web"], "--label is written KEY=VALUE, not 'web'"),
        (["--network", "-x"], "--network: '-x' is not"),
        (["--cni-version", "0.1.0"], "--cni-version: 0.1.0 is not one of"),
        (["--file", "../x.conflist"], "--file: '../x.conflist' is not"),
    ],
)
def test_what_is_misused(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cni", "install", "--dry-run", *arguments]) == 2
    assert why in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin").touch()
    assert main(["cni", "install", "--bin-dir", str(tmp_path / "bin")]) == 1
    assert f"cannot write {tmp_path / 'bin'}" in capsys.readouterr().err
