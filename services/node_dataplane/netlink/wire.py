"""The socket that carries netlink messages; `framing` makes and reads them.

A request is processed inside `sendmsg`: when it returns, every answer already lies in the socket's receive buffer. So
nothing here ever waits, and a transaction is one system call out and one or two back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Self

from services.node_dataplane.netlink.framing import (
    FLAGS_OFFSET,
    HEADER,
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    SEQUENCE_OFFSET,
    Announcement,
    announcements,
    attributes,
    messages,
)

__all__ = ["NETLINK_GENERIC", "NETLINK_NETFILTER", "NETLINK_ROUTE", "NetlinkError", "NetlinkSocket", "within"]

_NLMSGERR_ATTR_MSG = 1
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_ERRNO = struct.Struct("=i")
_RECEIVE = 1 << 16
_CLONE_NEWNET = 0x40000000


class NetlinkError(OSError):
    """The kernel refused a request; `errno` is its reason, the text says what was asked."""


class NetlinkSocket:
    """One long-lived socket. Not for use by two threads at once.

    `netns_fd` is an open file of the network namespace that it shall speak for (its own when None). Closing a socket
    soon after deletions waits for the kernel's grace period (7 to 14 ms), one more reason to keep it open.
    """

    def __init__(
        self, protocol: int, netns_fd: int | None = None, *, groups: int = 0, receive_buffer: int = 16 << 20
    ) -> None:
        if netns_fd is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        else:
            with within(netns_fd):
                self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            for option, size in ((_SO_SNDBUFFORCE, 64 << 20), (_SO_RCVBUFFORCE, receive_buffer)):
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            if protocol == NETLINK_ROUTE:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            self._socket.bind((0, groups))
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0
        self.complaint = ""
        """The kernel's own words about the first refusal of the last transaction; often empty."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def transact(self, requests: Sequence[bytes]) -> list[int]:
        """Send all in one datagram; the errno of each (0: done, or not asked to be acknowledged and not refused).

        Refusals are always reported, success only by messages that carry NLM_F_ACK; the sequence numbers are stamped
        here. An error that the kernel reports for the datagram as a whole (an nfnetlink batch that failed to commit)
        stands at its first message. Raises OSError when the datagram itself cannot be sent.
        """
        if not requests:
            return []
        first = (self._sequence + 1) & 0xFFFFFFFF
        if first + len(requests) > 0xFFFFFFFF:
            first = 1
        stamped = bytearray(b"".join(requests))
        at = 0
        acknowledged = False
        for sequence, request in enumerate(requests, first):
            struct.pack_into("=I", stamped, at + SEQUENCE_OFFSET, sequence)
            acknowledged = acknowledged or bool(request[FLAGS_OFFSET] & NLM_F_ACK)
            at += len(request)
        self._sequence = first + len(requests) - 1
        self._send(stamped)

        self.complaint = ""
        outcome = [0] * len(requests)
        answered = False
        for datagram in self._receive():
            for type_, flags, sequence, body in messages(datagram):
                index = sequence - first
                if type_ != NLMSG_ERROR or not 0 <= index < len(requests):
                    continue
                answered = True
                number = -_ERRNO.unpack_from(body)[0]
                if number and not outcome[index]:
                    outcome[index] = number
                    if not self.complaint:
                        self.complaint = _complaint(flags, body)
        if acknowledged and not answered:
            raise NetlinkError(errno.EPROTO, "the kernel did not answer an acknowledged request")
        return outcome

    def execute(self, requests: Sequence[bytes], what: str) -> None:
        """`transact`, every message of which must succeed. Raises NetlinkError."""
        for number in self.transact(requests):
            if number:
                raise NetlinkError(number, f"{what}: {os.strerror(number)}{self.complaint and f' ({self.complaint})'}")

    def dump(self, request: bytes) -> list[tuple[int, bytes]]:
        """(type, body) of every object that a NLM_F_DUMP request names, consistent in itself. Raises NetlinkError."""
        for _ in range(8):
            rows = self._dump_once(request)
            if rows is not None:
                return rows
        raise NetlinkError(errno.EAGAIN, "the kernel's table kept changing while it was read")

    def _dump_once(self, request: bytes) -> list[tuple[int, bytes]] | None:
        self._sequence = mine = (self._sequence + 1) & 0xFFFFFFFF
        stamped = bytearray(request)
        struct.pack_into("=I", stamped, SEQUENCE_OFFSET, mine)
        self._send(stamped)
        rows: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for datagram in self._receive(until_empty=False):
                for type_, flags, sequence, body in messages(datagram):
                    if sequence != mine:
                        continue
                    interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                    if type_ in (NLMSG_ERROR, NLMSG_DONE):
                        number = -_ERRNO.unpack_from(body)[0] if len(body) >= 4 else 0
                        if number:
                            raise NetlinkError(number, f"dump: {os.strerror(number)} {_complaint(flags, body)}".strip())
                        return None if interrupted else rows
                    rows.append((type_, bytes(body)))

    def stream(self, request: bytes) -> Iterator[memoryview]:
        """The body of every object that a NLM_F_DUMP request names, as they come and valid until the next: for what is
        too large to hold and changes too often to be consistent. To be read to its end. Raises NetlinkError."""
        self._sequence = mine = (self._sequence + 1) & 0xFFFFFFFF
        stamped = bytearray(request)
        struct.pack_into("=I", stamped, SEQUENCE_OFFSET, mine)
        self._send(stamped)
        while True:
            for datagram in self._receive(until_empty=False):
                for type_, flags, sequence, body in messages(datagram):
                    if sequence != mine:
                        continue
                    if type_ not in (NLMSG_ERROR, NLMSG_DONE):
                        yield body
                        continue
                    number = -_ERRNO.unpack_from(body)[0] if len(body) >= 4 else 0
                    if number:
                        raise NetlinkError(number, f"dump: {os.strerror(number)} {_complaint(flags, body)}".strip())
                    return

    def get(self, request: bytes) -> tuple[int, bytes] | None:
        """(type, body) of the one object that a request without NLM_F_DUMP names; None when there is none.

        Raises NetlinkError for any refusal other than ENODEV, ENOENT and ESRCH."""
        self._sequence = mine = (self._sequence + 1) & 0xFFFFFFFF
        stamped = bytearray(request)
        struct.pack_into("=I", stamped, SEQUENCE_OFFSET, mine)
        self._send(stamped)
        for datagram in self._receive():
            for type_, flags, sequence, body in messages(datagram):
                if sequence != mine:
                    continue
                if type_ != NLMSG_ERROR:
                    return type_, bytes(body)
                number = -_ERRNO.unpack_from(body)[0]
                if number in (errno.ENODEV, errno.ENOENT, errno.ESRCH):
                    return None
                if number:
                    raise NetlinkError(number, f"get: {os.strerror(number)} {_complaint(flags, body)}".strip())
        return None

    def notifications(self, most: int | None = None) -> Iterator[tuple[int, memoryview]]:
        """(type, body) of what arrived unasked, in `most` datagrams at most. An overrun raises OSError(ENOBUFS)."""
        for datagram in islice(self._receive(), most):
            for type_, _, _, body in messages(datagram):
                yield type_, body

    def announcements(self) -> Iterator[Announcement]:
        """All that arrived unasked, and who asked for it. An overrun raises OSError(ENOBUFS)."""
        for datagram in self._receive():
            yield from announcements(datagram)

    @property
    def port(self) -> int:
        """By which announcements of our own requests are known (`Announcement.port`)."""
        return int(self._socket.getsockname()[0])

    def _send(self, data: bytearray) -> None:
        sent = self._socket.sendto(data, (0, 0))
        assert sent == len(data), "netlink datagrams are sent whole"

    def _receive(self, *, until_empty: bool = True) -> Iterator[bytes]:
        """Whatever lies in the buffer; one datagram when not `until_empty`."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                if not until_empty:
                    raise NetlinkError(errno.EPROTO, "a dump ended without its end mark") from None
                return
            yield data
            if not until_empty:
                return


def _complaint(flags: int, body: memoryview) -> str:
    """The text of NLMSGERR_ATTR_MSG, where the kernel gave one."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    at = 20
    if not flags & _NLM_F_CAPPED:
        at += HEADER.unpack_from(body, 4)[0] - 16
    for type_, payload in attributes(body[at:]):
        if type_ == _NLMSGERR_ATTR_MSG:
            return payload.rstrip(b"\0").decode("ascii", "replace")
    return ""


class within:
    """This thread stands in another network namespace for the length of a `with` block, which must not await."""

    def __init__(self, netns_fd: int) -> None:
        self._target = netns_fd

    def __enter__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._target)
        except OSError:
            os.close(self._home)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            _setns(self._home)
        except OSError:  # A thread lost in a foreign namespace would configure the wrong node: end at once.
            os.abort()
        finally:
            os.close(self._home)


def _setns(netns_fd: int) -> None:
    """setns(2) into a network namespace; os.setns came only with Python 3.12. Raises OSError."""
    if _libc.setns(ctypes.c_int(netns_fd), ctypes.c_int(_CLONE_NEWNET)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}")


_libc = ctypes.CDLL(None, use_errno=True)
