"""The plugin as a runtime runs it: a process with an environment, standard input, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import cni_env, run_plugin
from tortie.cni import install, plugin

CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "tortie"}


@contextmanager
def agent(path: Path, answer: Callable[[dict[str, Any]], bytes]) -> Iterator[None]:
    """Answers one connection."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            data = b""
            while part := connection.recv(65536):
                data += part
            connection.sendall(answer(json.loads(data)))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        server.close()


def test_environment_and_input_arrive_unchanged_and_the_answer_is_printed(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    conf = {**CONF, "socket": str(tmp_path / "s"), "text": 'quote " backslash \\ tab \t umlaut ü snowman ☃ \x00'}
    env = cni_env("ADD", "c1", "/var/run/netns/a")

    def answer(request: dict[str, Any]) -> bytes:
        heard.append(request)
        return json.dumps({"exit": 0, "stdout": '{"a": "\\"é\\u2603"}'}, separators=(",", ":")).encode()

    with agent(tmp_path / "s", answer):
        assert run_plugin({**env, "HOME": "/root"}, conf) == (0, {"a": '"é☃'})
    assert heard[0]["env"] == env
    assert json.loads(heard[0]["stdin"]) == conf


def test_an_error_of_the_agent_is_printed_with_its_exit_code(tmp_path: Path) -> None:
    text = '{"exit":1,"stdout":"{\\"code\\":11,\\"msg\\":\\"no\\"}"}'
    with agent(tmp_path / "s", lambda _: text.encode()):
        conf = {**CONF, "socket": str(tmp_path / "s")}
        assert run_plugin(cni_env("ADD", "c1", "/n"), conf) == (1, {"code": 11, "msg": "no"})


def test_success_without_words_prints_nothing(tmp_path: Path) -> None:
    with agent(tmp_path / "s", lambda _: b'{"exit":0,"stdout":""}'):
        assert run_plugin(cni_env("DEL", "c1", ""), {**CONF, "socket": str(tmp_path / "s")}) == (0, {})


@pytest.mark.parametrize("version", ["0.3.1", "1.1.0"])
def test_no_agent_means_try_again_later(tmp_path: Path, version: str) -> None:
    conf = {**CONF, "cniVersion": version, "socket": str(tmp_path / "nobody")}
    code, answer = run_plugin(cni_env("ADD", "c1", "/n"), conf)
    assert (code, answer["code"], answer["cniVersion"]) == (1, 11, version)
    assert "does not listen on" in answer["msg"]
    assert str(tmp_path / "nobody") in answer["msg"]


def test_an_agent_that_dies_before_it_answers(tmp_path: Path) -> None:
    with agent(tmp_path / "s", lambda _: b""):
        code, answer = run_plugin(cni_env("ADD", "c1", "/n"), {**CONF, "socket": str(tmp_path / "s")})
    assert (code, answer["code"]) == (1, 11)


def test_version_needs_no_agent() -> None:
    code, answer = run_plugin({"CNI_COMMAND": "VERSION"}, {"cniVersion": "0.4.0", "socket": "/nowhere"})
    assert code == 0
    assert answer == {"cniVersion": "0.4.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


def test_started_by_hand_it_says_what_it_is() -> None:
    code, answer = run_plugin({}, CONF)
    assert (code, answer["code"]) == (1, 4)


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
