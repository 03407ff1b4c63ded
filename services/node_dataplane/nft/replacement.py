"""How a whole table takes the place of another one, while packets pass. Pure.

    add       tortie_meanwhile     all of it under another name: packets meet both tables, either denies
    flush     tortie               no rules, but its maps: a packet on its way through the old rules finds them filled
    replace   tortie               the kernel fills maps with intervals last, a moment after the rules lead there
    flush     tortie_meanwhile
    delete    tortie_meanwhile

Each step is a transaction of its own. In a single one, a packet on its way would find the old maps emptied (and be
dropped for want of a policy, or pass what a map denied), and the next ones the new maps with intervals still empty.

Whoever ends between the steps leaves the other table behind: the next replacement takes it away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.transaction import Command

MEANWHILE = f"{TABLE}_meanwhile"


def scripts(whole: Iterable[Command]) -> Iterator[str]:
    """The steps, one after the other; `whole` are the commands that put the table in the place of whatever is there."""
    lines = [f"{command}\n" for command in whole]
    yield "".join(line.replace(f" {TABLE}", f" {MEANWHILE}", 1) for line in lines)  # A table comes before all names.
    yield f"flush table inet {TABLE}\n"
    yield "".join(lines)
    yield f"flush table inet {MEANWHILE}\n"
    yield f"delete table inet {MEANWHILE}\n"
