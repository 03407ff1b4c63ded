"""Makes a topology real with `ip -batch`, and takes it away again.

The scripts are pure functions of the topology; the two verbs at the end run them. No device is ever in the machine's
own namespace: both ends of a cable are created in the namespaces where they belong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tortie import netns
from tortie.lab.errors import CannotDo
from tortie.lab.topology import Cable, Host, Topology

ANSWERING_PORT = 7
"""The one listener of the outside host, to which all of its ports lead."""

OUTSIDE_RULESET = f"""
table inet lab {{
    chain every_port_answers {{
        type nat hook prerouting priority dstnat
        meta l4proto {{ tcp, udp }} redirect to :{ANSWERING_PORT}
    }}
}}
"""


def skeleton(hosts: Iterable[Host], cables: Iterable[Cable]) -> str:
    """Namespaces, and the cables between them."""
    lines = [f"netns add {host.netns}" for host in hosts]
    lines += [
        f"link add {left} netns {left_ns} type veth peer name {right} netns {right_ns}"
        for (left_ns, left), (right_ns, right) in ((cable.left, cable.right) for cable in cables)
    ]
    return "\n".join(lines) + "\n"


def interior(host: Host) -> str:
    """Everything inside one host's namespace."""
    lines = ["link set lo up"]
    lines += [f"link add {device.name} type bridge" for device in host.devices if device.bridge]
    for device in host.devices:
        if device.master:
            lines.append(f"link set {device.name} master {device.master}")
        for address in device.addresses:
            nodad = " nodad" if ":" in address else ""
            lines.append(f"addr add {address} dev {device.name}{nodad}")
        lines.append(f"link set {device.name} up")
    lines += [f"route add default via {gateway}" for gateway in host.gateways]
    return "\n".join(lines) + "\n"


async def build(topology: Topology) -> None:
    """Raises CannotDo with what the kernel or `ip` said."""
    await run("ip", "-batch", "-", stdin=skeleton(topology.hosts, topology.cables))
    async with asyncio.TaskGroup() as group:
        for host in topology.hosts:
            group.create_task(run("ip", "-n", host.netns, "-batch", "-", stdin=interior(host)))
    for host in topology.hosts:
        if host.forwards:
            netns.write_sysctl(host.netns, "net/ipv4/ip_forward", "1")
            netns.write_sysctl(host.netns, "net/ipv6/conf/all/forwarding", "1")
    await run("ip", "netns", "exec", topology.outside.netns, "nft", "-f", "-", stdin=OUTSIDE_RULESET)


async def add_namespace(name: str) -> None:
    await run("ip", "-batch", "-", stdin=f"netns add {name}\n")
    await run("ip", "-n", name, "link", "set", "lo", "up")


async def remove_namespaces(names: Iterable[str]) -> None:
    """Their devices go with them. Names that are not there are no fault."""
    script = "".join(f"netns delete {name}\n" for name in names if netns.exists(name))
    if script:
        await run("ip", "-force", "-batch", "-", stdin=script)


async def run(*argv: str, stdin: str = "") -> str:
    """The standard output of a short command. Raises CannotDo with its standard error."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate(stdin.encode())
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        raise CannotDo(f"`{' '.join(argv)}` said: {err.decode().strip() or out.decode().strip()}")
    return out.decode()
