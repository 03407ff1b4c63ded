"""What is started for a command in a virtual machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tortie.lab import vm
from tortie.lab.errors import MachineLacks
from tortie.lab.vm import Vm


def test_a_command_survives_every_shell_on_its_way() -> None:
    machine = Vm("/opt/vng", Path("/boot/vmlinuz-6.1"), emulated=True)
    words = ["sh", "-c", "echo 'two  words' \"$HOME\""]
    started = vm.command(machine, words, Path("/tmp/sha red"), {"COLOUR": "a b"})
    assert "--disable-kvm" in started
    script = started[-1].splitlines()
    assert shlex.split(script[-1])[-3:] == words
    assert "COLOUR=a b" in shlex.split(script[-1])
    assert f"TORTIE_LAB_SLOWNESS={vm.EMULATED_SLOWNESS}" in script[-1]
    assert shlex.split(script[1]) == ["touch", "/tmp/sha red/begun"]


def test_hardware_that_helps_is_as_fast_as_this_machine() -> None:
    machine = Vm("/opt/vng", Path("/boot/vmlinuz-6.1"), emulated=False)
    assert machine.slowness == 1
    assert "--disable-kvm" not in vm.command(machine, ["true"], Path("/tmp/shared"), {})


def test_what_python_reads_is_brought_along() -> None:
    trees = vm.trees()
    for needed in (Path(vm.__file__), Path(shlex.__file__), Path(sys.prefix)):
        assert any(needed.resolve().is_relative_to(tree) for tree in trees)


def test_missing_tools_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vm, "BOOT", tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineLacks, match=r"needs virtme-ng, qemu-system-x86_64, a kernel in /boot: apt-get install"):
        vm.find()


def test_there_is_no_machine_in_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vm.SHARED, "/tmp/shared")
    with pytest.raises(MachineLacks, match="already"):
        vm.find()
