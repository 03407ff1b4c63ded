"""Throw-away network namespaces for tests on the real kernel.

A namespace here has no name: it lives as long as the file descriptor that this process holds, so a killed test run
leaves nothing behind. Whatever is made while a thread is inside (sockets, subprocesses, sysctls) belongs to it and
stays in it, so a test enters briefly to make its sockets and then works from outside.

    with namespaces(2) as (left, right):
        veth(left, "l0", right, "r0", addresses=("10.0.0.1/24", "10.0.0.2/24"))
        with right.inside():
            server = socket.create_server(("10.0.0.2", 80))
        assert tcp(left, "10.0.0.2", 80)

Everything needs root: mark the tests `@pytest.mark.root`.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from services.node_dataplane.nft.link_groups import first_choice
from services.node_dataplane.nft.names import LINK_PREFIX

CLONE_NEWNET = 0x40000000
ANSWER_S = 1.0
"""How long an answer may take before the packet counts as dropped; only refusals wait for it."""

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")
_indices = itertools.count(1000)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _own_namespace() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """One network namespace with `lo` up and IPv6 usable at once (no duplicate address detection)."""

    def __init__(self) -> None:
        self.fd = -1
        failure: list[OSError] = []

        def create() -> None:
            if _libc.unshare(CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                failure.append(OSError(number, f"unshare: {os.strerror(number)}"))
                return
            self.fd = _own_namespace()

        thread = threading.Thread(target=create)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        for family in ("all", "default"):
            self.sysctl(f"net.ipv6.conf.{family}.accept_dad", 0)
        self.ip("link", "set", "lo", "up")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def path(self) -> str:
        """A path that names this namespace to other programs while it is open (`ip link set ... netns PATH`)."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in this namespace, and back where it was afterwards."""
        before = _own_namespace()
        try:
            _setns(self.fd)
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)

    def call(self, function: Callable[[], T]) -> T:
        with self.inside():
            return function()

    def run(self, *command: str, text: str | None = None) -> str:
        """The standard output of a command in this namespace; AssertionError with its complaint when it fails."""
        with self.inside():
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}"
        return done.stdout

    def ip(self, *arguments: str) -> str:
        return self.run("ip", *arguments)

    def sysctl(self, name: str, value: int | str) -> None:
        """`name` with dots; a link name that holds dots is written with `/` instead, as sysctl(8) does."""
        path = Path("/proc/sys", name.translate(str.maketrans("./", "/.")))
        with self.inside():
            path.write_text(str(value))

    def forward(self) -> None:
        """Make a router of it, both families."""
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)


@contextmanager
def namespaces(count: int) -> Iterator[tuple[Namespace, ...]]:
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(Namespace())
            stack.callback(made[-1].close)
        yield tuple(made)


def veth(
    left: Namespace, left_name: str, right: Namespace, right_name: str, *, addresses: tuple[str, str] | None = None
) -> None:
    """A link between two namespaces, both ends up and usable, with `addresses` (CIDR) on them; an end with the name of
    a pod's link is in the group that an agent would put it in.

    Two ends with the same index would look like one device to the kernel, which then announces their carrier up to a
    second late (and IPv6 has no multicast route until then): hence the indices.
    """
    ends = ((left, left_name), (right, right_name))
    left.ip(
        *("link", "add", left_name, "index", str(next(_indices)), "type", "veth"),
        *("peer", "name", right_name, "index", str(next(_indices)), "netns", right.path),
    )
    for (namespace, name), address in zip(ends, addresses or ("", ""), strict=True):
        if address:
            namespace.ip("address", "add", address, "dev", name, *(("nodad",) if ":" in address else ()))
        group = ("group", str(first_choice(name))) if name.startswith(LINK_PREFIX) else ()
        namespace.ip("link", "set", name, "up", *group)
    for namespace, name in ends:
        wait_for(partial(_multicast_ready, namespace, name), f"IPv6 ready on {name}")


def _multicast_ready(namespace: Namespace, link: str) -> bool:
    """IPv6 neighbour discovery works on the link."""
    with namespace.inside():
        routes = Path("/proc/thread-self/net/ipv6_route").read_text()
    return any(line.startswith("ff") and line.split()[-1] == link for line in routes.splitlines())


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float = 5.0) -> None:
    """Poll until `condition()`; AssertionError that names `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        select.select([], [], [], 0.005)


# --- probes: does a packet arrive?


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(namespace: Namespace, address: str, port: int) -> socket.socket:
    """A TCP listener; the kernel completes handshakes without anybody calling accept."""
    with namespace.inside():
        return socket.create_server((address, port), family=_family(address), backlog=64)


def connect(
    namespace: Namespace, address: str, port: int, *, source: str = "", wait_s: float = ANSWER_S
) -> socket.socket | None:
    """A connected TCP socket, or None when nothing (or an unreachable) came back. A refusal is an answer: it raises."""
    with namespace.inside():
        client = socket.socket(_family(address), socket.SOCK_STREAM)
    client.settimeout(wait_s)
    try:
        if source:
            client.bind((source, 0))
        client.connect((address, port))
    except TimeoutError:
        client.close()
        return None
    except OSError as error:
        client.close()
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM, errno.EACCES):
            return None
        raise
    return client


def tcp(namespace: Namespace, address: str, port: int, *, source: str = "", wait_s: float = ANSWER_S) -> bool:
    """Whether a handshake with a listener completes."""
    client = connect(namespace, address, port, source=source, wait_s=wait_s)
    if client is None:
        return False
    client.close()
    return True


def bind_udp(namespace: Namespace, address: str, port: int) -> socket.socket:
    with namespace.inside():
        server = socket.socket(_family(address), socket.SOCK_DGRAM)
    server.bind((address, port))
    return server


def udp(
    namespace: Namespace,
    receiver: socket.socket,
    address: str,
    port: int,
    *,
    source: str = "",
    wait_s: float = ANSWER_S,
) -> str | None:
    """The source address that `receiver` saw of one datagram sent to (address, port); None: it did not arrive."""
    with namespace.inside():
        sender = socket.socket(_family(address), socket.SOCK_DGRAM)
    with sender:
        if source:
            sender.bind((source, 0))
        token = os.urandom(8)
        try:
            sender.sendto(token, (address, port))
        except PermissionError:
            return None
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            if select.select([receiver], [], [], left)[0]:
                payload, peer = receiver.recvfrom(2048)
                if payload == token:
                    return str(peer[0])
    return None


def ping(namespace: Namespace, address: str, *, source: str = "", wait_s: float = ANSWER_S) -> bool:
    """One echo request and its reply, IPv4 or IPv6."""
    six = ":" in address
    with namespace.inside():
        probe = socket.socket(_family(address), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP)
    with probe:
        if source:
            probe.bind((source, 0))
        token = os.urandom(8)
        head = bytes((128 if six else 8, 0, 0, 0))
        body = token[:4] + token
        if not six:
            head = head[:2] + _checksum(head + body)
        try:
            probe.sendto(head + body, (address, 0))
        except PermissionError:
            return False
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            if select.select([probe], [], [], left)[0]:
                packet = probe.recv(2048)
                reply = packet if six else packet[(packet[0] & 15) * 4 :]
                if reply[0] == (129 if six else 0) and reply[8:16] == token:
                    return True
    return False


def _checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data) - 1, 2))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def links(namespace: Namespace) -> Iterable[str]:
    """Names of the links, without `lo`."""
    with namespace.inside():
        return [name for _, name in socket.if_nameindex() if name != "lo"]
