"""What the policy compiler's core does when somebody asks for the worst, in CPU seconds and memory.

    python -m benchmarks.policy_compile_worst [--pods 100000] [--policies 10000]

1. Policies that each select every pod, all of them by one selector (`all()`) or each by another one.
2. A policy whose rule names a group that nobody was in: 100,000 pods come to be members. And go again.
3. A policy that suddenly governs every pod: each attachment changes. And none of them again.
4. A namespace of all pods changes a label on which a group depends: every pod moves.

Each case is a process of its own, as memory is never quite given back. CPU time is what counts on a machine that others
use; `of calibration` is its ratio to a fixed loop of plain Python in the same process.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.figures import Row, machine, show
from benchmarks.policy_compile import calibration, endpoint, memory_mb, namespace, pod
from bus_schemas.codec import Message, encode
from bus_schemas.resources import GlobalNetworkPolicy, Metadata
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule, GlobalNetworkPolicySpec
from bus_schemas.subjects import DESIRED, Fact
from services.policy_compiler.core import Changes, Core

SAMPLE = 1_000
"""Messages of a kind of which the size is looked at."""


def policy(n: int, selector: str, peer: str = "app == 'client'") -> Fact:
    name = f"policy-{n}"
    rule = CalicoRule(action="Allow", source=EntityRule(selector=peer))
    spec = GlobalNetworkPolicySpec(selector=selector, types=("Ingress",), ingress=(rule,))
    return Fact(DESIRED[GlobalNetworkPolicy], ("", name), GlobalNetworkPolicy(metadata=Metadata(name=name), spec=spec))


def pods(number: int, spaces: int) -> Iterator[Fact]:
    yield from (namespace(n, {}) for n in range(spaces))
    yield from (pod(n, spaces, {}) for n in range(number))
    yield from (endpoint(n, spaces) for n in range(number))


def compiled(core: Core, facts: Iterator[Fact] | list[Fact]) -> tuple[float, Changes]:
    """CPU seconds of applying and flushing, and what came of it."""
    began = time.process_time()
    for fact in facts:
        core.apply(fact)
    changes = core.flush()
    return time.process_time() - began, changes


def sampled(messages: Sequence[Message | None]) -> float:
    """The mean size of the last."""
    some = messages[-SAMPLE:]
    return sum(len(encode(message)) for message in some if message is not None) / max(1, len(some))


class Case:
    """The rows of one case, with what they cost."""

    def __init__(self) -> None:
        gc.disable()
        self.rows: list[Row] = []
        self.core = Core()
        self._loop = calibration()

    def step(self, what: str, facts: Iterator[Fact] | list[Fact]) -> None:
        seconds, changes = compiled(self.core, facts)
        gc.freeze()
        kinds = (changes.groups, changes.rules, changes.directions, changes.attachments)
        sizes = [sampled(list(messages.values())) for messages in kinds]
        self.rows.append(
            {
                "what": what,
                "CPU s": round(seconds, 2),
                "of calibration": f"{seconds / self._loop:.1f}x",
                "MB": round(memory_mb()),
                "messages": len(changes),
                "directions": len(changes.directions),
                "bytes of an attachment": round(sizes[-1]),
                "MB to publish": round(sum(size * len(held) for size, held in zip(sizes, kinds, strict=True)) / 1e6, 1),
            }
        )


def everybody(number: int, policies: int, selector: Callable[[int], str]) -> list[Row]:
    case = Case()
    case.step(f"{number} pods", pods(number, 1000))
    case.step(f"{policies} policies, each for all of them", [policy(n, selector(n)) for n in range(policies)])
    case.step("one pod more", [pod(number, 1000, {}), endpoint(number, 1000)])
    case.step("one policy changes its rules", [policy(0, selector(0), "app == 'other'")])
    case.step("one policy less", [policy(1, selector(1))._replace(value=None)])
    return case.rows


def one_selector(number: int, policies: int) -> list[Row]:
    return everybody(number, policies, lambda n: "all()")


def many_selectors(number: int, policies: int) -> list[Row]:
    return everybody(number // 10, policies // 10, lambda n: f"role != 'r{n}'")


def suddenly(number: int, policies: int) -> list[Row]:
    case = Case()
    case.step(f"{number} pods", pods(number, 1000))
    case.step("a rule names nobody", [policy(0, "app == 'nobody'", "app == 'nobody'")])
    case.step("its group is everybody", [policy(0, "app == 'nobody'", "has(app)")])
    case.step("one member more", [pod(number, 1000, {}), endpoint(number, 1000)])
    case.step("nobody again", [policy(0, "app == 'nobody'", "app == 'nobody'")])
    case.step("it governs everybody", [policy(0, "has(app)", "app == 'nobody'")])
    case.step("nobody again", [policy(0, "app == 'nobody'", "app == 'nobody'")])
    return case.rows


def one_namespace(number: int, policies: int) -> list[Row]:
    case = Case()
    case.step(f"{number} pods of one namespace", pods(number, 1))
    case.step("a rule names its team's pods", [policy(0, "app == 'nobody'", "pcns.team == 'blue'")])
    case.step("the namespace joins the team", [namespace(0, {"team": "blue"})])
    case.step("and leaves it", [namespace(0, {})])
    return case.rows


CASES = {
    "policies that select every pod by one selector": one_selector,
    "policies that select every pod, each by its own selector (a tenth of each)": many_selectors,
    "a selector that suddenly matches all": suddenly,
    "one namespace of all pods": one_namespace,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--policies", type=int, default=2_000)
    args = parser.parse_args()
    print(machine())
    for name, case in CASES.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            show(f"{name[0].upper()}{name[1:]}", pool.apply(case, (args.pods, args.policies)))


if __name__ == "__main__":
    main()
