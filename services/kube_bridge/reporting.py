"""What became of things, written back to Kubernetes, while this bridge leads.

    troubles, compiled policy, addresses, signs of life --touch--> due (one slot an object, the urgent ones first)
         --run, so many a second--> conditions.*_patch of what is so now --> PATCH .../status, POST events

A patch is made when its turn comes, of the present state: what changed ten times is written once, and what reads as it
should is not written at all. A conflict waits for the newer object to be heard of, which touches it again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any, NamedTuple

from bus_schemas.ipam import ServiceAddresses
from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import KINDS, KubernetesNetworkPolicy, Node, Service
from bus_schemas.subjects import POLICY_STATUS, SERVICE_ADDRESSES, STATUS
from bus_schemas.subjects import Fact as BusFact
from services.kube_bridge import conditions
from services.kube_bridge.agents import Agents
from services.kube_bridge.client import JSON, MERGE, STRATEGIC, Client
from services.kube_bridge.core import Core, Trouble
from services.kube_bridge.discovery import Discovery
from services.kube_bridge.errors import KubeError, Refused
from services.kube_bridge.metrics import REPORTS
from services.kube_bridge.mirror import Name
from services.kube_bridge.sources import SOURCES, Source

READS = (STATUS, POLICY_STATUS, SERVICE_ADDRESSES)
RETRY_S = 1.0
RETRY_MAX_S = 60.0
CONFLICT_S = 0.5
NODES = next(source for source in SOURCES if source.resource is Node)
SERVICES = next(source for source in SOURCES if source.resource is Service)
_POLICY_TOKENS = frozenset(source.resource.TOKEN for source in SOURCES if "polic" in source.plural)


class Target(NamedTuple):
    """Whose status it is about; with `told`, an Event about it."""

    source: Source
    name: Name
    told: str = ""


@dataclass
class _Due:
    at: float
    failures: int = 0
    body: Any = None
    """Of an Event."""
    path: str = ""


class Reporting:
    """`run` is its task."""

    def __init__(
        self,
        client: Client,
        core: Core,
        discovery: Discovery,
        *,
        instance: str,
        per_s: float,
        grace_s: float,
        leads: Callable[[], bool],
        note: Callable[[str, str | None], None],
    ) -> None:
        self._client = client
        self._core = core
        self._discovery = discovery
        self._instance = instance
        self._pause_s = 1.0 / per_s
        self._grace_s = grace_s
        self._leads = leads
        self._note = note
        self._agents = Agents()
        self._compiled: dict[tuple[str, ...], PolicyStatus] = {}
        self._addresses: dict[Name, ServiceAddresses] = {}
        self._given: dict[Name, tuple[str, ...]] = {}
        """What we know to have been given by us: only that is taken back."""
        self._urgent: dict[Target, _Due] = {}
        self._due: dict[Target, _Due] = {}
        self._woken = asyncio.Event()
        self._refused: dict[str, str] = {}

    # --- what is new

    def hear(self, fact: BusFact) -> None:
        """From the bus."""
        now = asyncio.get_running_loop().time()
        if fact.family == STATUS:
            node = self._agents.hear(fact.key, fact.value, now)
            if node is not None:
                agent = self._agents.get(node)
                later = 0.0 if agent is not None and agent.alive and agent.ready else self._grace_s
                self.touch(NODES, ("", node), urgent=True, after_s=later)
        elif fact.family == POLICY_STATUS:
            self._hear_compiled(fact.key, fact.value)
        elif fact.family == SERVICE_ADDRESSES:
            name = (fact.key[0], fact.key[1])
            if fact.value is None:
                self._addresses.pop(name, None)
            else:
                self._addresses[name] = fact.value
            self.touch(SERVICES, name, urgent=True)

    def _hear_compiled(self, key: tuple[str, ...], status: PolicyStatus | None) -> None:
        if status is None:
            self._compiled.pop(key, None)
        else:
            self._compiled[key] = status
        kind = KINDS.get(key[0])
        for seen in self._core.claims(kind, (key[1], key[2])) if kind is not None else ():
            self.touch(seen.source, seen.name, urgent=True)
            if kind is KubernetesNetworkPolicy and status is not None:  # it has no status to say it in
                self.tell(seen.source, seen.name, seen.uid, "NotCompiled", "; ".join(status.faults))

    def trouble(self, trouble: Trouble, *, over: bool) -> None:
        self.touch(trouble.source, trouble.name, urgent=True)
        if not over:
            note = f"{'; '.join(trouble.reasons)} ({trouble.instead})"
            self.tell(trouble.source, trouble.name, trouble.uid, trouble.what.capitalize(), note)

    def touch(self, source: Source, name: Name, *, urgent: bool = False, after_s: float = 0.0) -> None:
        """Something about the object may have to be said."""
        if not source.reports and source not in (NODES, SERVICES):
            return
        target = Target(source, name)
        at = asyncio.get_running_loop().time() + after_s
        if urgent:
            self._due.pop(target, None)
            self._urgent[target] = _Due(at)
        elif target not in self._urgent:
            self._due.setdefault(target, _Due(at))
        self._woken.set()

    def tell(self, source: Source, name: Name, uid: str, reason: str, note: str) -> None:
        """An Event about the object; the same one once."""
        if not self._leads():
            return  # whoever leads tells it
        unique = sha1(f"{uid}|{reason}|{note}".encode(), usedforsecurity=False).hexdigest()[:16]
        path, body = conditions.event(
            (source.api_version, source.kind),
            name,
            uid,
            reason=reason,
            note=note,
            now=_now(micro=True),
            unique=unique,
            by=self._instance,
        )
        self._urgent[Target(source, name, unique)] = _Due(asyncio.get_running_loop().time(), body=body, path=path)
        self._woken.set()

    def everything(self) -> None:
        """This bridge has become the active one: what the other one did not come to say is said."""
        for source in SOURCES:
            if source.reports or source in (NODES, SERVICES):
                for seen in self._core.objects(source):
                    self.touch(source, seen.name, urgent=self._core.trouble(source, seen.name) is not None)
        for trouble in self._core.troubles:
            self.trouble(trouble, over=False)
        for key, status in list(self._compiled.items()):
            self._hear_compiled(key, status)
        for node in self._agents.unwell():
            self.touch(NODES, ("", node), urgent=True, after_s=self._grace_s)

    # --- writing

    async def run(self) -> None:
        """For ever."""
        while True:
            target, wait = self._next()
            if target is None:
                self._woken.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                continue
            asked = await self._write(target)
            await asyncio.sleep(self._pause_s if asked else 0)  # of most there is nothing to say: others get their turn

    def _next(self) -> tuple[Target | None, float | None]:
        """The next that is due, or how long there is nothing; None: until something is new."""
        if not self._leads():
            return None, 1.0
        now = asyncio.get_running_loop().time()
        soonest: float | None = None
        for queue in (self._urgent, self._due):
            for target, due in queue.items():
                if due.at <= now:
                    return target, None
                soonest = due.at if soonest is None else min(soonest, due.at)
                if queue is self._due:
                    break  # they are in the order of time, but for those that failed
        return None, None if soonest is None else max(0.01, soonest - now)

    async def _write(self, target: Target) -> bool:
        """Whether the server was asked."""
        due = self._urgent.pop(target, None) or self._due.pop(target)
        made = (due.path, due.body, JSON) if target.told else self._patch(target)
        if made is None:
            return False
        path, body, content_type = made
        resource = "events" if target.told else f"{target.source.name}/status"
        method = "POST" if target.told else "PATCH"
        loop = asyncio.get_running_loop()
        try:
            await self._client.send(method, path, body, resource=resource, content_type=content_type, timeout_s=10.0)
        except Refused as refused:
            if target.told and refused.status == 409:
                return True  # it was told
            REPORTS.labels(resource, str(refused.status)).inc()
            if refused.status == 409:
                self._again(target, due, loop.time() + CONFLICT_S * random.uniform(1.0, 2.0))
            elif refused.status in (429, 500, 502, 503, 504):
                self._again(target, due, loop.time() + max(_back_off(due.failures), refused.retry_after_s))
            elif refused.status != 404:  # the object is gone, or it has no status
                self._refuse(resource, str(refused))
        except KubeError:
            REPORTS.labels(resource, "unreachable").inc()
            self._again(target, due, loop.time() + _back_off(due.failures))
        else:
            REPORTS.labels(resource, "written").inc()
            self._refuse(resource, None)
        return True

    def _again(self, target: Target, due: _Due, at: float) -> None:
        due.at, due.failures = at, due.failures + 1
        self._urgent.setdefault(target, due)

    def _refuse(self, resource: str, why: str | None) -> None:
        if why is None and resource not in self._refused:
            return
        if why is None:
            del self._refused[resource]
        else:
            self._refused[resource] = why
        said = "; ".join(f"{resource}: {why}" for resource, why in sorted(self._refused.items()))
        self._note("status not written", said or None)

    def _patch(self, target: Target) -> tuple[str, Any, str] | None:
        """Path, body, content type; None: there is nothing to say."""
        seen = self._core.get(target.source, target.name)
        if seen is None:
            if target.source is NODES:
                self._agents.forget(target.name[1])
            return None
        path = f"{target.source.object(*target.name)}/status"
        now = _now()
        if target.source is NODES:
            agent = self._agents.get(target.name[1])
            loop_time = asyncio.get_running_loop().time()
            patch = conditions.node_patch(seen, agent, loop_time, now, self._grace_s)
            return (path, patch, STRATEGIC) if patch is not None else None
        if target.source is SERVICES:
            patch = self._address_patch(target.name)
            return (path, patch, MERGE) if patch is not None else None
        if not self._discovery.reports(target.source):
            return None
        token = seen.source.resource.TOKEN
        compiled = self._compiled.get((token, *seen.key))
        trouble = self._core.trouble(target.source, target.name)
        wanted = conditions.conditions(seen, trouble, compiled, is_policy=token in _POLICY_TOKENS)
        patch = conditions.conditions_patch(seen, wanted, now)
        return (path, patch, MERGE) if patch is not None else None

    def _address_patch(self, name: Name) -> Any:
        seen = self._core.get(SERVICES, name)
        assert seen is not None
        told = self._addresses.get(name)
        if told is not None:
            self._given[name] = told.addresses
            return conditions.addresses_patch(seen, told.addresses)
        given = self._given.pop(name, None)
        return conditions.addresses_patch(seen, ()) if given and given == seen.addresses else None


def _back_off(failures: int) -> float:
    return min(RETRY_S * 2.0 ** min(failures, 10), RETRY_MAX_S) * random.uniform(0.5, 1.0)


def _now(*, micro: bool = False) -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
