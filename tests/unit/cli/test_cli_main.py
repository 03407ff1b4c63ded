"""The command line itself: what is found, what it loads, how it fails. No cluster, no api."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bus_schemas import VERSION
from tests.support.api import CALICO_POLICY, NAMESPACE, POOL, joined
from tortie.cli.main import COMMANDS, main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORTIE_API", f"unix:{tmp_path}/absent.sock")


def test_help_names_every_command(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


def test_help_loads_no_command() -> None:
    """Start-up stays fast because nothing is imported that the command does not need."""
    program = (
        "import sys; from tortie.cli.main import main; main(['--help'])\n"
        "heavy = ('aiohttp', 'nats', 'msgspec', 'yaml', 'bus_schemas', 'chassis', 'services', 'http')\n"
        "sys.exit(','.join(name for name in heavy if name in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("line", [["nonsense"], ["get"], ["get", "--nonsense", "pods"], [], ["get", "pods", "-o", "x"]])
def test_wrong_usage_is_2(line: list[str]) -> None:
    assert main(line) == 2


@pytest.mark.parametrize(
    "line",
    [
        ["apply"],
        ["delete"],
        ["delete", "pods"],
        ["validate"],
        ["serve"],
        ["serve", "nonsense"],
        ["get", "a/b/c/d"],
        ["get", "pods", "--api", "ftp://x"],
        ["get", "pods", "--api", "http://x:y"],
        ["get", "pods", "--api", "http://x:99999"],
        ["validate", "-f", "/nowhere.yaml"],
    ],
)
def test_what_makes_no_sense_is_2_and_one_sentence(line: list[str], capsys: Capture) -> None:
    assert main(line) == 2
    said = capsys.readouterr().err
    assert said.startswith("tortie: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "line", [["get", "pods"], ["status"], ["ipam", "show"], ["events", "tail"], ["delete", "pod", "a"]]
)
def test_nobody_to_ask_is_2_and_says_where(line: list[str], capsys: Capture, tmp_path: Path) -> None:
    assert main(line) == 2
    assert capsys.readouterr().err == f"tortie: no api at unix:{tmp_path}/absent.sock: there is no such socket\n"


def test_validate_accepts_what_is_right(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.yaml").write_text(joined(POOL, NAMESPACE))
    (tmp_path / "b.yaml").write_text(CALICO_POLICY)
    assert main(["validate", "-f", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "3 documents are right\n"


def test_validate_names_file_line_path_and_reason(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.yaml"
    overlapping = POOL.replace("default-ipv4-ippool", "other").replace("10.244.0.0/16", "10.244.7.0/24")
    file.write_text(joined(NAMESPACE, POOL, POOL.replace("26", "99"), overlapping))
    assert main(["validate", "-f", str(file)]) == 1
    head, *details = capsys.readouterr().err.splitlines()
    assert head == "tortie: 2 of 4 documents are wrong"
    assert f"{file}:10 document 3: IPPool/default-ipv4-ippool: spec.blockSize: " in details[0]
    assert "document 4: IPPool/other: spec.cidr: " in details[1]


def test_validate_reads_stdin(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from io import StringIO

    monkeypatch.setattr(sys, "stdin", StringIO(NAMESPACE))
    assert main(["validate", "-f", "-"]) == 0
    assert capsys.readouterr().out == "1 document is right\n"


def test_version(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tortie {VERSION}\n"
    assert main(["version", "--api", "unix:/a"]) == 0
    assert capsys.readouterr().out == f"tortie {VERSION}\nasks the api at unix:/a (as TORTIE_API or --api says)\n"


def test_a_port_in_use_ends_serve_nats_with_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "nats", "--store", str(tmp_path), "--port", str(port)]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"tortie: no nats-server at 127.0.0.1:{port}: ")
    assert "address already in use" in said
    assert said.count("\n") == 1
