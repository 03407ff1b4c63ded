"""Kernel settings under /proc/sys/net. They are those of the network namespace in which the calling thread stands.

In a container /proc/sys is mounted read-only. Whoever runs the agent in one mounts the host's /proc/sys/net at
/mnt/proc/sys/net, and nothing else of it: also there the kernel goes by the calling thread's namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

OF_HOST = "/mnt/proc/sys/net"


@cache
def _root() -> str:
    return OF_HOST if os.path.isdir(OF_HOST) else "/proc/sys/net"


def write(settings: Iterable[tuple[str, str]]) -> None:
    """Write (path below /proc/sys/net, value) pairs. Raises OSError that names the setting."""
    for path, value in settings:
        full = f"{_root()}/{path}"
        fd = os.open(full, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, f"cannot set {path} to {value}: {error.strerror}") from error
        finally:
            os.close(fd)


def read(path: str) -> str:
    """The value without its newline. Raises OSError."""
    with open(f"{_root()}/{path}") as file:
        return file.read().strip()


def of_pod_link(link: str, *, ipv6: bool) -> list[tuple[str, str]]:
    """What the node's end of a pod link needs (Calico's settings but for route_localnet, which would open the node's
    loopback to its pods). rp_filter stays the node's default: spoofed sources are the policy table's business."""
    settings = [
        (f"ipv4/conf/{link}/proxy_arp", "1"),
        (f"ipv4/neigh/{link}/proxy_delay", "0"),
        (f"ipv4/conf/{link}/forwarding", "1"),
    ]
    if ipv6:
        settings += [
            (f"ipv6/conf/{link}/disable_ipv6", "0"),
            (f"ipv6/conf/{link}/accept_dad", "0"),
            (f"ipv6/conf/{link}/forwarding", "1"),
            (f"ipv6/conf/{link}/proxy_ndp", "1"),
        ]
    if ipv6 or os.path.exists(f"{_root()}/ipv6"):
        settings.append((f"ipv6/conf/{link}/accept_ra", "0"))  # A pod can speak IPv6 whether it has an address or not.
    return settings


def in_pod(interface: str) -> list[tuple[str, str]]:
    """The pod's end, for pods with an IPv6 address: usable at once, and no router but ours."""
    return [
        (f"ipv6/conf/{interface}/disable_ipv6", "0"),
        (f"ipv6/conf/{interface}/accept_dad", "0"),
        (f"ipv6/conf/{interface}/accept_ra", "0"),
    ]


def forwarding(on: bool, *, ipv6: bool) -> list[tuple[str, str]]:
    """Whether a pod may route (`container_settings.allow_ip_forwarding`)."""
    value = "1" if on else "0"
    return [("ipv4/ip_forward", value), *([("ipv6/conf/all/forwarding", value)] if ipv6 else [])]


def of_node(uplinks: Iterable[str], *, ipv6: bool) -> list[tuple[str, str]]:
    """The node is a router. An uplink that lives on router advertisements keeps them (accept_ra 2), which forwarding
    would otherwise switch off."""
    settings = [("ipv4/ip_forward", "1")]
    if ipv6:
        for link in uplinks:
            if read(f"ipv6/conf/{link}/accept_ra") == "1":
                settings.append((f"ipv6/conf/{link}/accept_ra", "2"))
        settings.append(("ipv6/conf/all/forwarding", "1"))
    return settings
