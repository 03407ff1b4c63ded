"""The policy compiler with stamps, for a benchmark that asks where the time of a change goes.

    python -m benchmarks.policy_compile_stamped FILE      (set by the environment, as the service itself)

It is the service as it is: `serve` with a core and a bus that write down when they were called. What it wrote down goes
into FILE when it ends. The clock is the one of `time.perf_counter`, which all processes of a machine share.
"""

from __future__ import annotations

import gc
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from benchmarks.figures import Row, p50
from bus_schemas.subjects import Fact
from chassis.bus import Write
from chassis.runner import Context, run
from services.policy_compiler import service
from services.policy_compiler.core import Changes, Core
from services.policy_compiler.settings import Settings

Did = Literal["heard", "compiled", "stored", "collected"]


class Stamp(NamedTuple):
    what: Did
    began: float
    ended: float
    messages: int = 0


class Stages(NamedTuple):
    """Milliseconds of one change."""

    total: float
    to_the_core: float
    """From the event's hand-over to the bus until the core is given it."""
    compiling: float
    handing_over: float
    """From what the core returned until the first batch goes to the bus."""
    storing: float
    """From the first batch until the last message is heard by somebody else."""
    batches: int
    slowest_batch: float
    collecting: float
    """The cyclic collector at work, within any of these."""

    def row(self, name: str) -> Row:
        return {"change": name, **{k: round(v, 2) for k, v in self._asdict().items()}}


class Stamps:
    """All of one process."""

    def __init__(self, stamps: Sequence[Stamp]) -> None:
        self._stamps = sorted(stamps, key=lambda stamp: stamp.began)
        self._began = [stamp.began for stamp in self._stamps]

    @classmethod
    def read(cls, file: Path) -> Stamps:
        return cls(msgspec.msgpack.decode(file.read_bytes(), type=list[Stamp]))

    def of(self, began: float, ended: float) -> Stages | None:
        """What happened to the one change that was made at this time; None: another process did it."""
        seen = self._stamps[bisect_left(self._began, began) : bisect_left(self._began, ended)]
        heard = next((stamp for stamp in seen if stamp.what == "heard"), None)
        compiled = next((stamp for stamp in seen if stamp.what == "compiled" and stamp.messages), None)
        if heard is None or compiled is None:
            return None
        stored = [stamp for stamp in seen if stamp.what == "stored" and stamp.began >= compiled.ended]
        if not stored:
            return None
        collecting = sum(stamp.ended - stamp.began for stamp in seen if stamp.what == "collected")
        seconds = (
            ended - began,
            heard.began - began,
            compiled.ended - heard.began,
            stored[0].began - compiled.ended,
            ended - stored[0].began,
        )
        slowest = max(stamp.ended - stamp.began for stamp in stored)
        return Stages(*(s * 1e3 for s in seconds), len(stored), slowest * 1e3, collecting * 1e3)


def medians(stages: Sequence[Stages]) -> Stages:
    return Stages(*(p50(column) for column in zip(*stages, strict=True)))  # type: ignore[arg-type]


class _Recorder:
    def __init__(self) -> None:
        self.stamps: list[Stamp] = []
        self._collecting = 0.0

    def add(self, what: Did, began: float, messages: int = 0) -> None:
        self.stamps.append(Stamp(what, began, time.perf_counter(), messages))

    def collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.perf_counter()
        else:
            self.add("collected", self._collecting)


def main(file: Path) -> int:
    recorder = _Recorder()
    gc.callbacks.append(recorder.collected)

    class StampedCore(Core):
        flushed = False
        """What is heard before is no change."""

        def apply(self, fact: Fact) -> None:
            began = time.perf_counter()
            super().apply(fact)
            if self.flushed:
                recorder.add("heard", began)

        def flush(self) -> Changes:
            began = time.perf_counter()
            changes = super().flush()
            self.flushed = True
            recorder.add("compiled", began, len(changes))
            return changes

    async def serve(context: Context[Settings]) -> None:
        batch = context.bus.batch

        async def stamped(writes: Sequence[Write]) -> list[int]:
            began = time.perf_counter()
            try:
                return await batch(writes)
            finally:
                if writes and writes[0].family.words[0] == "policy":
                    recorder.add("stored", began, len(writes))

        bus: Any = context.bus
        bus.batch = stamped
        await service.serve(context)

    core: Any = service
    core.Core = StampedCore
    code = run(service.SERVICE, Settings, serve)
    file.write_bytes(msgspec.msgpack.encode(recorder.stamps))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
