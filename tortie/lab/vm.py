"""A small virtual machine for what this machine's kernel cannot do: Debian's kernel over this machine's own files.

It boots in seconds, sees the same programs and files (what it writes goes to memory and is gone afterwards), and runs
one command as root. The tools are QEMU, busybox and a kernel in /boot with its modules; nothing of this machine's
network or kernel is touched, and the machine ends with us, whatever ends us.

Where the hardware gives no help the processor is emulated and everything takes some fifteen times as long, so what
costs is left out: no udev, no guards against speculation, a clock that is read without leaving the processor, and files
that are read once (decision 32).
"""

from __future__ import annotations

import asyncio
import os
import py_compile
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

import tortie
from tortie.lab import vm_boot
from tortie.lab.errors import MachineLacks
from tortie.lab.pace import SLOWNESS

INSTALL = "apt-get install linux-image-amd64 qemu-system-x86 busybox-static"
"""For people: what `find` looks for."""
QEMU = "qemu-system-x86_64"
BOOT = Path("/boot")
MEMORY = "2G"
EMULATED_SLOWNESS = 8
"""So many times longer a deadline is without the hardware's help: on a machine that does nothing else everything takes
about fifteen times as long, and no deadline of the lab is shorter than twice what it takes."""
SHARED = "TORTIE_VM_SHARED"
"""The environment variable, in the machine, that names the one directory of which the outside sees what is written."""

_DIRECTORY = "tortie-vm-"
_ARCHIVE = "compiled.tar"
_INITRAMFS = "initramfs"
_BEGUN = "begun"
_SCRIPT = "script"
_STATUS = "status"
_SERIAL = "serial.log"
_PACKAGES = ("bus_schemas", "chassis", "services", "tortie", "tests")
_KERNEL_OPTIONS = (
    *("console=ttyS0", "quiet", "panic=-1", "audit=0"),
    *("mitigations=off", "nopti", "clocksource=tsc", "tsc=reliable", "no_timer_check"),
)


@dataclass(frozen=True)
class Vm:
    kernel: Path
    emulated: bool

    @property
    def slowness(self) -> float:
        return EMULATED_SLOWNESS if self.emulated else 1


def find() -> Vm:
    """The tools for it. Raises MachineLacks with what to install."""
    if SHARED in os.environ:
        raise MachineLacks("this is a virtual machine of our own already")
    kernels = [image for image in BOOT.glob("vmlinuz-*") if vm_boot.modules_of(image).is_dir()]
    there = {
        QEMU: shutil.which(QEMU),
        "busybox-static": shutil.which("busybox"),
        "cpio": shutil.which("cpio"),
        "modprobe": shutil.which("modprobe", path=vm_boot.PATH),
        "a kernel in /boot": kernels,
    }
    if missing := [name for name, found in there.items() if not found]:
        raise MachineLacks(f"a virtual machine needs {', '.join(missing)}: {INSTALL}")
    return Vm(max(kernels, key=_version), not _hardware_helps())


def _version(image: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", image.name)]


def _hardware_helps() -> bool:
    """The device alone says little: within a virtual machine it may be there for kernels made for it alone."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"vmx", "svm"}) and os.access("/dev/kvm", os.R_OK | os.W_OK)


@contextmanager
def shared_directory() -> Iterator[Path]:
    """One for `run`, gone afterwards; and gone are those of processes that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY}[0-9]*-*"):
        if not Path("/proc", left.name.removeprefix(_DIRECTORY).partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_DIRECTORY}{os.getpid()}-") as directory:
        yield Path(directory)


def script(vm: Vm, words: Sequence[str], shared: Path, settings: Mapping[str, str]) -> str:
    """What the machine runs: the command, whose status it writes down, and the end."""
    inside = {
        "PATH": f"{Path(sys.executable).parent}:{vm_boot.PATH}",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TORTIE_LAB_SLOWNESS": f"{SLOWNESS * vm.slowness:g}",
        SHARED: str(shared),
        **{name: os.environ[name] for name in ("CI", "TORTIE_SCENARIOS") if name in os.environ},
        **settings,
    }
    at = {name: shlex.quote(str(shared / name)) for name in (_BEGUN, _ARCHIVE, _STATUS)}
    return "\n".join(
        (
            "until [ -c /dev/vport*p1 ]; do sleep 0.1; done",
            "exec >$(echo /dev/vport*p1) 2>&1 </dev/null",
            f"touch {at[_BEGUN]}",
            f"tar -C / -xf {at[_ARCHIVE]}",
            f"cd {shlex.quote(os.getcwd())}",
            "ulimit -n 65536",
            shlex.join(["env", "-i", *(f"{name}={value}" for name, value in inside.items()), *words]),
            f"echo $? >{at[_STATUS]}",
            "sync",
            "echo b >/proc/sysrq-trigger",
            "",
        )
    )


