"""When did a change of nftables take effect? The kernel says so itself, after every commit.

Each committed transaction is announced to the netlink group NFNLGRP_NFTABLES of its network namespace, object by
object, and ends with NFT_MSG_NEWGEN (linux/netfilter/nf_tables.h). The moment at which a waiting thread has read that
end is taken, so the time told is that of the commit and the thread's waking up: never too early.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from typing import Self

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
_NFT = 10 << 8
_NEWGEN = _NFT | 15
_SO_RCVBUFFORCE = 33


class NftWatch:
    """A context manager; made in the namespace to watch."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        self._socket.settimeout(0.2)
        self._commits: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def forget(self) -> None:
        """What happened so far is of no interest."""
        while not self._commits.empty():
            self._commits.get()

    def next(self, timeout_s: float = 5.0) -> float:
        """`time.perf_counter()` of the next commit. Raises queue.Empty."""
        return self._commits.get(timeout=timeout_s)

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                continue
            now = time.perf_counter()
            offset = 0
            while offset + 16 <= len(data):
                length, type_ = struct.unpack_from("=IH", data, offset)
                if type_ == _NEWGEN:
                    self._commits.put(now)
                offset += (length + 3) & ~3
