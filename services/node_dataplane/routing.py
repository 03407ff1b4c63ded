"""The routes driver: keeps the node's routes of protocol 84 equal to what is wanted, and touches no others.

    want() ----> wanted --+
                          +--> flush(): the differences, 500 to a datagram, additions before removals
    adopt()/check() -> held

`held` is what the kernel has to our best knowledge: read back once at the start (what an earlier life left is ours
again), then kept by our own writes, and compared with the kernel by `check`. Until `complete` is called nothing that
was found is removed. A row whose device is missing or that the kernel refuses waits in `stuck` with its reason and is
tried again at every flush.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from ipaddress import ip_network
from typing import NamedTuple

from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.framing import NLM_F_ACK
from services.node_dataplane.netlink.wire import NetlinkSocket
from services.node_dataplane.routes import Destination, Row

BATCH = 500


class _Held(NamedTuple):
    device: int
    gateway: bytes | None
    onlink: bool
    metric: int


def cidr_of(destination: Destination) -> str:
    return str(ip_network(destination))


class RouteTable:
    def __init__(self, socket: NetlinkSocket, index_of: Callable[[str], int | None]) -> None:
        self._socket = socket
        self._index_of = index_of
        self._distant: dict[Destination, Row] = {}
        self._local: dict[Destination, Row] = {}
        self._held: dict[Destination, _Held] = {}
        self._doubles: list[tuple[Destination, _Held]] = []
        """Read back beside what is held: of another metric, because a life of ours ended between two writes."""
        self._dirty: set[Destination] = set()
        self._complete = False
        self.stuck: dict[Destination, str] = {}

    def adopt(self) -> int:
        """Take what the kernel has of ours as held; how many routes that is."""
        self._held = self._read()
        self._dirty.update(self._all())
        return len(self._held)

    def complete(self) -> None:
        """The wanted rows are whole: what else is held is a stray."""
        self._complete = True
        self._dirty.update(self._held.keys() - self._all().keys())

    def want(self, destination: Destination, row: Row | None, *, local: bool = False) -> None:
        """`local`: of a pod on this node, which wins over whatever is told about the same address from elsewhere."""
        layer = self._local if local else self._distant
        if row is None:
            if layer.pop(destination, None) is None:
                return
        elif layer.get(destination) == row:
            return
        else:
            layer[destination] = row
        self._dirty.add(destination)

    def wanted(self, destination: Destination) -> Row | None:
        return self._local.get(destination) or self._distant.get(destination)

    def local(self, destination: Destination) -> Row | None:
        return self._local.get(destination)

    def _all(self) -> dict[Destination, Row]:
        return {**self._distant, **self._local}

    def device_changed(self, device: str) -> None:
        """The kernel dropped every route over a device that went away or came anew under the same name."""
        for destination, row in self._all().items():
            if row.device == device:
                self._held.pop(destination, None)
                self._dirty.add(destination)

    def flush(self) -> None:
        """Apply the differences. Raises OSError when netlink itself fails."""
        self._dirty.update(self.stuck)
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, set()
        try:
            self._settle(dirty)
        except OSError:
            self._dirty |= dirty  # Nobody knows how far it came; what was done is done again without harm.
            raise

    def _settle(self, dirty: set[Destination]) -> None:
        puts: list[tuple[Destination, _Held, bytes]] = []
        removals: list[tuple[Destination, bytes]] = []
        moved: list[bytes] = []
        indices: dict[str, int | None] = {"": 0}
        for destination in dirty:
            self.stuck.pop(destination, None)
            row, held = self.wanted(destination), self._held.get(destination)
            if row is None:
                if held is not None:
                    removals.append((destination, _delete(destination, held)))
                continue
            if row.device not in indices:
                indices[row.device] = self._index_of(row.device)
            index = indices[row.device]
            if index is None:
                self.stuck[destination] = f"the device {row.device} is not there"
                continue
            target = _Held(index, row.gateway, row.onlink, row.metric)
            if held != target:
                replaces = held is not None and held.metric == target.metric
                puts.append((destination, target, _put(destination, target, fresh=not replaces)))
        for start in range(0, len(puts), BATCH):
            chunk = puts[start : start + BATCH]
            for (destination, target, _), number in zip(chunk, self._send([m for *_, m in chunk]), strict=True):
                if number:
                    self.stuck[destination] = _refusal(number)
                    continue
                before = self._held.get(destination)
                if before is not None and before.metric != target.metric:
                    moved.append(_delete(destination, before))
                self._held[destination] = target
        if self._complete:
            moved += [_delete(*double) for double in self._doubles]
            self._doubles = []
        for start in range(0, len(moved), BATCH):
            self._send(moved[start : start + BATCH])
        for start in range(0, len(removals), BATCH):
            some = removals[start : start + BATCH]
            for (destination, _), number in zip(some, self._send([m for _, m in some]), strict=True):
                if number in (0, errno.ESRCH, errno.ENODEV):
                    self._held.pop(destination, None)
                else:
                    self.stuck[destination] = _refusal(number)

    def check(self) -> list[Destination]:
        """Compare with the kernel and mend; the destinations that somebody else had changed."""
        actual = self._read()
        broken = [d for d in self._held if actual.get(d) != self._held[d]]
        foreign = [d for d in actual if d not in self._held] if self._complete else []
        self._held = actual
        self._dirty.update(broken, foreign, self._all().keys() - actual.keys())
        self.flush()
        return [*broken, *foreign]

    def _send(self, requests: list[bytes]) -> list[int]:
        """Refusals are always answered; only the last of a batch is asked to answer success."""
        requests[-1] = _acknowledged(requests[-1])
        return self._socket.transact(requests)

    def _read(self) -> dict[Destination, _Held]:
        rows: dict[Destination, _Held] = {}
        self._doubles = []
        for family in (rtnl.AF_INET, rtnl.AF_INET6):
            for _, body in self._socket.dump(rtnl.routes_dump(family)):
                row = readback.route(body)
                if row.protocol != rtnl.PROTOCOL:
                    continue
                where = (row.destination, row.prefix)
                found, wanted = _Held(row.device, row.gateway, row.onlink, row.metric), self.wanted(where)
                if where in rows and (wanted is None or found.metric != wanted.metric):
                    self._doubles.append((where, found))
                    continue
                if where in rows:
                    self._doubles.append((where, rows[where]))
                rows[where] = found
        return rows


def _put(destination: Destination, row: _Held, *, fresh: bool) -> bytes:
    return rtnl.route(
        *destination,
        index=row.device,
        gateway=row.gateway,
        onlink=row.onlink,
        blackhole=not row.device,
        metric=row.metric,
        presence="new" if fresh else "put",
        acknowledge=False,
    )


def _delete(destination: Destination, row: _Held) -> bytes:
    return rtnl.route_delete(
        *destination, index=row.device, blackhole=not row.device, metric=row.metric, acknowledge=False
    )


def _acknowledged(request: bytes) -> bytes:
    flags = int.from_bytes(request[6:8], sys.byteorder) | NLM_F_ACK
    return request[:6] + flags.to_bytes(2, sys.byteorder) + request[8:]


def _refusal(number: int) -> str:
    if number == errno.EEXIST:
        return "somebody else's route to the same destination is in the way"
    return f"the kernel refuses it: {os.strerror(number)}"
