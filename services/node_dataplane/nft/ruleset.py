"""What the table in the kernel shall hold: sets and their elements, chains, counters; as journals, and as nft commands.

`differences` takes what changed since it was last asked, in the order in which the kernel can accept it:

    sets, then their elements (those of maps aside), counters, chains, rules, elements of maps;
    then what goes, the other way round: rules, sets, chains, counters

Where a new map with intervals is among it, or a new chain to which an old map leads, all that nobody leads to yet goes
ahead, in a transaction of its own; and where maps go, all that nobody leads to any more goes behind in another, and so
does what a map denied while rules change: see `transaction`.

`script` is the whole of it, in place of whatever is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from services.node_dataplane.nft.attribution import Claims, Counted, Denial
from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.journal import Journal
from services.node_dataplane.nft.names import LIMIT, TABLE
from services.node_dataplane.nft.references import References
from services.node_dataplane.nft.render import comment
from services.node_dataplane.nft.sets import DISPATCH, SetKind, SetSpec
from services.node_dataplane.nft.transaction import Command, Elements, Statement

GUARD = Counted("", "egress", "deny")
"""What stands in the journal for a counter of the fixed part."""

_NOTHING: Mapping[bytes, str] = {}


_Changes = list[tuple[str, list[Command]]]


class Differences(NamedTuple):
    commands: tuple[Command, ...]
    ahead: tuple[Command, ...]
    behind: tuple[Command, ...]
    """See `transaction.Transaction`."""


class Ruleset:
    def __init__(self) -> None:
        self._sets: Journal[str, SetSpec] = Journal()
        self._elements: dict[str, Journal[bytes, str]] = {}
        self._touched: set[str] = set()
        """Sets with a journal to look into."""
        self._chains: Journal[str, Chain] = Journal()
        self._counters: Journal[str, Counted] = Journal()
        self._counter_users: References[object, str] = References()
        self._denials: dict[str, Denial] = {}
        self._denial_users: References[object, str] = References()

    # --- sets and elements

    def open(self, name: str, spec: SetSpec, rows: Mapping[bytes, str] = _NOTHING) -> None:
        """The set exists, with exactly these elements. What it was first said to be stays written on it."""
        if name not in self._sets.now:
            self._sets.put(name, spec)
        assert self._sets.now[name].kind is spec.kind, f"{name} is a set of another kind"
        self.fill(name, rows)

    def fill(self, name: str, rows: Mapping[bytes, str]) -> None:
        elements = self._elements.setdefault(name, Journal())
        for key in elements.now.keys() - rows.keys():
            elements.discard(key)
        for key, verdict in rows.items():
            elements.put(key, verdict)
        self._touched.add(name)

    def close(self, name: str) -> None:
        if name in self._sets.now:
            self._sets.discard(name)
            self._elements[name].clear()
            self._touched.add(name)

    def has_set(self, name: str) -> bool:
        return name in self._sets.now

    def put(self, name: str, key: bytes, verdict: str = "") -> None:
        self._elements[name].put(key, verdict)
        self._touched.add(name)

    def discard(self, name: str, key: bytes) -> None:
        self._elements[name].discard(key)
        self._touched.add(name)

    def elements(self, name: str) -> Mapping[bytes, str]:
        return self._elements[name].now

    # --- chains, counters

    def chain(self, name: str, chain: Chain | None) -> None:
        if chain is None:
            self._chains.discard(name)
        else:
            self._chains.put(name, chain)

    def claim(self, user: object, claims: Claims) -> None:
        """`user` needs exactly these counters and prefixes from now on."""
        shift = self._counter_users.set(user, frozenset(claims.counters))
        for name in shift.gained:
            self._counters.put(name, claims.counters[name])
        for name in shift.lost:
            self._counters.discard(name)
        for prefix in self._denial_users.set(user, frozenset(claims.denials)).lost:
            del self._denials[prefix]
        self._denials.update(claims.denials)

    def guard_counter(self, name: str) -> None:
        self._counters.put(name, GUARD)

    @property
    def counters(self) -> Mapping[str, Counted]:
        return self._counters.now

    def denial(self, prefix: str) -> Denial | None:
        return self._denials.get(prefix)

    # --- commands

    @property
    def due(self) -> bool:
        return bool(self._touched or self._sets.touched or self._chains.touched or self._counters.touched)

    def settle(self) -> None:
        """Whatever changed is taken care of."""
        self._sets.settle()
        self._chains.settle()
        self._counters.settle()
        for elements in self._elements.values():
            elements.settle()
        for name in self._elements.keys() - self._sets.now.keys():
            del self._elements[name]
        self._touched.clear()

    def hash_sets(self) -> dict[str, SetKind]:
        """Those whose elements are ours to write, one by one."""
        kinds = ((name, spec.kind) for name, spec in self._sets.now.items())
        return {name: kind for name, kind in kinds if not (kind.interval or kind.dynamic)}

    def differences(self) -> Differences:
        sets = self._sets.settle()
        chains = self._chains.settle()
        counters = self._counters.settle()
        changed, dispatch, lifted = self._element_changes({name for name, _, new in sets if new is None})
        fresh = {name for name, old, _ in sets if old is None}

        main: list[Command] = []
        slow = any(new is not None and new.kind.mapped and new.kind.interval for name, _, new in sets if name in fresh)
        if any(before is None and after is not None and not after.hook for _, before, after in chains):
            slow = slow or any(self._sets.now[name].kind.verdicts for name, _ in dispatch if name not in fresh)
        ahead: list[Command] = [] if slow else main
        for name, old, new in sets:
            if new is not None:
                assert old is None or old.kind is new.kind
                if old is None:
                    ahead.append(_add_set(name, new))
        for name, commands in changed:
            (ahead if name in fresh else main).extend(commands)
        for name, counted, counting in counters:
            if counted is None and counting is not None:
                ahead.append(_add_counter(name))
        for name, before, after in chains:
            if before is None and after is not None:
                (main if after.hook else ahead).append(_add_chain(name, after))
        for name, before, after in chains:
            if after is not None and (before is None or before.lines != after.lines):
                if before is not None:
                    main.append(Statement(f"flush chain inet {TABLE} {name}"))
                (main if before is not None or after.hook else ahead).extend(_add_rules(name, after))
        for name, commands in dispatch:
            (ahead if name in fresh else main).extend(commands)
        missed = any(new is None and old is not None and old.kind.mapped for _, old, new in sets)
        rewritten = any(before is not None and after is not None for _, before, after in chains)
        apart = missed or (rewritten and bool(lifted))
        behind: list[Command] = [] if apart else main
        behind.extend(lifted)
        gone = [(name, before) for name, before, after in chains if before is not None and after is None]
        for name, before in gone:
            (main if before.hook else behind).append(Statement(f"flush chain inet {TABLE} {name}"))
        for name, old, new in sets:
            if new is None and old is not None:
                behind.append(Statement(f"delete {old.kind.word} inet {TABLE} {name}"))
        for name, _ in gone:
            behind.append(Statement(f"delete chain inet {TABLE} {name}"))
        for name, _, counting in counters:
            if counting is None:
                behind.append(Statement(f"delete counter inet {TABLE} {name}"))
        return Differences(tuple(main), tuple(ahead) if slow else (), tuple(behind) if apart else ())

    def _element_changes(self, gone: set[str]) -> tuple[_Changes, _Changes, list[Command]]:
        """(elements of sets, elements of maps), by name; and of the latter apart, what a map no longer denies."""
        changed: _Changes = []
        dispatch: _Changes = []
        lifted: list[Command] = []
        for name in sorted(self._touched):
            if name in gone:
                del self._elements[name]
                continue
            if name not in self._sets.now:
                self._elements.pop(name, None)  # It came and went since.
                continue
            elements = self._elements[name]
            changes = elements.settle()
            if not changes:
                continue
            kind = self._sets.now[name].kind
            commands: list[Command] = []
            (dispatch if kind.mapped else changed).append((name, commands))
            if kind.interval:
                commands.append(Statement(f"flush {kind.word} inet {TABLE} {name}"))
                rows: tuple[tuple[bytes, str], ...] = tuple(sorted(elements.now.items()))
                if rows:
                    commands.append(Elements("add", name, kind, rows))
                continue
            removed = [(key, old, new) for key, old, new in changes if old is not None]
            denying = kind.verdicts and kind is not DISPATCH
            undenied = tuple((key, old) for key, old, new in removed if denying and new is None)
            deleted = tuple((key, old) for key, old, new in removed if not denying or new is not None)
            added = tuple((key, new) for key, _, new in changes if new is not None)
            if deleted:
                commands.append(Elements("delete", name, kind, deleted))
            if added:
                commands.append(Elements("add", name, kind, added))
            if undenied:
                lifted.append(Elements("delete", name, kind, undenied))
        self._touched.clear()
        return changed, dispatch, lifted

    def script(self, *, with_elements: bool) -> Iterator[Command]:
        """The whole table; without `with_elements` those of hash sets are left out."""
        yield Statement(f"add table inet {TABLE}")
        yield Statement(f"delete table inet {TABLE}")
        yield Statement(f"add table inet {TABLE}")
        yield Statement(f"add limit inet {TABLE} {LIMIT} {{ rate 100/second burst 200 packets; }}")
        for name in self._counters.now:
            yield _add_counter(name)
        for name, spec in self._sets.now.items():
            yield _add_set(name, spec)
        for name, chain in self._chains.now.items():
            yield _add_chain(name, chain)
        for name, chain in self._chains.now.items():
            yield from _add_rules(name, chain)
        for name, spec in self._sets.now.items():
            if with_elements or spec.kind.interval:
                rows = tuple(sorted(self._elements[name].now.items()))
                if rows:
                    yield Elements("add", name, spec.kind, rows)


def _add_counter(name: str) -> Statement:
    return Statement(f"add counter inet {TABLE} {name}")


def _add_set(name: str, spec: SetSpec) -> Statement:
    note = f" {comment(spec.comment)};" if spec.comment else ""
    return Statement(f"add {spec.kind.word} inet {TABLE} {name} {{ {spec.kind.declaration}{note} }}")


def _add_chain(name: str, chain: Chain) -> Statement:
    inner = " ".join(filter(None, (chain.hook, f"{comment(chain.comment)};" if chain.comment else "")))
    return Statement(f"add chain inet {TABLE} {name}" + (f" {{ {inner} }}" if inner else ""))


def _add_rules(name: str, chain: Chain) -> Iterator[Statement]:
    for line in chain.lines:
        yield Statement(f"add rule inet {TABLE} {name} {line}")
