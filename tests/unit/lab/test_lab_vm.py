"""What is started for a command in a virtual machine."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from tortie.lab import vm
from tortie.lab.errors import MachineLacks
from tortie.lab.pace import SLOWNESS
from tortie.lab.vm import Vm

EMULATED = Vm(Path("/boot/vmlinuz-6.1"), emulated=True)
HELPED = replace(EMULATED, emulated=False)


def test_a_command_survives_the_shell_on_its_way() -> None:
    words = ["sh", "-c", "echo 'two  words' \"$HOME\""]
    script = vm.script(EMULATED, words, Path("/tmp/sha red"), {"COLOUR": "a b"}).splitlines()
    (line,) = (line for line in script if line.startswith("env "))
    assert shlex.split(line)[-3:] == words
    assert "COLOUR=a b" in shlex.split(line)
    assert shlex.split(script[2]) == ["touch", "/tmp/sha red/begun"]


@pytest.mark.parametrize("machine", [EMULATED, HELPED], ids=["emulated", "helped"])
def test_deadlines_are_longer_where_the_processor_is_emulated(machine: Vm) -> None:
    script = vm.script(machine, ["true"], Path("/tmp/shared"), {})
    assert f"TORTIE_LAB_SLOWNESS={SLOWNESS * machine.slowness:g} " in script
    assert machine.slowness == (vm.EMULATED_SLOWNESS if machine.emulated else 1)
    assert ("tcg,thread=multi" in vm.command(machine, Path("/tmp/shared"))) is machine.emulated


def test_the_machine_ends_with_whoever_started_it() -> None:
    assert vm.command(EMULATED, Path("/tmp/shared"))[:4] == ["setpriv", "--pdeathsig", "KILL", vm.QEMU]


def test_a_comma_in_a_path_does_not_end_an_option() -> None:
    words = vm.command(EMULATED, Path("/tmp/a,b"))
    assert any("path=/tmp/a,,b," in word for word in words)
    assert "file:/tmp/a,,b/serial.log" in words


def test_missing_tools_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vm, "BOOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineLacks, match=r"needs qemu-system-x86_64, .*a kernel in /boot: apt-get install"):
        vm.find()


def test_there_is_no_machine_in_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vm.SHARED, "/tmp/shared")
    with pytest.raises(MachineLacks, match="already"):
        vm.find()


def test_what_a_killed_process_left_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"tortie-vm-{2**22 + 1}-left").mkdir()  # no process has such a number
    with vm.shared_directory() as mine, vm.shared_directory() as other:
        assert {mine, other} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
