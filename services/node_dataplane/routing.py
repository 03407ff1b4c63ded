"""The routes driver: keeps the node's routes of protocol 84 equal to what is wanted, and touches no others.

    want() ----> wanted --+
                          +--> flush(): the differences, 500 to a datagram, additions before removals
    adopt()/check() -> held

Of the additions the longest destinations go first, of the removals last: where a summary falls apart, or its pieces
become one, every address has its way at every moment.

`held` is what the kernel has to our best knowledge: read back once at the start (what an earlier life left is ours
again), then kept by our own writes, and compared with the kernel by `check`. Until `complete` is called nothing that
was found is removed. A row whose device is missing or that the kernel refuses waits in `stuck` with its reason and is
tried again at every flush.

A route that changes is put beside the old one, which is then taken away by name: nothing is ever replaced, because what
stands in the place of ours may be somebody else's by now, and nobody has heard of it yet.

Somebody else's route that was there before ours stays, and ours waits. One that was put in the place of ours stays,
too, but ours comes back before it: for IPv4 as the first of the same metric, for IPv6, where those would share packets,
with the next better metric.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network

from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NetlinkSocket
from services.node_dataplane.route_requests import IPV6_METRIC, Held, acknowledged, delete, is_ipv6, put
from services.node_dataplane.routes import SPARE, Destination, Row

BATCH = 500


def cidr_of(destination: Destination) -> str:
    return str(ip_network(destination))


class RouteTable:
    def __init__(self, socket: NetlinkSocket, index_of: Callable[[str], int | None]) -> None:
        self._socket = socket
        self._index_of = index_of
        self._distant: dict[Destination, Row] = {}
        self._local: dict[Destination, Row] = {}
        self._held: dict[Destination, Held] = {}
        self._doubles: list[tuple[Destination, Held]] = []
        """Read back beside what is held, because a life of ours ended between two writes."""
        self._dirty: set[Destination] = set()
        self._taken: set[Destination] = set()
        """Of IPv6, where somebody else has our place."""
        self._lost: dict[Destination, Held] = {}
        """Were ours, and are left alone for now."""
        self._complete = False
        self.stuck: dict[Destination, str] = {}
        self.rests: Callable[[Destination], bool] = lambda destination: False
        """Whether a destination is left alone for now, because somebody fights for it."""

    def adopt(self) -> int:
        """Take what the kernel has of ours as held; how many routes that is."""
        self._held = self._read()
        better = (IPV6_METRIC - 1, SPARE - 1)
        self._taken = {where for where, held in self._held.items() if is_ipv6(where) and held.metric in better}
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

    def over(self, device: str) -> dict[Destination, int | None]:
        """Wanted over the device, for `recover`."""
        return {destination: None for destination, row in self._all().items() if row.device == device}

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
        puts: list[tuple[Destination, Held, bytes]] = []
        changes: list[tuple[Destination, Held, Held]] = []
        removals: list[tuple[Destination, bytes]] = []
        moved: list[bytes] = []
        indices: dict[str, int | None] = {"": 0}
        for destination in sorted(dirty, key=_longest_first):
            self.stuck.pop(destination, None)
            row, held = self.wanted(destination), self._held.get(destination)
            if row is None:
                self._taken.discard(destination)
                self._lost.pop(destination, None)
                if held is not None:
                    removals.append((destination, delete(destination, held)))
                continue
            if destination in self._lost:
                self.stuck[destination] = "somebody else keeps taking it away; it is tried again"
                continue
            if row.device not in indices:
                indices[row.device] = self._index_of(row.device)
            index = indices[row.device]
            if index is None:
                self.stuck[destination] = f"the device {row.device} is not there"
                continue
            target = self._target(destination, row, index)
            if held is None or held.metric != target.metric:
                if held != target:
                    puts.append((destination, target, put(destination, target, "new")))
            elif held != target:
                changes.append((destination, held, target))
        for start in range(0, len(puts), BATCH):
            chunk = puts[start : start + BATCH]
            for (destination, target, _), number in zip(chunk, self._send([m for *_, m in chunk]), strict=True):
                number = self._guided(destination, target, number)
                if number:
                    self.stuck[destination] = _refusal(number)
                    continue
                before = self._held.get(destination)
                if before is not None:
                    moved.append(delete(destination, before))
                self._held[destination] = target
        for start in range(0, len(changes), BATCH // 2):
            some_changes = changes[start : start + BATCH // 2]
            self._change4([change for change in some_changes if not is_ipv6(change[0])])
            self._change6([change for change in some_changes if is_ipv6(change[0])])
        if self._complete:
            moved += [delete(where, double) for where, double in self._doubles if self._held.get(where) != double]
            self._doubles = []
        for start in range(0, len(moved), BATCH):
            self._send(moved[start : start + BATCH])
        removals.reverse()
        for start in range(0, len(removals), BATCH):
            some = removals[start : start + BATCH]
            for (destination, _), number in zip(some, self._send([m for _, m in some]), strict=True):
                if number in (0, errno.ESRCH, errno.ENODEV):
                    self._held.pop(destination, None)
                else:
                    self.stuck[destination] = _refusal(number)

    def _change4(self, changes: Sequence[tuple[Destination, Held, Held]]) -> None:
        """The new one goes before whatever is there, and then the old one is taken away by name: it may be somebody
        else's by now that stands in its place."""
        if not changes:
            return
        in_the_way = [delete(where, old) for where, old, new in changes if old[:2] == new[:2]]
        if in_the_way:  # They have one name, and the new one must not be taken for the old one.
            self._send(in_the_way)
        removals: list[bytes] = []
        numbers = self._send([put(where, new, "first") for where, _, new in changes])
        for (where, old, new), number in zip(changes, numbers, strict=True):
            if number not in (0, errno.EEXIST):  # EEXIST: this very route is there already.
                self.stuck[where] = _refusal(number)
                continue
            self._held[where] = new
            if old[:2] != new[:2]:
                removals.append(delete(where, old))
        if removals:
            self._send(removals)

    def _change6(self, changes: Sequence[tuple[Destination, Held, Held]]) -> None:
        """Two of one metric would share packets, so the new one stands ahead while the old one goes. Where somebody
        else has the place of the old one, it stays there."""
        numbers = self._send([put(where, new.ahead(), "new") for where, _, new in changes]) if changes else []
        ahead: list[tuple[Destination, Held, bool]] = []
        for (where, _, new), number in zip(changes, numbers, strict=True):
            number = self._guided(where, new.ahead(), number)
            if number in (0, errno.EEXIST):
                ahead.append((where, new, number == 0))
            else:
                self.stuck[where] = _refusal(number)
        if not ahead:
            return
        old = {where: held for where, held, _ in changes}
        self._send([delete(where, old[where]) for where, *_ in ahead])
        removals: list[bytes] = []
        numbers = self._send([put(where, new, "new") for where, new, _ in ahead])
        for (where, new, covered), number in zip(ahead, numbers, strict=True):
            if number == 0:
                self._held[where] = new
                if covered:
                    removals.append(delete(where, new.ahead()))
            elif covered:
                self._held[where] = new.ahead()
                self._taken.add(where)
            else:
                self._held.pop(where, None)
                self.stuck[where] = _refusal(number)
        if removals:
            self._send(removals)

    def _guided(self, where: Destination, target: Held, refused: int) -> int:
        """The errno of another attempt, where there is one. IPv6's kernel refuses a gateway, onlink or not, that lies
        behind another device, as the far end of a tunnel does while its block is reached directly: for the moment of
        the request there is a way to the gateway alone."""
        if refused != errno.EINVAL or not (is_ipv6(where) and target.onlink and target.gateway):
            return refused
        gateway, link = (target.gateway, 128), Held(target.device, None, onlink=False, metric=0)
        made = not self._send([put(gateway, link, "new")])[0]
        number = self._send([put(where, target, "new")])[0]
        if made:
            self._send([delete(gateway, link)])
        return number

    def _target(self, destination: Destination, row: Row, index: int) -> Held:
        target = Held(index, row.gateway, row.onlink, row.metric)
        return target.ahead() if destination in self._taken else target

    def check(self) -> list[Destination]:
        """Compare with the kernel and mend; the destinations that somebody else had changed."""
        actual = self._read()
        broken = [d for d in self._held if actual.get(d) != self._held[d]]
        foreign = [d for d in actual if d not in self._held] if self._complete else []
        lost = {d: self._held[d] for d in broken if d not in actual and self.wanted(d) is not None} | self._lost
        self._held = actual
        back = self._regain(lost)
        self._dirty.update(broken, foreign, self._all().keys() - actual.keys())
        self.flush()
        return [*(d for d in (*broken, *foreign) if d not in lost), *back]

    def recover(self, suspects: Mapping[Destination, int | None]) -> list[Destination]:
        """Put back what is wanted of these, without reading anything: they are said to be gone, if they had that
        metric, if any is given. Which of them were gone indeed. Raises OSError."""
        lost = {}
        for destination, metric in suspects.items():
            held = self._held.get(destination)
            if held is not None and metric in (None, held.metric) and self.wanted(destination) is not None:
                lost[destination] = held
        return self._regain(lost)

    def overtake(self, destination: Destination, metric: int) -> bool:
        """Somebody put a route in the place of ours or before it: ours goes before his. Whether ours has that place.
        Raises OSError."""
        held, row = self._held.get(destination), self.wanted(destination)
        if held is None or held.metric != metric or row is None or self.rests(destination):
            return False
        if is_ipv6(destination):
            self._taken.add(destination)
        target = self._target(destination, row, held.device)
        self._send([delete(destination, held)])  # It is gone, or worse than useless where it is.
        number = self._send([put(destination, target, "first")])[0]
        self._held.pop(destination)
        if number not in (0, errno.EEXIST):
            self.stuck[destination] = _refusal(number)
            return False
        self._held[destination] = target
        self._dirty.add(destination)
        return True

    def _regain(self, lost: Mapping[Destination, Held]) -> list[Destination]:
        """Routes that were ours and may be gone: they go before whatever took their place meanwhile."""
        wanted = [d for d in lost if not self.rests(d)]
        for destination, held in lost.items():
            self._lost.pop(destination, None)
            if self.rests(destination):
                self._lost[destination] = held
                self._held.pop(destination, None)
                self._dirty.add(destination)
        back, unclear = [], []
        for start in range(0, len(wanted), BATCH):
            chunk = wanted[start : start + BATCH]
            requests = [put(d, lost[d], "new" if is_ipv6(d) else "first") for d in chunk]
            for destination, number in zip(chunk, self._send(requests), strict=True):
                if number == 0:
                    self._held[destination] = lost[destination]
                    self._dirty.add(destination)
                    back.append(destination)
                elif number == errno.EEXIST and not is_ipv6(destination):
                    self._held[destination] = lost[destination]  # It was never away.
                elif number == errno.EEXIST:
                    unclear.append(destination)
                else:
                    self._held.pop(destination, None)
                    self._dirty.add(destination)  # Its device is gone or new: `flush` looks for it.
        if unclear:
            actual = self._read()
            for destination in unclear:
                held = self._held[destination] = lost[destination]
                if actual.get(destination) != held and self.overtake(destination, held.metric):
                    back.append(destination)
        return back

    def _send(self, requests: list[bytes]) -> list[int]:
        """Refusals are always answered; only the last of a batch is asked to answer success."""
        return self._socket.transact([*requests[:-1], acknowledged(requests[-1])])

    def _read(self) -> dict[Destination, Held]:
        rows: dict[Destination, Held] = {}
        self._doubles = []
        for family in (rtnl.AF_INET, rtnl.AF_INET6):
            for _, body in self._socket.dump(rtnl.routes_dump(family)):
                row = readback.route(body)
                if row.protocol != rtnl.PROTOCOL:
                    continue
                where = (row.destination, row.prefix)
                found = Held(row.device, row.gateway, row.onlink, row.metric)
                if where not in rows:
                    rows[where] = found
                elif self._is_better(where, found, rows[where]):
                    self._doubles.append((where, rows[where]))
                    rows[where] = found
                else:
                    self._doubles.append((where, found))
        return rows

    def _is_better(self, where: Destination, one: Held, other: Held) -> bool:
        """Of two of ours, which is the one that is wanted, or at least has its metric."""
        row = self.wanted(where)
        if row is None:
            return False
        index = self._index_of(row.device) if row.device else 0
        target = self._target(where, row, index or 0)
        return (one == target, one.metric == target.metric) > (other == target, other.metric == target.metric)


def _longest_first(destination: Destination) -> int:
    return -destination[1]


def _refusal(number: int) -> str:
    if number == errno.EEXIST:
        return "somebody else's route to the same destination is in the way"
    return f"the kernel refuses it: {os.strerror(number)}"
