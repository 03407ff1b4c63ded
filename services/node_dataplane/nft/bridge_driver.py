"""The hand on `bridge tortie`: commits what `bridge` writes, and says whether the table is still what was committed.

The listing that follows a commit is what a later one is compared with: the kernel's own words for what was asked of it.
"""

from __future__ import annotations

import errno
import re
import socket
from typing import Self

from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkError, NetlinkSocket
from services.node_dataplane.nft import bridge, encode
from services.node_dataplane.nft.bridge import BridgeRules
from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.nft.libnftables import Libnftables
from services.node_dataplane.nft.names import TABLE

_MOVING = re.compile(r"packets \d+ bytes \d+")
_NO_FAMILY = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


class BridgeDriver:
    """In the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)
        self._text = Libnftables()
        self.committed: BridgeRules | None = None
        """What the kernel holds; None: nothing of ours yet."""
        self._doubtful = True
        """The next commit is of the whole table."""
        self._listing = ""

    def close(self) -> None:
        self._netlink.close()
        self._text.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def commit(self, rules: BridgeRules) -> None:
        """Frames meet all of it or nothing. Raises NftError; then nothing is changed, and `committed` goes on."""
        if rules != self.committed or self._doubtful:
            self._commit(rules)

    def _commit(self, rules: BridgeRules) -> None:
        whole, self._doubtful = self._doubtful, True
        self._text.run(bridge.script(rules, whole=whole))
        self.committed = rules
        self._listing = self._list()
        self._doubtful = False

    def repair(self) -> bool:
        """Puts back what somebody else changed; whether somebody did. Raises NftError."""
        if self.committed is None:
            return False
        found = self._list() if self.exists() else ""
        if found == self._listing:
            return False
        self._doubtful = True
        self._commit(self.committed)
        return found != self._listing  # Else only a name in the listing was another one.

    def exists(self) -> bool:
        """Whether there is such a table."""
        try:
            return self._netlink.get(encode.get_table(TABLE, socket.AF_BRIDGE)) is not None
        except NetlinkError as error:
            if error.errno in _NO_FAMILY:
                return False  # This kernel has no tables of the family at all.
            raise NftError(f"cannot ask for the table {bridge.NAME}: {error}") from error

    def clear(self) -> bool:
        """Takes the table away; whether there was one. Raises NftError."""
        if not self.exists():
            return False
        self._text.run(bridge.clear())
        self.committed, self._doubtful = None, True
        return True

    def _list(self) -> str:
        return _MOVING.sub("", self._text.run(f"list table {bridge.NAME}"))
