"""What is the Python plugin's own, and what `tortie cni install` writes. What both do: test_cni_contract.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tortie.cni import install, plugin


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({"socket": "/a"}, "/a"),
        ({}, "/default"),
        ({"other": {"socket": "/inner"}, "socket": "/outer"}, "/outer"),
        ({"socket": 5}, "/default"),
        ({"text": '"socket"', "socket": "/a"}, "/a"),
    ],
)
def test_the_socket_of_the_configuration(configuration: dict[str, Any], expected: str) -> None:
    assert plugin.field(json.dumps(configuration), "socket", "/default") == expected
    assert plugin.field(json.dumps(configuration, indent=2), "socket", "/default") == expected


def test_it_imports_nothing_that_costs() -> None:
    program = """
import sys
source = open(sys.argv[1]).read()
before = set(sys.modules)
exec(compile(source, "plugin", "exec"), {"__name__": "plugin"})
print(*set(sys.modules) - before)
"""
    command = [sys.executable, "-I", "-S", "-c", program, str(plugin.__file__)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == []


def test_the_installed_executable_runs_by_itself(tmp_path: Path) -> None:
    path = install.install_plugin(tmp_path / "bin")
    done = subprocess.run([path], input=b"{}", env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True)
    assert "supportedVersions" in json.loads(done.stdout)


def test_an_interpreter_of_another_bytecode_takes_the_text(tmp_path: Path) -> None:
    path = install.install_plugin(tmp_path / "bin")
    text = path.read_text()
    path.write_text(text.replace(repr(importlib.util.MAGIC_NUMBER), "b'another'"))
    assert path.read_text() != text
    done = subprocess.run([path], input=b"{}", env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True)
    assert "supportedVersions" in json.loads(done.stdout)


def test_the_installed_configuration(tmp_path: Path) -> None:
    path = install.install_conflist(tmp_path / "net.d", install.conflist(socket="/run/x.sock"))
    written = json.loads(path.read_text())
    (entry,) = written["plugins"]
    assert (entry["type"], entry["socket"]) == ("tortie", "/run/x.sock")
    assert entry["capabilities"]["ips"]
    assert "socket" not in install.conflist()["plugins"][0]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_chained_plugins_and_labels(tmp_path: Path) -> None:
    made = install.conflist(labels={"app": "web"}, chain=["portmap", "bandwidth"])
    ours, portmap, bandwidth = made["plugins"]
    assert ours["args"]["cni"]["labels"] == [{"key": "app", "value": "web"}]
    assert portmap["capabilities"] == {"portMappings": True}
    assert bandwidth["capabilities"] == {"bandwidth": True}
    (tmp_path / "portmap").touch(0o755)
    assert install.absent(["portmap", "bandwidth"], [tmp_path]) == ["bandwidth"]
