"""What the image has for hosts without Python: the static CNI front end, compiled while the image was built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agent import REPOSITORY
from tests.support.compose import FRONT, IMAGE, Stack

pytestmark = [pytest.mark.root, pytest.mark.compose]

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def in_image(stack: Stack, *command: str, text: str = "", options: tuple[str, ...] = ()) -> str:
    words = ("docker", "run", "--rm", "-i", "--network", "none", *options, IMAGE, *command)
    return stack.machine.run(*words, text=text)


@pytest.fixture
def front(stack: Stack, tmp_path: Path) -> Path:
    """The program, taken out of the image."""
    copied = tmp_path / "tortie"
    container = stack.machine.run("docker", "create", "--network", "none", IMAGE).strip()
    stack.machine.run("docker", "cp", f"{container}:{FRONT}", str(copied))
    stack.machine.run("docker", "rm", container)
    return copied


def test_it_answers_in_the_image(stack: Stack) -> None:
    asked = '{"cniVersion": "1.0.0", "name": "net", "type": "tortie"}'
    answer = json.loads(in_image(stack, FRONT, text=asked, options=("--env", "CNI_COMMAND=VERSION")))
    assert answer == {"cniVersion": "1.0.0", "supportedVersions": VERSIONS}


def test_it_runs_where_there_is_nothing_else(front: Path) -> None:
    done = subprocess.run(
        ("chroot", front.parent, "/tortie"),
        input="",
        env={"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["supportedVersions"] == VERSIONS
    assert front.stat().st_size < 1_000_000


def test_it_keeps_the_contract_of_the_plugin_in_python(front: Path) -> None:
    done = subprocess.run(
        (
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "static",
            "tests/unit/cni/test_cni_contract.py",
        ),
        cwd=REPOSITORY,
        env={**os.environ, "TORTIE_CNI_FRONT": str(front)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_nothing_that_compiled_it_is_in_the_image(stack: Stack) -> None:
    found = in_image(stack, "sh", "-c", "command -v cc gcc musl-gcc ld; ls -d /tmp/* /build; true")
    assert found == ""


def test_a_container_of_it_equips_a_host(stack: Stack, front: Path, tmp_path: Path) -> None:
    """By the line in docs/compose.md, with other directories."""
    page = (REPOSITORY / "docs" / "compose.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("docker run ")]
    places = {"/opt/cni/bin": tmp_path / "bin", "/etc/cni/net.d": tmp_path / "net.d"}
    for theirs, ours in places.items():
        assert f"-v {theirs}:{theirs}" in line
        line = line.replace(f"-v {theirs}:", f"-v {ours}:")
    line = line.replace("docker run", "docker run --network none")
    assert stack.typed(line).stdout.split() == ["/opt/cni/bin/tortie", "/etc/cni/net.d/10-tortie.conflist"]
    assert (tmp_path / "bin" / "tortie").read_bytes() == front.read_bytes()
    assert (tmp_path / "bin" / "tortie").stat().st_mode & 0o777 == 0o755
    assert json.loads((tmp_path / "net.d" / "10-tortie.conflist").read_text())["plugins"][0]["type"] == "tortie"