def command(vm: Vm, shared: Path) -> list[str]:
    """What to start: QEMU, which is killed when its parent ends. Every device is named, as is what writes to us."""
    accelerator = ("tcg,thread=multi", "max,la57=off,smap=off,smep=off,pku=off") if vm.emulated else ("kvm", "host")
    return [
        *("setpriv", "--pdeathsig", "KILL", QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-accel", accelerator[0], "-cpu", accelerator[1]),
        *("-smp", str(os.cpu_count() or 1), "-m", MEMORY),
        *_files("/", vm_boot.ROOT_TAG, "readonly=on"),
        *_files(str(shared), vm_boot.SHARED_TAG, "readonly=off"),
        *("-device", "virtio-rng-pci"),
        *("-device", "virtio-serial-pci", "-chardev", "stdio,id=out,signal=off"),
        *("-device", "virtserialport,nr=1,chardev=out,name=tortie"),
        *("-serial", f"file:{shared / _SERIAL}".replace(",", ",,")),
        *("-kernel", str(vm.kernel), "-initrd", str(shared / _INITRAMFS), "-append", " ".join(_KERNEL_OPTIONS)),
    ]


def _files(path: str, tag: str, access: str) -> tuple[str, ...]:
    """A directory of this machine over 9p."""
    source = f"local,id={tag},path={path.replace(',', ',,')},security_model=none,multidevs=remap,{access}"
    return "-fsdev", source, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"


async def run(vm: Vm, words: Sequence[str], shared: Path, settings: Mapping[str, str] | None = None) -> int:
    """The exit status of the command, which writes to our own output; `shared` is a directory of its own. Raises
    MachineLacks when the machine does not start, or ends before the command does."""
    await asyncio.to_thread(vm_boot.write_initramfs, vm.kernel, shared, shared / _INITRAMFS)
    await _pack(shared / _ARCHIVE)
    (shared / _SCRIPT).write_text(script(vm, words, shared, settings or {}))
    ended = await _start(command(vm, shared))
    if (shared / _STATUS).exists():
        return int((shared / _STATUS).read_text())
    said = (shared / _SERIAL).read_text(errors="replace")[-2000:] if (shared / _SERIAL).exists() else ""
    when = "ends before its command" if (shared / _BEGUN).exists() else "does not start"
    raise MachineLacks(f"the virtual machine of {vm.kernel} {when} (QEMU: {ended}); it said last:\n{said}")


async def _start(words: list[str]) -> int:
    """QEMU's status. Its output is passed on by us: it would make our own one that does not wait for its reader. Its
    input is open and silent: at the end of it QEMU would throw away what comes out."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, start_new_session=True)
    assert child.stdout is not None
    try:
        while piece := await child.stdout.read(65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _pack(archive: Path) -> None:
    """Every module of ours as Python keeps it beside its source, which not everybody lets it: an emulated processor
    takes a minute to compile what one service imports. Raises MachineLacks."""
    compiled = archive.with_suffix("")
    await asyncio.to_thread(_compile, Path(tortie.__file__).resolve().parents[1], compiled)
    child = await asyncio.create_subprocess_exec(
        "tar", "-C", str(compiled), "-cf", str(archive), ".", stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await child.communicate()
    if child.returncode:
        raise MachineLacks(f"what the virtual machine reads cannot be packed: {complaint.decode().strip()}")


def _compile(program: Path, into: Path) -> None:
    into.mkdir()
    for package in _PACKAGES:
        for source in (program / package).rglob("*.py"):
            cached = cache_from_source(str(source))
            py_compile.compile(str(source), cfile=f"{into}{cached}")
