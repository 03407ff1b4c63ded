"""Which bridge is active: the Lease of coordination.k8s.io, held as Kubernetes' own components hold theirs.

    nobody's, or not renewed for its duration --update--> ours --update every third of it--> ours
                                       409: somebody was faster; look again

Whether it was renewed is told by its changes, measured on our own clock: clocks of machines differ. Our own belief ends
before others may take it. One who leaves gives it back. Only a bridge that is `ready` takes it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.kube_bridge.client import Client
from services.kube_bridge.errors import KubeError, Refused

SAFETY = 0.8
"""The share of the duration for which we believe in it."""
RESOURCE = "leases"


class _Meta(msgspec.Struct):
    resourceVersion: str = ""


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    acquireTime: str | None = None
    renewTime: str | None = None
    leaseTransitions: int | None = None


class _Lease(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


class Election:
    """`run` is its task."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        holder: str,
        *,
        duration_s: float,
        ready: Callable[[], bool],
        turned: Callable[[], None],
    ) -> None:
        """`holder`: unique among all processes. `turned` is called after every look."""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._duration_s = duration_s
        self._ready = ready
        self._turned = turned
        self._lease: _Lease | None = None
        """As it was last seen."""
        self._changed_at = 0.0
        """When that was new, on our clock."""
        self._until = 0.0
        self.why = "not looked at yet"
        """Why it is not ours."""
        self.hindrance = ""
        """What stands in the way of anybody's holding it, as far as we see; empty: nothing."""

    @property
    def elected(self) -> bool:
        return asyncio.get_running_loop().time() < self._until

    @property
    def other(self) -> str:
        """Who else is known to hold it; empty: nobody."""
        holder = (self._lease.spec.holderIdentity or "") if self._lease is not None else ""
        return "" if holder == self._holder or self._expired() else holder

    async def run(self) -> None:
        """For ever; gives it back when cancelled."""
        pause = self._duration_s / 3
        try:
            while True:
                again = await self._look()
                self._turned()
                await asyncio.sleep((pause / 10 if again else pause) * random.uniform(0.8, 1.0))
                if self._until and not self.elected:
                    self._turned()
        finally:
            await self._give_back()

    async def _look(self) -> bool:
        """Whether to look again soon."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if not (self.elected or self._ready()):
            self.why = "not asked for: not everything has been read yet"
            return True
        try:
            async with asyncio.timeout(self._duration_s / 2):
                if self._lease is None or not self.elected:
                    self._learn(await self._read())
                if self.other:
                    self._until = 0.0
                    self.why = f"held by {self.other}"
                else:
                    self._learn(await self._write())
                    self._until = started + self._duration_s * SAFETY
                    self.why = ""
        except Refused as refused:
            if refused.status == 409:
                self._until, self._lease = 0.0, None
                return True
            self._lease = None
            self.why = self.hindrance = (
                f"the Lease {self._namespace}/{self._name} cannot be held: {refused}: grant get, create and update"
            )
        except (KubeError, TimeoutError) as error:
            self.why = self.hindrance = str(error) or "the API server does not answer in time"
        else:
            self.hindrance = ""
        return False

    def _expired(self) -> bool:
        if self._lease is None:
            return False
        duration = self._lease.spec.leaseDurationSeconds or self._duration_s
        return asyncio.get_running_loop().time() > self._changed_at + duration

    def _learn(self, lease: _Lease | None) -> None:
        if (
            lease is None
            or self._lease is None
            or lease.metadata.resourceVersion != self._lease.metadata.resourceVersion
        ):
            self._changed_at = asyncio.get_running_loop().time()
        self._lease = lease

    @property
    def _collection(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"

    async def _read(self) -> _Lease | None:
        try:
            return _decoded(await self._client.get(f"{self._collection}/{self._name}", resource=RESOURCE))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def _write(self) -> _Lease:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        held = self._lease.spec if self._lease is not None else _Spec()
        ours = held.holderIdentity == self._holder
        body: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": max(1, round(self._duration_s)),
                "acquireTime": held.acquireTime if ours and held.acquireTime else now,
                "renewTime": now,
                "leaseTransitions": (held.leaseTransitions or 0) + (0 if ours or self._lease is None else 1),
            },
        }
        if self._lease is None:
            return _decoded(await self._client.send("POST", self._collection, body, resource=RESOURCE))
        body["metadata"]["resourceVersion"] = self._lease.metadata.resourceVersion
        return _decoded(await self._client.send("PUT", f"{self._collection}/{self._name}", body, resource=RESOURCE))

    async def _give_back(self) -> None:
        lease, was_elected = self._lease, self.elected
        self._until = 0.0
        if lease is None or not was_elected:
            return
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "resourceVersion": lease.metadata.resourceVersion,
            },
            "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": lease.spec.leaseTransitions},
        }
        with suppress(KubeError, TimeoutError):  # it expires by itself
            async with asyncio.timeout(1.0):
                await self._client.send("PUT", f"{self._collection}/{self._name}", body, resource=RESOURCE)


def _decoded(body: bytes) -> _Lease:
    try:
        return msgspec.json.decode(body, type=_Lease)
    except msgspec.DecodeError as error:
        raise KubeError(f"a Lease that makes no sense: {error}") from error
