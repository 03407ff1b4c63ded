"""Runs a scenario: brings the cluster up, does the steps, tries the expectations until they hold, and tells a listener.

After a step's actions every check is tried at once and, while it fails, again until the deadline. When all have held,
the lasting ones are tried once more, not before `SETTLE_S`: a deny that was only an old policy's last moment, or an
allow that a policy had not yet reached, is a failure and not luck. Checks that fail until the deadline have failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tortie.lab import checks, kernel, placeholders
from tortie.lab.checks import ROLES, VXLAN_DEVICE, Check, Verdict
from tortie.lab.cluster import Cluster
from tortie.lab.errors import LabError
from tortie.lab.pace import SLOWNESS
from tortie.lab.placeholders import Memory, Placeholder
from tortie.lab.scenario import (
    Action,
    Apply,
    Delete,
    Kill,
    Label,
    Place,
    Revive,
    Scenario,
    Start,
    Step,
    Stop,
    pod_key,
)

PATIENCE_S = 2.0 * SLOWNESS
BGP_PATIENCE_S = 20.0 * SLOWNESS
SETTLE_S = 0.3 * SLOWNESS
RETRY_EVERY_S = 0.05


@dataclass(frozen=True)
class Finding:
    """A check and its last verdict."""

    check: Check
    verdict: Verdict


@dataclass(frozen=True)
class StepResult:
    do: str
    took_s: float
    findings: tuple[Finding, ...] = ()
    fault: str = ""
    """Why the step's actions could not be done."""

    @property
    def failures(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.verdict.holds]

    @property
    def passed(self) -> bool:
        return not self.fault and not self.failures


@dataclass
class Result:
    """What became of one scenario."""

    source: str
    name: str
    steps: list[StepResult] = field(default_factory=list)
    up_s: float = 0.0
    took_s: float = 0.0
    skipped: str = ""
    """Why it was not run."""
    fault: str = ""
    """Why the lab did not come up, or what broke under it."""
    complaints: list[str] = field(default_factory=list)
    """After a failure: what the services' logs warn of."""

    @property
    def passed(self) -> bool:
        return not self.fault and all(step.passed for step in self.steps)


class Listener(Protocol):
    """Is told what happens, while it happens."""

    def phase(self, text: str) -> None: ...
    def up(self, cluster: Cluster, took_s: float) -> None: ...
    def step_began(self, number: int, step: Step) -> None: ...
    def step_ended(self, number: int, result: StepResult) -> None: ...


class Run:
    """One scenario in one cluster."""

    def __init__(self, scenario: Scenario, cluster: Cluster, listener: Listener, *, patience_s: float | None) -> None:
        self._scenario = scenario
        self._cluster = cluster
        self._listener = listener
        self._memory = Memory(placeholders.find(scenario.text))
        self._patience_s = patience_s or (BGP_PATIENCE_S if scenario.speaks_bgp else PATIENCE_S)

    async def up(self) -> None:
        """Raises LabError."""
        await self._cluster.up(
            self._scenario.resources, self._scenario.namespaces, self._scenario.pods, self._listener.phase
        )

    async def steps(self) -> list[StepResult]:
        """Stops after the first step that fails: the ones after it build upon it."""
        results = []
        for number, step in enumerate(self._scenario.steps, 1):
            self._listener.step_began(number, step)
            results.append(await self._step(step))
            self._listener.step_ended(number, results[-1])
            if not results[-1].passed:
                break
        return results

    async def _step(self, step: Step) -> StepResult:
        began = time.monotonic()
        try:
            await self._remember()
            for action in step.actions:
                await self._do(action)
            await self._remember()
        except LabError as error:
            return StepResult(step.do, time.monotonic() - began, fault=str(error))
        found = checks.checks(step.expect, self._cluster, self._fill)
        findings = await settle(found, patience_s=self._patience_s)
        fates = self._cluster.fates()
        return StepResult(step.do, time.monotonic() - began, tuple(findings), fault="\n".join(fates))

    async def _do(self, action: Action) -> None:
        match action:
            case Apply(manifests):
                await self._cluster.apply(await self._fill(manifests))
            case Delete(what):
                for reference in what:
                    await self._cluster.delete(reference)
            case Label(changes):
                for reference, change in changes.items():
                    await self._cluster.label(reference, change)
            case Start(pods):
                await self._cluster.start(pods)
            case Stop(keys):
                await self._cluster.stop(keys)
            case Kill(names):
                for name in names:
                    await self._cluster.kill_process(name)
            case Revive(names):
                for name in names:
                    await self._cluster.revive_process(name, {})
                    await self._cluster.processes[name].ready()

    async def _fill(self, value: Any) -> Any:
        """Looks once more for what a placeholder stands for when it has not stood for anything yet."""
        if self._memory.unknown(value):
            await self._remember()
        return self._memory.fill(value, ROLES)

    async def _remember(self) -> None:
        """Learns what the placeholders stand for now."""
        wanted = self._memory.placeholders
        if wanted:
            self._memory.learn(await meanings(self._cluster, wanted))


async def meanings(cluster: Cluster, wanted: Iterable[Placeholder]) -> Mapping[Placeholder, str]:
    """Those of the placeholders that stand for something now."""
    wanted = set(wanted)
    blocks = await cluster.blocks() if any(p.word == "block" for p in wanted) else {}
    now: dict[Placeholder, str] = {}
    for placeholder in wanted:
        meaning = ""
        if placeholder.word == "block":
            meaning = next(iter(blocks.get(placeholder.of, ())), "")
        elif placeholder.word == "vtep":
            meaning = await _tunnel_address(cluster, placeholder.of)
        else:
            pod = cluster.pods.get(pod_key(placeholder.of))
            if pod is not None and pod.addresses:
                meaning = pod.addresses[0] if placeholder.word == "ip" else pod.link
        if meaning:
            now[placeholder] = meaning
    return now


async def _tunnel_address(cluster: Cluster, node: str) -> str:
    link = await kernel.link(cluster.netns(Place("node", node)), VXLAN_DEVICE)
    return next((str(a["local"]) for a in (link or {}).get("addr_info", ()) if a.get("scope") == "global"), "")


async def settle(found: Iterable[Check], *, patience_s: float) -> list[Finding]:
    """Every check's last verdict, in their order: tried side by side until they hold and last, or time is up."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def until_it_holds(check: Check) -> Verdict:
        while True:
            verdict = await check.attempt()
            if verdict.holds or loop.time() >= began + patience_s:
                return verdict
            await asyncio.sleep(RETRY_EVERY_S)

    async def still(check: Check, before: Verdict) -> Verdict:
        if not (check.lasting and before.holds):
            return before
        now = await check.attempt()
        return now if now.holds else Verdict(False, f"{before.seen}; a moment later: {now.seen}", now.look)

    found = list(found)
    verdicts = await _side_by_side(until_it_holds(check) for check in found)
    if any(check.lasting for check in found):
        await asyncio.sleep(max(began + SETTLE_S - loop.time(), 0))
        pairs = zip(found, verdicts, strict=True)
        verdicts = await _side_by_side(still(check, verdict) for check, verdict in pairs)
    return [Finding(check, verdict) for check, verdict in zip(found, verdicts, strict=True)]


async def _side_by_side(work: Iterable[Any]) -> list[Verdict]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(item) for item in work]
    return [task.result() for task in tasks]
