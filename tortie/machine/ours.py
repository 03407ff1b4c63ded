"""What on a machine is Tortie's, and the steps that take it away. Pure.

Marks: routes of protocol 84 in the main table; devices and links by name and kind; `tunl0` by its alias; tables `inet
tortie*` and `bridge tortie`; CNI files that name or are our plugin; the agent's directories.

As long as pods of ours run here, what they need on this machine stays (links, routes to them, policy, forwarding, the
agent's notes), unless `pods` says that they go, too.
"""

from __future__ import annotations

from services.node_dataplane.ipip import DEVICE as TUNL
from services.node_dataplane.ipip_device import ALIAS, KERNELS_MTU
from services.node_dataplane.links import NAME as POD_LINK
from services.node_dataplane.netlink.rtnl import PROTOCOL
from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.replacement import MEANWHILE
from services.node_dataplane.tunnel import DEVICES as VXLAN
from services.node_dataplane.wireguard import DEVICES as WIREGUARD
from tortie.cni import install
from tortie.machine.plan import Kept, Plan, Step
from tortie.machine.state import Link, Machine

ROUTERS = ("bridge", "veth", "vxlan", "ipip", "wireguard", "tun", "gre")
"""Kinds of devices behind which somebody may need this machine to forward."""
TABLES = (("inet", TABLE), ("inet", MEANWHILE), ("bridge", TABLE))


def plan(machine: Machine, *, pods: bool, state_dir: str, cni_socket: str, bin_dir: str, conf_dir: str) -> Plan:
    links = [link for link in machine.links if POD_LINK.fullmatch(link.name) and link.kind == "veth"]
    stay = bool(links) and not pods
    names = {link.name for link in links}
    steps: list[Step] = []
    kept: list[Kept] = []
    for path, types, _ in machine.networks:
        if install.NAME not in types:
            continue
        if set(types) <= {install.NAME, *install.CHAINED}:
            steps.append(Step("CNI configuration", path, way="delete"))
        else:
            kept.append(Kept("CNI configuration", path, "it names plugins that Tortie does not chain: it is not ours"))
    plugin = f"{bin_dir}/{install.NAME}"
    if machine.ours_bin and not stay:
        steps.append(Step("CNI plugin", plugin, way="delete"))
    elif machine.ours_bin:
        kept.append(Kept("CNI plugin", plugin, "runtimes need it to stop the pods that run here"))
    if machine.bird:
        steps.append(Step("BIRD and its routes", f"{state_dir}/bird", way="bird"))
    for route in machine.routes:
        if route.number != PROTOCOL or route.table != "main":
            continue
        if stay and route.device in names:
            kept.append(Kept("route", route.destination, f"it leads to a pod that runs here ({route.device})"))
        else:
            steps.append(Step("route", route.destination, route.removal))
    for link in machine.links:
        _tunnel(link, steps, kept)
    for link in links:
        if stay:
            kept.append(Kept("link", link.name, "its pod runs; stop it, or say --pods"))
        else:
            steps.append(Step("link", link.name, ("ip", "link", "del", link.name)))
    for table in machine.nft_tables:
        if (table.family, table.name) in TABLES:
            named = f"{table.family} {table.name}"
            if stay:
                kept.append(Kept("nftables table", named, "it is the policy of the pods that run here"))
            else:
                command = ("nft", "delete", "table", table.family, table.name)
                steps.append(Step("nftables table", named, command))
    _sysctl(machine, stay, names, steps, kept)
    for path in (cni_socket, state_dir):
        if path not in machine.files:
            continue
        if stay and path == state_dir:
            kept.append(Kept("directory", path, "the agent's notes of the pods that run here"))
        else:
            steps.append(Step("directory" if path == state_dir else "socket", path, way="delete"))
    restart = tuple(sorted(_name(machine, link) for link in links)) if links and not stay else ()
    return Plan(tuple(steps), tuple(kept), restart)


def _tunnel(link: Link, steps: list[Step], kept: list[Kept]) -> None:
    wanted = {**dict.fromkeys(VXLAN.values(), "vxlan"), **dict.fromkeys(WIREGUARD.values(), "wireguard")}
    if link.name in wanted:
        if link.kind == wanted[link.name]:
            steps.append(Step("device", link.name, ("ip", "link", "del", link.name)))
        else:
            kept.append(
                Kept("device", link.name, f"it is of kind {link.kind or 'hardware'}: ours is a {wanted[link.name]}")
            )
    elif link.name == TUNL and link.alias == ALIAS:
        steps += [
            Step("address", f"{address} on {TUNL}", ("ip", "address", "del", address, "dev", TUNL))
            for address in link.addresses
        ]
        back = ("ip", "link", "set", TUNL, "down", "mtu", str(KERNELS_MTU), "alias", "")
        steps.append(Step("device given back to the kernel", TUNL, back))


def _sysctl(machine: Machine, stay: bool, ours: set[str], steps: list[Step], kept: list[Kept]) -> None:
    tunnels = {*VXLAN.values(), *WIREGUARD.values(), TUNL}
    others = [
        link.name
        for link in machine.links
        if link.kind in ROUTERS
        and link.name not in ours | tunnels
        and not (link.kind == "veth" and link.addresses)  # The way out of a machine that is a container.
    ]
    for path, before, written, now in machine.sysctl:
        name = f"net.{path.replace('/', '.')}"
        if now == before:
            continue
        if now != written:
            kept.append(Kept("sysctl", name, f"somebody set it to {now} since"))
        elif stay:
            kept.append(Kept("sysctl", name, "the pods that run here need it"))
        elif (others and path.endswith("forward")) or (others and path.endswith("forwarding")):
            named = ", ".join(others[:3])
            kept.append(Kept("sysctl", name, f"{named} may need it; it was {before} before Tortie came"))
        else:
            steps.append(Step("sysctl", name, ("sysctl", "-q", "-w", f"net/{path}={before}")))


def _name(machine: Machine, link: Link) -> str:
    return next((pod.name for pod in machine.pods if link.name in pod.links), f"the pod behind {link.name}")
