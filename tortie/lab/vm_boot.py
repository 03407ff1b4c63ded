"""The first file system of the virtual machine: what loads the modules that it needs to see this machine's files, puts
memory over them for what is written, and hands over to the script in the shared directory."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from tortie.lab.errors import MachineLacks

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT_TAG, SHARED_TAG = "tortie-root", "tortie-shared"
"""What the two directories are called on the way into the machine."""

_MODULES = ("virtio_pci", "9p", "9pnet_virtio", "virtio_console", "virtio-rng", "overlay")

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
die() {{ echo "tortie: $1" >/dev/console; poweroff -f; }}
for module in /modules/*; do insmod $module || die "cannot load $module"; done
p9=trans=virtio,version=9p2000.L,msize=512000
mkdir -p /lower /upper /root
mount -t 9p -o $p9,ro,cache=loose {root} /lower || die "cannot read the files outside"
mount -t tmpfs -o size=75% tortie /upper && mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work tortie /root || die "no overlay"
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mount -t devtmpfs devtmpfs /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tortie /root/dev/shm
mount -t tmpfs tortie /root/run
mkdir -p /root{shared}
mount -t 9p -o $p9 {share} /root{shared} || die "cannot reach the shared directory"
ip link set lo up
echo tortie-vm >/root/proc/sys/kernel/hostname
exec switch_root /root /bin/sh {shared}/script
"""


def modules_of(image: Path) -> Path:
    return Path("/lib/modules", image.name.removeprefix("vmlinuz-"))


def init(shared: Path) -> str:
    return _INIT.format(root=ROOT_TAG, share=SHARED_TAG, shared=shlex.quote(str(shared)))


def write_initramfs(image: Path, shared: Path, archive: Path) -> None:
    """Raises MachineLacks with the module that the kernel has not."""
    tree = archive.with_suffix(".tree")
    for directory in ("bin", "modules", "dev", "proc"):
        (tree / directory).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tree / "bin" / "busybox")
    for number, module in enumerate(_in_order(image)):
        shutil.copy(module, tree / "modules" / f"{number:02}-{module.name}")
    (tree / "init").write_text(init(shared))
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    words = ("cpio", "--quiet", "-o", "-H", "newc", "-F", str(archive))
    subprocess.run(words, cwd=tree, input=names, text=True, check=True)
    shutil.rmtree(tree)


def _in_order(image: Path) -> list[Path]:
    """Files of modules, each after those that it needs."""
    release = modules_of(image).name
    found: list[Path] = []
    for module in _MODULES:
        words = ("modprobe", "--show-depends", "--set-version", release, module)
        said = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": PATH})
        if said.returncode:
            raise MachineLacks(f"the kernel {release} has no module {module}: {said.stderr.strip()}")
        for line in said.stdout.splitlines():
            kind, *rest = line.split()
            if kind == "insmod" and Path(rest[0]) not in found:
                found.append(Path(rest[0]))
    return found
