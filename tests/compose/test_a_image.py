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
