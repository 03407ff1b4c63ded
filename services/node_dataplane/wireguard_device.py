"""The WireGuard driver: one family's device, its key, its addresses, and a peer per remote node.

A device of our name is ours. What its peers are is read back the first time and when asked for; where a peer was last
heard from is the kernel's to know, so an endpoint is written when it is wanted anew and never mended.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from services.node_dataplane import tunnel_device
from services.node_dataplane.errors import StoreError
from services.node_dataplane.netlink import rtnl
from services.node_dataplane.netlink import wireguard as encoding
from services.node_dataplane.netlink.readback import Link
from services.node_dataplane.netlink.wire import NETLINK_GENERIC, NetlinkError, NetlinkSocket
from services.node_dataplane.tunnel_device import DEVICE, SETTINGS
from services.node_dataplane.wireguard import WireguardPeer, WireguardSpec

KIND = "wireguard"
BATCH = 100


class WireguardDevice:
    """`spec` None: there shall be none."""

    def __init__(self, socket: NetlinkSocket, device: str, private_key: Callable[[], bytes]) -> None:
        """`private_key` may raise StoreError."""
        self._socket = socket
        self._generic: NetlinkSocket | None = None
        self._number = 0
        self.device = device
        self._private_key = private_key
        self._spec: WireguardSpec | None = None
        self._peers: dict[bytes, encoding.Peer] = {}
        self._cache: dict[bytes, encoding.Peer] | None = None
        """Peers that the kernel has to our best knowledge; None: read them back."""
        self._told: dict[bytes, tuple[bytes, int]] = {}
        """The endpoints that we gave the peers."""
        self.public_key = b""
        """What other nodes must know; empty while the device is not ready."""
        self.problems: list[str] = []

    def close(self) -> None:
        if self._generic is not None:
            self._generic.close()

    def want(self, spec: WireguardSpec | None, peers: Iterable[WireguardPeer]) -> None:
        self._spec = spec
        keep_alive_s = spec.keep_alive_s if spec is not None else 0
        self._peers = {
            peer.key: encoding.Peer(peer.key, peer.endpoint, peer.port, keep_alive_s, peer.allowed)
            for peer in (peers if spec is not None else ())
        }

    def reconcile(self, *, read_back: bool = False) -> list[str]:
        """Diff and apply; what was changed, one phrase each. Raises NetlinkError when the device cannot be made."""
        self.problems = []
        if read_back:
            self._cache = None
        found = tunnel_device.find(self._socket, self.device)
        if self._spec is None:
            self.public_key, self._cache = b"", None
            if found is None:
                return []
            self._socket.execute([rtnl.link_delete(found.device)], f"delete {self.device}")
            return [DEVICE]
        changed = []
        if found is None:
            self.public_key = b""
            self._create(self._spec.mtu)
            changed.append(DEVICE)
            self._cache = None
            found = tunnel_device.find(self._socket, self.device)
            assert found is not None, "a device just made can be read back"
        try:
            changed += self._configure(found, self._spec)
        except StoreError as error:
            self.problems.append(f"{self.device}: {error}")
            return changed
        if not found.up or found.mtu != self._spec.mtu:
            self._socket.execute([rtnl.link_change(found.device, up=True, mtu=self._spec.mtu)], f"set up {self.device}")
            # A device that was down has lost its routes, too.
            changed += [] if DEVICE in changed else [SETTINGS if found.up else DEVICE]
        return changed + tunnel_device.set_addresses(self._socket, found.device, self.device, self._spec.addresses)

    def addresses(self) -> tuple[str, ...]:
        return tunnel_device.tunnel_addresses(self._socket, self.device)

    def adopt(self) -> None:
        """The public key of a device that an earlier life left up."""
        found = tunnel_device.find(self._socket, self.device)
        if found is not None and found.kind == KIND and found.up:
            self.public_key = self._read(found.device).public_key

    def _create(self, mtu: int) -> None:
        (number,) = self._socket.transact([rtnl.link_add(self.device, KIND, mtu=mtu)])
        if number == errno.EOPNOTSUPP:
            raise NetlinkError(number, f"{self.device}: this kernel has no WireGuard")
        if number:
            raise NetlinkError(number, f"create {self.device}: {os.strerror(number)}")

    def _configure(self, found: Link, spec: WireguardSpec) -> list[str]:
        if self._cache is not None:
            return self._set_peers(found.device, self._cache)
        held = self._read(found.device)
        changed = []
        key = self._private_key()
        if (key, spec.port) != (held.private_key, held.port):
            request = encoding.device_set(self._family(), found.device, private_key=key, port=spec.port)
            self._execute([request], "set the key and the port")
            changed.append("port" if key == held.private_key else "key")
            held = self._read(found.device)
        self.public_key = held.public_key
        return changed + self._set_peers(found.device, held.peers)

    def _set_peers(self, index: int, held: dict[bytes, encoding.Peer]) -> list[str]:
        number = self._family()
        requests: list[bytes] = []
        what = []
        for key, peer in self._peers.items():
            before = held.get(key)
            end = (peer.endpoint, peer.port)
            if before is not None and self._told.get(key) == end:
                before = before._replace(endpoint=peer.endpoint, port=peer.port)
            if before is not None and before._replace(handshake=0) == peer:
                self._told[key] = end
                continue
            replace = before is None or not before.allowed <= peer.allowed
            requests += encoding.peer_set(number, index, peer, replace=replace)
            what.append("peer")
        for key in held.keys() - self._peers.keys():
            requests.append(encoding.peer_remove(number, index, key))
            what.append("peer")
        self._cache = None
        for start in range(0, len(requests), BATCH):
            self._execute(requests[start : start + BATCH], "set its peers")
        self._cache = dict(self._peers)
        self._told = {key: (peer.endpoint, peer.port) for key, peer in self._peers.items()}
        return what

    def _read(self, index: int) -> encoding.Device:
        return encoding.device(body for _, body in self._open().dump(encoding.device_dump(self._family(), index)))

    def _execute(self, requests: list[bytes], what: str) -> None:
        self._open().execute(requests, f"{self.device}: {what}")

    def _open(self) -> NetlinkSocket:
        if self._generic is None:
            self._generic = NetlinkSocket(NETLINK_GENERIC)
        return self._generic

    def _family(self) -> int:
        """Known once there is a device, as that is when the kernel loads its module."""
        if not self._number:
            row = self._open().get(encoding.family_request())
            if row is None:
                raise NetlinkError(errno.ENOENT, f"{self.device}: the kernel does not answer for WireGuard")
            self._number = encoding.family(row[1])
        return self._number
