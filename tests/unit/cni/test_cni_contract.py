"""The plugin as a runtime runs it: a process with an environment, standard input, and nothing else. The same tests for
the Python one and for the static one of hosts without Python, which is also built with the compiler's sanitizers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.agent import PYTHON_FRONT, REPOSITORY, cni_env, run_plugin

CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "tortie"}
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")

Front = Sequence[str]


@pytest.fixture(scope="module", params=["python", "static", "sanitized"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Front:
    """The command that a runtime runs. TORTIE_CNI_FRONT names a static one that is built already."""
    if request.param == "python":
        return PYTHON_FRONT
    if request.param == "static" and (built := os.environ.get("TORTIE_CNI_FRONT")):
        return (built,)
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler: apt-get install gcc musl-tools")
    output = tmp_path_factory.mktemp("cni") / "tortie"
    source = REPOSITORY / "tortie" / "cni" / "front.c"
    if request.param == "static":
        subprocess.run([REPOSITORY / "scripts" / "build-cni-front", output], check=True)
    else:
        options = output.with_suffix(".c")  # what it holds it leaves to its end
        options.write_text('const char *__asan_default_options(void) { return "detect_leaks=0"; }')
        subprocess.run(["gcc", "-std=c11", "-O1", *SANITIZERS, "-o", output, source, options], check=True)
    return (str(output),)


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


def test_environment_and_input_arrive_unchanged_and_the_answer_is_printed(front: Front, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    conf = {**CONF, "socket": str(tmp_path / "s"), "text": 'quote " backslash \\ tab \t umlaut ü snowman ☃ \x00'}
    env = cni_env("ADD", "c1", "/var/run/netns/a")

    def answer(request: dict[str, Any]) -> bytes:
        heard.append(request)
        return json.dumps({"exit": 0, "stdout": '{"a": "\\"é\\u2603"}'}, separators=(",", ":")).encode()

    with agent(tmp_path / "s", answer):
        assert run_plugin({**env, "HOME": "/root"}, conf, front) == (0, {"a": '"é☃'})
    assert heard[0]["env"] == env
    assert json.loads(heard[0]["stdin"]) == conf


def test_an_error_of_the_agent_is_printed_with_its_exit_code(front: Front, tmp_path: Path) -> None:
    text = '{"exit":1,"stdout":"{\\"code\\":11,\\"msg\\":\\"no\\"}"}'
    with agent(tmp_path / "s", lambda _: text.encode()):
        conf = {**CONF, "socket": str(tmp_path / "s")}
        assert run_plugin(cni_env("ADD", "c1", "/n"), conf, front) == (1, {"code": 11, "msg": "no"})


def test_success_without_words_prints_nothing(front: Front, tmp_path: Path) -> None:
    with agent(tmp_path / "s", lambda _: b'{"exit":0,"stdout":""}'):
        assert run_plugin(cni_env("DEL", "c1", ""), {**CONF, "socket": str(tmp_path / "s")}, front) == (0, {})


@pytest.mark.parametrize("version", ["0.3.1", "1.1.0"])
def test_no_agent_means_try_again_later(front: Front, tmp_path: Path, version: str) -> None:
    conf = {**CONF, "cniVersion": version, "socket": str(tmp_path / "nobody")}
    code, answer = run_plugin(cni_env("ADD", "c1", "/n"), conf, front)
    assert (code, answer["code"], answer["cniVersion"]) == (1, 11, version)
    assert "does not listen on" in answer["msg"]
    assert str(tmp_path / "nobody") in answer["msg"]


def test_an_agent_that_dies_before_it_answers(front: Front, tmp_path: Path) -> None:
    with agent(tmp_path / "s", lambda _: b""):
        code, answer = run_plugin(cni_env("ADD", "c1", "/n"), {**CONF, "socket": str(tmp_path / "s")}, front)
    assert (code, answer["code"]) == (1, 11)


def test_version_needs_no_agent(front: Front) -> None:
    code, answer = run_plugin({"CNI_COMMAND": "VERSION"}, {"cniVersion": "0.4.0", "socket": "/nowhere"}, front)
    assert code == 0
    assert answer == {"cniVersion": "0.4.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


def test_started_by_hand_it_says_what_it_is(front: Front) -> None:
    code, answer = run_plugin({}, CONF, front)
    assert (code, answer["code"]) == (1, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"socket": "/a"}', "/a"),
        ('{"plugins": [{"socket": "/inner", "x": [1, {"y": null}]}], "socket": "/outer"}', "/outer"),
        ('{"socket": "/first", "a": "\\\\", "socket": "/last"}', "/last"),
        ('{"text": "\\"socket\\": \\"/no\\"", "socket":"\\/a\\u002fb"}', "/a/b"),
        (' \n{ "socket" :\t"/\\ud83d\\ude00" }', "/\U0001f600"),
    ],
)
def test_the_socket_is_the_one_of_the_top_level(front: Front, text: str, expected: str) -> None:
    done = call(front, cni_env("ADD", "c1", "/n"), text.encode())
    assert json.loads(done.stdout)["code"] == 11
    assert f"listen on {expected}:" in json.loads(done.stdout)["msg"]


def call(front: Front, env: dict[str, str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(front, input=stdin, env=env, capture_output=True, check=False)
    assert done.stderr == b""
    return done


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"socket"', b'{"socket": "/a', b'{"cniVersion": "\\u12', b"[" * 100_000, b'{"a":' * 100_000, b'"'],
)
def test_what_is_no_configuration_is_left_to_the_agent_to_refuse(front: Front, text: bytes, tmp_path: Path) -> None:
    done = call(front, cni_env("ADD", "c1", "/n"), text)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11), "nobody listens here"
    assert call(front, {"CNI_COMMAND": "VERSION"}, text).returncode == 0


def test_a_long_request_and_a_long_answer(front: Front, tmp_path: Path) -> None:
    """GC names every pod of a node."""
    conf = {**CONF, "socket": str(tmp_path / "s"), "cni.dev/valid-attachments": ["x" * 64] * 20_000}
    words = json.dumps({"long": "ü" * 500_000}, ensure_ascii=False)

    def answer(request: dict[str, Any]) -> bytes:
        assert json.loads(request["stdin"]) == conf
        return json.dumps({"exit": 0, "stdout": words}, separators=(",", ":"), ensure_ascii=False).encode()

    with agent(tmp_path / "s", answer):
        assert run_plugin(cni_env("GC", "", ""), conf, front) == (0, json.loads(words))


def test_what_is_not_utf8_arrives_as_the_replacement_character(front: Front, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> bytes:
        heard.append(request)
        return b'{"exit":0,"stdout":""}'

    text = f'{{"socket": "{tmp_path / "s"}", "a": "'.encode() + b'\xff\xc3\xa9"}'
    with agent(tmp_path / "s", answer):
        call(front, cni_env("ADD", "c\x01\x7f", "/n"), text)
    assert json.loads(heard[0]["stdin"])["a"] == "\ufffdé"
    assert heard[0]["env"]["CNI_CONTAINERID"] == "c\x01\x7f"


def test_a_path_that_no_socket_can_have(front: Front) -> None:
    code, answer = run_plugin(cni_env("ADD", "c1", "/n"), {**CONF, "socket": "/" + "x" * 200}, front)
    assert (code, answer["code"]) == (1, 11)


@pytest.mark.parametrize(
    "words", [b"nonsense", b'{"exit":0', b'{"exit":0,"stdout":"', b'{"exit":', b'{"exit":0,"stdout":"\\u1"}']
)
def test_what_is_no_answer(front: Front, words: bytes, tmp_path: Path) -> None:
    with agent(tmp_path / "s", lambda _: words):
        done = call(front, cni_env("ADD", "c1", "/n"), json.dumps({**CONF, "socket": str(tmp_path / "s")}).encode())
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(st.text() | st.sampled_from(["socket", "cniVersion"]), VALUES), st.text(), st.booleans())
def test_any_configuration_and_any_answer_pass_unchanged(
    front: Front, configuration: dict[str, Any], words: str, ascii_only: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s"
        conf = {**configuration, "socket": str(path)}
        text = json.dumps(conf, ensure_ascii=ascii_only)
        heard: list[dict[str, Any]] = []

        def answer(request: dict[str, Any]) -> bytes:
            heard.append(request)
            said = {"exit": 3, "stdout": words}
            return json.dumps(said, separators=(",", ":"), ensure_ascii=ascii_only).encode()

        env = {"CNI_COMMAND": "ADD", "CNI_ARGS": os.fsdecode(b"a;b=c")}
        with agent(path, answer):
            done = call(front, env, text.encode())
        assert heard == [{"env": env, "stdin": text}]
        assert (done.returncode, done.stdout.decode()) == (3, words + "\n" if words else "")
