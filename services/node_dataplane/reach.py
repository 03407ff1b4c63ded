"""From which of the node's addresses the kernel sends to somewhere: what `can-reach` goes by.

A UDP socket is connected, which sends nothing and lets the kernel choose route and source. A name is resolved first,
off the event loop and again every minute; while that fails, what it meant last still counts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from services.node_dataplane.autodetection import Asked, Reach

RESOLVE_S = 60.0
RETRY_S = 5.0
_PORT = 80
"""Any will do, nothing is sent; Calico takes this one."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Reaches:
    def __init__(self, asked: Mapping[int, Asked], news: Callable[[int, Reach], None]) -> None:
        """`news` is told the family, whatever it is, each time that somebody looks."""
        kinds = {f: a for f, a in asked.items() if a.method.kind == "can-reach" and not a.none and not a.address}
        self._targets = {family: a.method.target for family, a in kinds.items()}
        self._addresses: dict[int, str] = {
            family: target for family, target in self._targets.items() if _version(target) is not None
        }
        self._troubles: dict[int, str] = {}
        self._news = news

    def look(self) -> None:
        """Ask the kernel again."""
        for family, target in self._targets.items():
            address = self._addresses.get(family)
            if address is None:
                self._news(family, Reach(trouble=self._troubles.get(family, f"{target} is being resolved")))
            else:
                self._news(family, source(address, family))

    async def run(self) -> None:
        """For ever: keeps names resolved."""
        while any(_version(target) is None for target in self._targets.values()):
            resolved = await asyncio.to_thread(self.resolve)
            self.look()
            await asyncio.sleep(RESOLVE_S if resolved else RETRY_S)

    def resolve(self) -> bool:
        """Ask for the names, which may take seconds; whether all are known."""
        all_known = True
        for family, name in self._targets.items():
            if _version(name) is not None:
                continue
            try:
                found = socket.getaddrinfo(name, _PORT, family=_FAMILIES[family], type=socket.SOCK_DGRAM)
            except OSError as error:
                all_known = False
                self._troubles[family] = f"the name cannot be resolved: {error.strerror or error}"
            else:
                self._addresses[family] = str(found[0][4][0])
        return all_known


def source(address: str, family: int) -> Reach:
    """From where the kernel of this thread's namespace sends to `address`."""
    if _version(address) != family:
        return Reach(trouble=f"it is not an IPv{family} address")
    with socket.socket(_FAMILIES[family], socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, _PORT))
        except OSError as error:
            return Reach(trouble=f"there is no way there: {error.strerror}")
        return Reach(source=str(probe.getsockname()[0]))


def _version(text: str) -> int | None:
    try:
        return ip_address(text).version
    except ValueError:
        return None
