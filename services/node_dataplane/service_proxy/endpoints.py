"""Which endpoints of a service port count, and in what order. Pure.

As kube-proxy does (pkg/proxy/topology.go, KEP-1669): ready ones; where there is none, those that still serve though
they are about to end. This is asked twice, of the whole cluster and of this node alone, so that a node whose last
endpoint is on its way out goes on with it, while the rest of the cluster uses the others.

    backends   | here, but not for the cluster | here, and for the cluster | elsewhere |
                ^ local: the first `local`
                                                ^ cluster: all from `skip` on

One list serves both: an index into it is drawn from one range or the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Backend(NamedTuple):
    address: bytes
    """Packed."""
    port: int


class Candidate(NamedTuple):
    """One endpoint of a slice, for one port of the service."""

    backend: Backend
    ready: bool
    serving: bool
    terminating: bool
    here: bool
    """It runs on this node."""


class Pool(NamedTuple):
    backends: tuple[Backend, ...] = ()
    local: int = 0
    skip: int = 0

    @property
    def cluster(self) -> tuple[Backend, ...]:
        return self.backends[self.skip :]

    @property
    def here(self) -> tuple[Backend, ...]:
        return self.backends[: self.local]


EMPTY = Pool()


def pool(candidates: Iterable[Candidate]) -> Pool:
    """A backend that several slices name counts with the best that is said of it."""
    best: dict[Backend, Candidate] = {}
    for candidate in candidates:
        before = best.get(candidate.backend)
        if before is None or _rank(candidate) > _rank(before):
            best[candidate.backend] = candidate
    cluster = _usable(best.values())
    local = _usable(candidate for candidate in best.values() if candidate.here)
    only, both, far = sorted(local - cluster), sorted(local & cluster), sorted(cluster - local)
    return Pool((*only, *both, *far), len(local), len(only))


def _rank(candidate: Candidate) -> tuple[bool, bool, bool]:
    return candidate.ready, candidate.serving, candidate.here


def _usable(candidates: Iterable[Candidate]) -> frozenset[Backend]:
    ready: set[Backend] = set()
    ending: set[Backend] = set()
    for candidate in candidates:
        if candidate.ready:
            ready.add(candidate.backend)
        elif candidate.serving and candidate.terminating:
            ending.add(candidate.backend)
    return frozenset(ready or ending)
