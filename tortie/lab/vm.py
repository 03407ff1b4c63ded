"""A small virtual machine for what this machine's kernel cannot do: Debian's kernel over this machine's own files.

It boots in half a minute where the processor is emulated, sees the same programs and files (what it writes goes to
memory and is gone afterwards), and runs one command as root. The tools are virtme-ng, QEMU and a kernel in /boot with
its modules; nothing of this machine's network or kernel is touched.

Files are read over 9p, one question and answer for each that Python looks for, so a process would take a minute to
start: what Python reads comes as one archive, into the machine's memory and over its own place.
"""

from __future__ import annotations

import asyncio
import os
import py_compile
import re
import shlex
import shutil
import signal
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import cache_from_source
from pathlib import Path

import tortie
from tortie.lab.errors import MachineLacks

INSTALL = "apt-get install linux-image-amd64 qemu-system-x86 and pip install virtme-ng"
"""For people: what `find` looks for."""
QEMU = "qemu-system-x86_64"
BOOT = Path("/boot")
MEMORY = "2G"
EMULATED_SLOWNESS = 8
"""So many times longer everything takes without /dev/kvm, about."""
SHARED = "TORTIE_VM_SHARED"
"""The environment variable, in the machine, that names the one directory of which the outside sees what is written."""

_ARCHIVE = "tree.tar"
_PACKAGES = ("bus_schemas", "chassis", "services", "tortie", "tests")
_BEGUN = "begun"
_INSIDE = "/run/tortie-tree"
_NOT_NEEDED = (
    ".git",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "lib2to3",
    "idlelib",
    "ensurepip",
    "bin/ruff",
)
_LARGE = ("mypy", "mypyc", "*__mypyc*", "pip", "grimp", "setuptools", "ruff", "virtme*")
"""In site-packages: what only people use who change the program."""


@dataclass(frozen=True)
class Vm:
    vng: str
    kernel: Path
    emulated: bool

    @property
    def slowness(self) -> float:
        return EMULATED_SLOWNESS if self.emulated else 1


def find() -> Vm:
    """The tools for it. Raises MachineLacks with what to install."""
    if SHARED in os.environ:
        raise MachineLacks("this is a virtual machine of our own already")
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    vng = shutil.which("vng", path=path)
    kernels = [image for image in BOOT.glob("vmlinuz-*") if Path("/lib/modules", _release(image)).is_dir()]
    missing = [
        name
        for name, there in (("virtme-ng", vng), (QEMU, shutil.which(QEMU)), ("a kernel in /boot", kernels))
        if not there
    ]
    if vng is None or missing:
        raise MachineLacks(f"a virtual machine needs {', '.join(missing)}: {INSTALL}")
    return Vm(vng, max(kernels, key=_version), not os.access("/dev/kvm", os.R_OK | os.W_OK))


def _release(image: Path) -> str:
    return image.name.removeprefix("vmlinuz-")


def _version(image: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", image.name)]


def trees() -> list[Path]:
    """What Python reads: this program, its environment, the standard library."""
    program = Path(tortie.__file__).resolve().parents[1]
    standard = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})).resolve()
    found: list[Path] = []
    for path in (program, Path(sys.prefix).resolve(), standard):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def command(vm: Vm, words: Sequence[str], shared: Path, settings: Mapping[str, str]) -> list[str]:
    """What to start. `shared` is a directory that the machine may write to, with the archive in it."""
    inside = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TORTIE_LAB_SLOWNESS": f"{vm.slowness:g}",
        SHARED: str(shared),
        **settings,
    }
    here = os.getcwd()
    script = [
        "set -e",
        f"touch {shlex.quote(str(shared / _BEGUN))}",
        f"mkdir {_INSIDE} && mount -t tmpfs tortie {_INSIDE}",
        f"tar -C {_INSIDE} -xf {shlex.quote(str(shared / _ARCHIVE))}",
        *(f"mount --bind {shlex.quote(f'{_INSIDE}{path}')} {shlex.quote(str(path))}" for path in trees()),
        f"cd {shlex.quote(here)}",
        "ulimit -n 65536",
        shlex.join(["exec", "env", *(f"{name}={value}" for name, value in inside.items()), *words]),
    ]
    return [
        vm.vng,
        *("--run", str(vm.kernel), "--user", "root", "--cpus", str(os.cpu_count() or 1), "--memory", MEMORY),
        *(("--disable-kvm",) if vm.emulated else ()),
        f"--rwdir={shared}",
        "--exec",
        "\n".join(script),
    ]


async def run(vm: Vm, words: Sequence[str], shared: Path, settings: Mapping[str, str] | None = None) -> int:
    """The exit status of the command, which writes to our own output; the machine ends with us. Raises MachineLacks.

    Where the hardware's help turns out to be none, in a virtual machine itself, the processor is emulated."""
    await _pack(shared / _ARCHIVE)
    status = await _start(vm, command(vm, words, shared, settings or {}))
    if not vm.emulated and not (shared / _BEGUN).exists():
        vm = replace(vm, emulated=True)
        status = await _start(vm, command(vm, words, shared, settings or {}))
    if not (shared / _BEGUN).exists():
        raise MachineLacks(f"the virtual machine of {vm.kernel} does not start: see above")
    return status


async def _start(vm: Vm, words: list[str]) -> int:
    beside = f"{Path(vm.vng).parent}:{os.environ.get('PATH', os.defpath)}"
    child = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, env=os.environ | {"PATH": beside}, start_new_session=True
    )
    try:
        return await child.wait()
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGTERM)
            await child.wait()


async def _pack(archive: Path) -> None:
    """Raises MachineLacks."""
    names = [str(path.relative_to("/")) for path in trees()]
    standard = names[-1]
    excluded = [f"--exclude={name}" for name in _NOT_NEEDED]
    excluded += [f"--exclude=site-packages/{name}" for name in _LARGE]
    excluded += [f"--exclude={standard}/{name}" for name in ("test", "config-*", "*/test", "*/tests")]
    if sys.prefix != sys.base_prefix:
        excluded.append(f"--exclude={standard}/site-packages")
    child = await asyncio.create_subprocess_exec(
        "tar", "-C", "/", *excluded, "-cf", str(archive), *names, stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await child.communicate()
    # 1: a file changed meanwhile, which may be on a machine where people work
    if child.returncode in (0, 1):
        compiled = archive.with_name("compiled")
        await asyncio.to_thread(_compile, Path(tortie.__file__).resolve().parents[1], compiled)
        child = await asyncio.create_subprocess_exec(
            "tar", "-C", str(compiled), "-rf", str(archive), ".", stderr=asyncio.subprocess.PIPE
        )
        _, complaint = await child.communicate()
    if child.returncode not in (0, 1):
        raise MachineLacks(f"what the virtual machine reads cannot be packed: {complaint.decode().strip()}")


def _compile(program: Path, into: Path) -> None:
    """Every module of ours as Python keeps it beside its source, which not everybody lets it: an emulated processor
    takes a minute to compile what one service imports."""
    into.mkdir()
    for package in _PACKAGES:
        for source in (program / package).rglob("*.py"):
            cached = cache_from_source(str(source))
            py_compile.compile(str(source), cfile=f"{into}{cached}")
