"""The IP-in-IP driver: `tunl0`, its address and its MTU.

The kernel makes `tunl0` itself in every network namespace once it has IP in IP, and it cannot be deleted. So it is ours
not by its name but by its alias, `tortie`, which is given to it while we use it; when it is not wanted any more it gets
back everything that it had. One that somebody else has up or has given addresses is his: it is not touched, and named.
"""

from __future__ import annotations

import errno

from services.node_dataplane import tunnel_device
from services.node_dataplane.ipip import DEVICE as NAME
from services.node_dataplane.ipip import IpipSpec
from services.node_dataplane.netlink import rtnl
from services.node_dataplane.netlink.wire import NetlinkError, NetlinkSocket
from services.node_dataplane.tunnel_device import DEVICE, SETTINGS

KIND = "ipip"
ALIAS = "tortie"
KERNELS_MTU = 1480
"""What the kernel gives it when it makes it."""


class IpipDevice:
    """`spec` None: it shall not be used."""

    device = NAME

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self._spec: IpipSpec | None = None
        self.problems: list[str] = []

    def want(self, spec: IpipSpec | None) -> None:
        self._spec = spec

    def reconcile(self, *, read_back: bool = False) -> list[str]:
        """What was changed, one phrase each. It is always read back: there is no more to it than to see whether that is
        necessary. Raises NetlinkError when the kernel has no IP in IP."""
        self.problems = []
        if self._spec is None:
            return self._leave()
        found = tunnel_device.find(self._socket, NAME)
        changed = []
        if found is None:
            self._create(self._spec.mtu)
            changed.append(DEVICE)
            found = tunnel_device.find(self._socket, NAME)
            assert found is not None, "a device just made can be read back"
        held = tunnel_device.tunnel_addresses(self._socket, NAME)
        if found.kind != KIND or (found.alias != ALIAS and (found.up or held)):
            what = ", ".join(held) or found.kind
            self.problems.append(
                f"{NAME} is somebody else's ({what}): pools with ipipMode cannot be reached through it"
            )
            return []
        if not found.up or found.mtu != self._spec.mtu or found.alias != ALIAS:
            change = rtnl.link_change(found.device, up=True, mtu=self._spec.mtu, alias=ALIAS)
            self._socket.execute([change], f"set up {NAME}")
            changed.append(SETTINGS if found.up else DEVICE)
        return changed + tunnel_device.set_addresses(self._socket, found.device, NAME, self._spec.addresses)

    def addresses(self) -> tuple[str, ...]:
        found = tunnel_device.find(self._socket, NAME)
        ours = found is not None and found.alias == ALIAS
        return tunnel_device.tunnel_addresses(self._socket, NAME) if ours else ()

    def _create(self, mtu: int) -> None:
        """The kernel loads the module for this and then has the device already, but in namespaces to which it gives no
        devices of its own (net.core.fb_tunnels_only_for_init_net)."""
        (number,) = self._socket.transact([rtnl.link_add(NAME, KIND, mtu=mtu)])
        if number == errno.EOPNOTSUPP:
            raise NetlinkError(number, f"{NAME}: this kernel has no IP in IP (module ipip)")
        if number not in (0, errno.EEXIST):
            raise NetlinkError(
                number, f"create {NAME}: {self._socket.complaint or errno.errorcode.get(number, number)}"
            )

    def _leave(self) -> list[str]:
        found = tunnel_device.find(self._socket, NAME)
        if found is None or found.alias != ALIAS:
            return []
        tunnel_device.set_addresses(self._socket, found.device, NAME, ())
        change = rtnl.link_change(found.device, up=False, mtu=KERNELS_MTU, alias="")
        self._socket.execute([change], f"give {NAME} back to the kernel")
        return [DEVICE]
