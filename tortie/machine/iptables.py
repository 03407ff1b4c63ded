"""What another program has in iptables, taken out in one commit a table. Pure.

Its chains go with the rules of others' chains that lead there, and so do the rules that it tagged with a comment of its
own. Everything else of the table, kube-proxy's `KUBE-*` chains included, is not named in the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tortie.machine.plan import Step
from tortie.machine.state import Chains


def removal(
    tables: Iterable[Chains], *, chain: Callable[[str], bool], comment: Callable[[str], bool]
) -> Iterator[Step]:
    """`chain`, `comment`: whether one with this name, or text, is theirs."""
    for table in tables:
        theirs = [name for name in table.chains if chain(name)]
        lines = [
            f"-D {rule.removeprefix('-A ')}"
            for rule, words in table.words()
            if words[1] not in theirs and (_leads(words, theirs) or any(map(comment, _comments(words))))
        ]
        lines += [f"-F {name}" for name in theirs] + [f"-X {name}" for name in theirs]
        if lines:
            what = [*theirs] or [f"{len(lines)} rules"]
            yield Step(
                f"{table.program} chains",
                f"{table.table}: {', '.join(what)}",
                (f"{table.program}-restore", "--noflush"),
                input="\n".join((f"*{table.table}", *lines, "COMMIT", "")),
            )


def _leads(words: tuple[str, ...], chains: list[str]) -> bool:
    return any(word in ("-j", "-g") and target in chains for word, target in pairwise(words))


def _comments(words: tuple[str, ...]) -> Iterator[str]:
    return (text for word, text in pairwise(words) if word == "--comment")
