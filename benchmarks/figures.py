"""What every benchmark does with its numbers: medians, tails, and a table that is valid Markdown.

A time alone says little on a machine that others use too, so figures are taken in turn with those of their peer, in one
run, and told as medians, 99th percentiles and ratios.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = Mapping[str, object]


def p50(values: Iterable[float]) -> float:
    return statistics.median(values)


def p99(values: Iterable[float]) -> float:
    """The 99th percentile; of fewer than 100 values the greatest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def spread(values: Sequence[float], digits: int = 2) -> dict[str, object]:
    """Columns for a list of milliseconds."""
    return {"p50 ms": round(p50(values), digits), "p99 ms": round(p99(values), digits), "n": len(values)}


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints a Markdown table."""
    print(f"\n{title}\n")
    names = list(rows[0])
    cells = [[str(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    for line in (names, ["-" * width for width in widths], *cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print(flush=True)


def machine() -> str:
    """One line about where the figures come from."""
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    return (
        f"{len(os.sched_getaffinity(0))} CPUs, {memory:.0f} GB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
