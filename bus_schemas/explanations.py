"""A verdict told to people: what `GET /v1/explain` answers and the command line prints.

Verdict (of `verdicts`) --way_report--> WayReport: policies in order, the rule that decided, why the others did not
WayReport egress + ingress + notes      Explanation: the answer to "may FROM speak to TO?"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from bus_schemas import coverage
from bus_schemas import verdict_words as words
from bus_schemas.policy import Direction, Way
from bus_schemas.policy_snapshot import Snapshot
from bus_schemas.verdicts import Flow, Skipped, Step, Verdict, decide

Action = Literal["allow", "deny"]


HOST = "host endpoint "
"""What the name of an endpoint begins with that is a node's."""


class SkippedRule(msgspec.Struct, frozen=True, kw_only=True):
    rule: str
    """`ingress[0]`: its place in the manifest, and its name where it has one."""
    says: str
    why: str


class PolicyStep(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One policy, profile or end; in the order of evaluation."""

    kind: Literal["policy", "tier default", "profile", "default"]
    tier: str = ""
    policy: str = ""
    """`<Kind>/<namespace>/<name>`; its id while it is not known."""
    outcome: Literal["allow", "deny", "pass", "no match"]
    rule: str = ""
    """`ingress[0]`: the rule that decided."""
    says: str = ""
    """That rule in words, or what the end is."""
    why: str = ""
    """Why it denies although the rule says otherwise."""
    skipped: tuple[SkippedRule, ...] = ()


class WayReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one end's policies say, one way."""

    way: Way
    endpoint: str
    """`shop/web`."""
    action: Action
    because: str
    steps: tuple[PolicyStep, ...]
    preview: WayReport | None = None
    """With the staged policies in force, where that comes to something else."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    source: str
    destination: str
    traffic: str
    """`TCP/80`."""
    source_address: str
    destination_address: str
    action: Action
    because: str
    egress: WayReport | None = None
    """None: no policy governs the source's side."""
    hosts: tuple[WayReport, ...] = ()
    """What host endpoints say on the way: before NAT, forwarded, not tracked."""
    ingress: WayReport | None = None
    preview_action: Action | None = None
    """With the staged policies in force, where that differs."""
    notes: tuple[str, ...] = ()


def way_report(endpoint: str, direction: Direction, way: Way, flow: Flow, world: Snapshot) -> WayReport:
    now = _report(endpoint, way, decide(direction, way, flow, world), flow, world)
    if direction.preview is None:
        return now
    staged = decide(direction, way, flow, world, preview=True)
    if staged.action == now.action:
        return now
    return msgspec.structs.replace(now, preview=_report(endpoint, way, staged, flow, world))


def conclude(*ways: WayReport | None, otherwise: str) -> tuple[Action, str, Action | None]:
    """All of them together: (action, because, what it would be with the staged policies, if that differs)."""
    reports = [report for report in ways if report is not None]
    denying = next((report for report in reports if report.action == "deny"), None)
    action: Action = "deny" if denying is not None else "allow"
    if denying is not None:
        because = f"{denying.way} of {denying.endpoint}: {denying.because}"
    else:
        because = "; ".join(f"{report.way} of {report.endpoint}: {report.because}" for report in reports) or otherwise
    staged: Action = "deny" if any((r.preview or r).action == "deny" for r in reports) else "allow"
    return action, because, staged if staged != action else None


def _report(endpoint: str, way: Way, verdict: Verdict, flow: Flow, world: Snapshot) -> WayReport:
    steps = tuple(_step(step, way, flow, world) for step in verdict.steps)
    if endpoint.startswith(HOST) and steps[-1].kind == "default" and verdict.action == "allow":
        steps = (*steps[:-1], msgspec.structs.replace(steps[-1], says="its profile allows it"))
    return WayReport(
        way=way, endpoint=endpoint, action=verdict.action, because=_because(verdict.steps, steps[-1]), steps=steps
    )


def _step(step: Step, way: Way, flow: Flow, world: Snapshot) -> PolicyStep:
    if step.kind == "tier default":
        end = "denies" if step.outcome == "deny" else "passes on"
        says = f"no policy of tier {step.tier} decided, and the tier then {end}"
        return PolicyStep(kind=step.kind, tier=step.tier, outcome=step.outcome, says=says)
    if step.kind == "default":
        allowed = "the profile of its namespace allows it" if step.outcome == "allow" else "no profile allows it"
        return PolicyStep(kind=step.kind, outcome=step.outcome, says=allowed)
    skipped = tuple(_skipped(one, way, flow, world) for one in step.skipped)
    return PolicyStep(
        kind=step.kind,
        tier=step.tier,
        policy=step.policy or str(step.rules),
        outcome=step.outcome,
        rule="" if step.rule is None else _place(step.rule.index, step.rule.name, way),
        says="" if step.rule is None else words.rule(step.rule, world.selector),
        why=_why(step),
        skipped=skipped,
    )


def _skipped(one: Skipped, way: Way, flow: Flow, world: Snapshot) -> SkippedRule:
    matched = "it matched: logged, and went on"
    why = matched if one.miss is None else words.miss(one.miss, one.rule, flow, world.selector)
    return SkippedRule(
        rule=_place(one.rule.index, one.rule.name, way), says=words.rule(one.rule, world.selector), why=why
    )


def _why(step: Step) -> str:
    match step.why:
        case "rules not known":
            return "its rules are not known (yet), so everything is denied"
        case "group not known":
            return "a group that it names is not known (yet), so what the rest of it covers is denied"
        case "not compiled":
            reason = step.rule.never if step.rule is not None else ""
            return f"it could not be compiled ({reason}), so what the rest of it covers is denied"
        case "unwritable":
            reason = coverage.fault(step.rule) if step.rule is not None else ""
            return f"it cannot be enforced as it stands ({reason}), so what the rest of it covers is denied"
    return ""


def _place(index: int, name: str, way: Way) -> str:
    return f'{way}[{index}] "{name}"' if name else f"{way}[{index}]"


def _because(steps: Sequence[Step], last: PolicyStep) -> str:
    """One clause for the whole path."""
    if last.kind in ("policy", "profile"):
        rule = f" {last.rule}" if last.rule else ""
        return f"{last.policy}{rule}" + (f": {last.why}" if last.why else "")
    governing = [step for step in steps if step.kind == "policy"]
    if last.kind == "tier default":
        mine = [step.policy or str(step.rules) for step in governing if step.tier == last.tier]
        shown = ", ".join(mine[:3]) + (f" and {len(mine) - 3} more" if len(mine) > 3 else "")
        return f"no rule of {shown} matches, and tier {last.tier} then denies"
    if not governing:
        return f"no policy governs it, and {last.says}"
    return f"no policy decides, and {last.says}"
