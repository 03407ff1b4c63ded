"""What this machine and this version can do: the check before a lab, and the reasons to skip a scenario.

Asked of the kernel by trying, in a throw-away namespace: a list of loaded modules says nothing about built-in ones.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from uuid import uuid4

from bus_schemas.manifests.reading import READERS
from tortie.lab import fabric, routers
from tortie.lab.errors import CannotDo, MachineLacks
from tortie.lab.scenario import Scenario

PACKAGES = {"ip": "iproute2", "bridge": "iproute2", "nft": "nftables"}
"""Programs that a lab runs, and the Debian packages that bring them."""

_DEVICES = {
    "ipip": ("link", "add", "probe0", "type", "ipip", "local", "127.0.0.1", "remote", "127.0.0.2"),
    "vxlan": ("link", "add", "probe0", "type", "vxlan", "id", "1", "dstport", "4789"),
    "wireguard": ("link", "add", "probe0", "type", "wireguard"),
}
"""Kernel module -> the `ip` command that works only with it."""


async def check_machine() -> None:
    """Raises MachineLacks with what to do."""
    if os.geteuid() != 0:
        raise MachineLacks("a lab makes network namespaces, which needs root: run it again with sudo")
    missing = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    if missing:
        packages = " ".join(sorted(missing))
        raise MachineLacks(f"a lab needs the packages {packages}: on Debian or Ubuntu, apt-get install {packages}")
    reason = await _try(("link", "add", "probe0", "type", "veth", "peer", "name", "probe1"))
    if reason:
        raise MachineLacks(f"this machine does not let us make network namespaces with veth devices: {reason}")


async def lacks_of_kernel(scenario: Scenario) -> list[str]:
    """The modules that the scenario needs and this kernel has not."""
    return [module for module in scenario.kernel if module in _DEVICES and await _try(_DEVICES[module])]


async def reason_to_skip(scenario: Scenario) -> str:
    """Why the scenario cannot be run here; empty when it can."""
    strange = [module for module in scenario.kernel if module not in _DEVICES]
    if strange:
        return f"it needs the kernel's {strange[0]}, and this version cannot tell whether it is there"
    if lacking := await lacks_of_kernel(scenario):
        return f"it needs the kernel's {lacking[0]} device, which this kernel has not"
    named = set(re.findall(r"^[ -]*kind: *(\w+)", scenario.text, re.MULTILINE))
    unknown = sorted(named - {kind for _, kind in READERS} - {"List"})
    if unknown:
        return f"it needs the kind {', '.join(unknown)}, which this version does not know"
    missing = sorted({package for name, package in _routers(scenario) if shutil.which(routers.program(name)) is None})
    return f"it needs the packages {' '.join(missing)}: apt-get install {' '.join(missing)}" if missing else ""


def _routers(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Programs that speak BGP in it, and their Debian packages."""
    if scenario.speaks_bgp:
        yield "bird", "bird2"
    externals = [spec.external for spec in scenario.nodes.values() if spec.external is not None]
    if any(external.frr is not None for external in externals):
        yield "bgpd", "frr"
    if any(external.gobgp is not None for external in externals):
        yield "gobgpd", "gobgpd"


async def _try(command: tuple[str, ...]) -> str:
    """What is wrong with an `ip` command in a fresh namespace; empty when it works."""
    namespace = f"tortie-try-{uuid4().hex[:12]}"
    try:
        await fabric.run("ip", "netns", "add", namespace)
        await fabric.run("ip", "-n", namespace, *command)
    except CannotDo as error:
        return str(error)
    finally:
        await fabric.remove_namespaces([namespace])
    return ""
