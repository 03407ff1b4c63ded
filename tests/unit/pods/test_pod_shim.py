"""The process that waits for a detached command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tortie.pods import shim


def run(tmp_path: Path, *command: str) -> tuple[str, str]:
    """(what it noted, what was written)."""
    note = tmp_path / "exit"
    words = (sys.executable, "-I", "-S", shim.__file__, str(note), "--", *command)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return note.read_text(), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("script", "code"), [("true", "0"), ("exit 3", "3"), ("kill -9 $$", "137"), ("kill -15 $$", "143")]
)
def test_how_a_command_ended(tmp_path: Path, script: str, code: str) -> None:
    assert run(tmp_path, "sh", "-c", script) == (code, "")


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    assert run(tmp_path, "/nowhere") == ("127", "tortie: cannot run /nowhere: No such file or directory\n")
    assert run(tmp_path, "/etc/passwd")[0] == "126"


def test_what_ends_others_does_not_end_it(tmp_path: Path) -> None:
    """It sees the end of a command that ignores nothing, though both were told to end."""
    assert run(tmp_path, "sh", "-c", "kill -TERM $PPID; exit 5")[0] == "5"
