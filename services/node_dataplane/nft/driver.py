"""The hand on the kernel's table: commits transactions, says whether the table is still what it should be.

Elements alone (a member came or went, a pod joined a rule group that exists) go as a hand-packed batch on one socket
that stays open: 0.2 ms whatever the table holds, and no grace period is waited for. Everything else is the text of the
transaction itself, through a libnftables context that stays open too; a whole table in the place of another one is
several steps (`replacement`).

The self-check reads the whole table, which takes seconds when it is large, while commits go on: the socket is taken
from it for one set at a time. What was committed meanwhile makes the reading worthless, and it says so.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Self

import msgspec

from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkError, NetlinkSocket
from services.node_dataplane.nft import encode, replacement, verify
from services.node_dataplane.nft.errors import NftError, NftUnavailable
from services.node_dataplane.nft.libnftables import Libnftables
from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.table import Expected
from services.node_dataplane.nft.transaction import Transaction


class Counter(msgspec.Struct, frozen=True):
    """What a guard dropped since the table was last made whole."""

    packets: int
    bytes: int


class NftDriver:
    """Works in the network namespace of the thread that makes it. Safe to use from several threads, one at a time."""

    def __init__(self) -> None:
        try:
            self._netlink = NetlinkSocket(NETLINK_NETFILTER)
        except PermissionError as error:
            raise NftUnavailable(f"nftables needs root (CAP_NET_ADMIN): {error}") from error
        self._text = Libnftables()
        self._netlink_lock = threading.Lock()
        self._text_lock = threading.Lock()
        self._destroy = self._knows_destroy()
        self._baseline = verify.Baseline()
        self.revision = 0
        """Of the last transaction that the kernel took."""
        self._begun = 0
        """Of the last transaction that it was asked to take."""
        self.by_elements = 0
        """Transactions that went as raw elements."""
        self.by_text = 0
        """Transactions that went through libnftables."""

    def close(self) -> None:
        """Waits for what a thread has begun: a task that is cancelled leaves its thread at work in the library. What
        that thread asks for afterwards raises NftError."""
        with self._text_lock, self._netlink_lock:
            self._netlink.close()
            self._text.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def commit(self, transaction: Transaction) -> None:
        """Packets meet all of it or nothing. Raises NftError with the kernel's reason."""
        self._begun = transaction.revision
        try:
            self._commit(transaction)
        except NftError:
            if not (transaction.ahead or transaction.behind or transaction.whole):
                self._begun = self.revision  # Refused as a whole: nothing happened.
            raise
        self.revision = transaction.revision

    def adopt(self, transaction: Transaction) -> None:
        """Takes what the kernel holds for what the transaction would have made, without a write: `verify` has to say
        whether that is so."""
        self._begun = self.revision = transaction.revision

    def _commit(self, transaction: Transaction) -> None:
        elements = transaction.elements
        if elements is None:
            replaced = transaction.whole and self.exists()
            with self._text_lock:
                for script in replacement.scripts(transaction.commands) if replaced else transaction.scripts():
                    self._text.run(script)
            self.by_text += 1
            return
        requests = encode.batch(elements, destroy=self._destroy)
        try:
            with self._netlink_lock:
                self._netlink.execute(requests, "elements")
        except OSError as error:
            raise NftError(f"the kernel refused a change of elements: {error}") from error
        self.by_elements += 1

    def exists(self) -> bool:
        """Whether the table is there at all: one cheap question."""
        return self._has(TABLE)

    def _has(self, table: str) -> bool:
        with self._netlink_lock:
            try:
                return self._netlink.get(encode.get_table(table)) is not None
            except OSError as error:
                raise NftError(f"cannot ask for the table: {error}") from error

    def verify(self, expected: Expected) -> list[str] | None:
        """What differs from the expectation, one sentence each; none: all is well.

        None: a transaction was committed since `expected` was taken, so nothing can be said; ask again. Reads the whole
        table, so it belongs in a thread, every minute or so.
        """
        if not self.exists():
            return [f"the table inet {TABLE} is gone"]
        if self._has(replacement.MEANWHILE):
            broken_off = f"the table inet {replacement.MEANWHILE} is there, of a replacement that was broken off"
            return None if self._moved(expected) else [broken_off]
        elements: dict[str, dict[bytes, str] | None] = {}
        try:
            with self._text_lock:
                structure = verify.structure(self._text)
            for name in expected.elements:
                if self._moved(expected):
                    return None
                with self._netlink_lock:
                    elements[name] = self._read(name)
        except OSError as error:
            raise NftError(f"cannot read the table: {error}") from error
        if self._moved(expected):
            return None
        seen = verify.Seen(structure, elements)
        return verify.differences(self._baseline.structure(expected), expected, seen)

    def _moved(self, expected: Expected) -> bool:
        """The table is no longer, or perhaps no longer, what was expected."""
        return not self.revision == self._begun == expected.revision

    def strangers(self) -> list[str]:
        """Other people's base chains of forwarded packets that drop what they do not know, `<family> <table> <chain>`
        each: what they drop is lost, whatever our table says. Raises NftError."""
        try:
            with self._netlink_lock:
                rows = self._netlink.dump(encode.dump_chains())
        except OSError as error:
            raise NftError(f"cannot list chains: {error}") from error
        return sorted(filter(None, (encode.forward_drop(body) for _, body in rows)))

    def counters(self) -> dict[str, Counter]:
        """The named counters of the table; empty when the table is gone."""
        if not self.exists():
            return {}
        with self._text_lock:
            listing = self._text.json(f"list counters table inet {TABLE}")
        return {
            row["counter"]["name"]: Counter(row["counter"]["packets"], row["counter"]["bytes"])
            for row in msgspec.json.decode(listing)["nftables"]
            if "counter" in row
        }

    def _read(self, set_: str) -> dict[bytes, str] | None:
        """The elements of a set; None when it does not exist."""
        try:
            rows = self._netlink.dump(encode.dump_elements(set_))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return {key: verdict for _, body in rows for key, verdict in encode.read_elements(body)}

    def _knows_destroy(self) -> bool:
        outcome = next((number for number in self._netlink.transact(encode.probe_destroy()) if number), 0)
        if outcome in (errno.EPERM, errno.EACCES):
            raise NftUnavailable(f"nftables needs root (CAP_NET_ADMIN): {os.strerror(outcome)}")
        return outcome == errno.ENOENT
