"""Selectors: which endpoints a policy, rule or pool means by their labels (Calico's language).

    text --parse_tree--> Node (immutable tree) --of--> Selector: a fast predicate, a canonical text, an identity,
                                                       and the conditions by which an index finds candidates

Selectors are interned: equal canonical texts are one object while it lives. On an absent label `!=` and `not in` are
true and every other comparison is false. `global()` is true here: what it means (not in any namespace) is said by
whoever rewrites a namespace selector. The grammar is in `selector_syntax`.

See https://docs.tigera.io/calico/latest/reference/resources/networkpolicy#selectors.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from hashlib import sha224
from types import MappingProxyType
from typing import NamedTuple, final
from weakref import WeakValueDictionary

from bus_schemas.ids import GroupId
from bus_schemas.resources.metadata import LabelSelector, LabelSelectorRequirement
from bus_schemas.selector_syntax import (
    All,
    And,
    Compare,
    Global,
    Has,
    Node,
    Not,
    Or,
    SelectorError,
    Token,
    TokenKind,
    Within,
    parse_tree,
    tokenize,
)

__all__ = [
    "ALL",
    "All",
    "And",
    "Compare",
    "Global",
    "Has",
    "LabelRestriction",
    "Node",
    "Not",
    "Or",
    "Selector",
    "SelectorError",
    "Token",
    "TokenKind",
    "Within",
    "all_of",
    "equals",
    "from_label_selector",
    "has",
    "leaves",
    "negated",
    "of",
    "one_of",
    "parse",
    "tokenize",
]

PARSED_TEXTS = 1 << 16
"""How many texts `parse` remembers."""

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]


def _predicate(node: Node) -> Predicate:
    """A closure that evaluates the tree: no dispatch is left for the time of matching."""
    match node:
        case All() | Global():
            return lambda labels: True
        case Has(label):
            return lambda labels: label in labels
        case Compare(label, operator, value):
            return _comparison_predicate(label, operator, value)
        case Within(label, values, negated):
            members = frozenset(values)
            if negated:
                return lambda labels: labels.get(label) not in members
            return lambda labels: labels.get(label) in members
        case Not(operand):
            holds = _predicate(operand)
            return lambda labels: not holds(labels)
        case And(operands):
            return _balanced(_both, tuple(map(_predicate, operands)))
        case Or(operands):
            return _balanced(_either, tuple(map(_predicate, operands)))


def _balanced(join: Callable[[Predicate, Predicate], Predicate], operands: tuple[Predicate, ...]) -> Predicate:
    """The operands joined in their order, in a tree as low as it can be: however many there are, calls stay shallow."""
    if len(operands) == 1:
        return operands[0]
    half = len(operands) // 2
    return join(_balanced(join, operands[:half]), _balanced(join, operands[half:]))


def _comparison_predicate(label: str, operator: TokenKind, value: str) -> Predicate:
    match operator:
        case TokenKind.EQ:
            return lambda labels: labels.get(label) == value
        case TokenKind.NE:
            return lambda labels: labels.get(label) != value
        case TokenKind.CONTAINS:
            return lambda labels: (has := labels.get(label)) is not None and value in has
        case TokenKind.STARTS_WITH:
            return lambda labels: (has := labels.get(label)) is not None and has.startswith(value)
        case _:
            assert operator is TokenKind.ENDS_WITH
            return lambda labels: (has := labels.get(label)) is not None and has.endswith(value)


def _both(first: Predicate, second: Predicate) -> Predicate:
    return lambda labels: first(labels) and second(labels)


def _either(first: Predicate, second: Predicate) -> Predicate:
    return lambda labels: first(labels) or second(labels)


def _canonical(node: Node) -> str:
    match node:
        case All():
            return "all()"
        case Global():
            return "global()"
        case Has(label):
            return f"has({label})"
        case Compare(label, operator, value):
            return f"{label} {operator} {_quoted(value)}"
        case Within(label, values, negated):
            return f"{label} {'not in' if negated else 'in'} {{{', '.join(map(_quoted, values))}}}"
        case Not(operand):
            return f"!{_canonical(operand)}"
        case And(operands):
            return f"({' && '.join(map(_canonical, operands))})"
        case Or(operands):
            return f"({' || '.join(map(_canonical, operands))})"


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


class LabelRestriction(NamedTuple):
    """What every match must show at one label: the key by which an index finds candidates."""

    must_be_present: bool = False
    must_be_absent: bool = False
    one_of: frozenset[str] | None = None
    """The value must be one of these (none: nothing can match). None: any value will do."""

    @property
    def restricts(self) -> bool:
        return self.must_be_present or self.must_be_absent or self.one_of is not None


Restrictions = Mapping[str, LabelRestriction]


def _restrictions(node: Node) -> dict[str, LabelRestriction]:
    """Necessary conditions only: what a tree does not promise for sure is left out."""
    match node:
        case Has(label):
            return {label: LabelRestriction(must_be_present=True)}
        case Compare(label, TokenKind.EQ, value):
            return {label: LabelRestriction(must_be_present=True, one_of=frozenset({value}))}
        case Compare(label, TokenKind.CONTAINS | TokenKind.STARTS_WITH | TokenKind.ENDS_WITH, _):
            return {label: LabelRestriction(must_be_present=True)}
        case Within(label, values, False):
            return {label: LabelRestriction(must_be_present=True, one_of=frozenset(values))}
        case Not(Has(label)):
            return {label: LabelRestriction(must_be_absent=True)}
        case And(operands):
            return _all_hold(map(_restrictions, operands))
        case Or(operands):
            return reduce(_one_holds, map(_restrictions, operands))
        case _:
            return {}


def _all_hold(parts: Iterable[dict[str, LabelRestriction]]) -> dict[str, LabelRestriction]:
    merged: dict[str, LabelRestriction] = {}
    for part in parts:
        for label, new in part.items():
            old = merged.get(label, LabelRestriction())
            if old.one_of is None or new.one_of is None:
                one_of = new.one_of if old.one_of is None else old.one_of
            else:
                one_of = old.one_of & new.one_of
            merged[label] = LabelRestriction(
                old.must_be_present or new.must_be_present, old.must_be_absent or new.must_be_absent, one_of
            )
    return merged


def _one_holds(first: dict[str, LabelRestriction], second: dict[str, LabelRestriction]) -> dict[str, LabelRestriction]:
    merged: dict[str, LabelRestriction] = {}
    for label in first.keys() & second.keys():
        a, b = first[label], second[label]
        one_of = None if a.one_of is None or b.one_of is None else a.one_of | b.one_of
        both = LabelRestriction(a.must_be_present and b.must_be_present, a.must_be_absent and b.must_be_absent, one_of)
        if both.restricts:
            merged[label] = both
    return merged


def _prefixed(node: Node, prefix: str) -> Node:
    match node:
        case Has(label):
            return Has(prefix + label)
        case Compare(label, operator, value):
            return Compare(prefix + label, operator, value)
        case Within(label, values, negated):
            return Within(prefix + label, values, negated)
        case Not(operand):
            return Not(_prefixed(operand, prefix))
        case And(operands):
            return And(tuple(_prefixed(operand, prefix) for operand in operands))
        case Or(operands):
            return Or(tuple(_prefixed(operand, prefix) for operand in operands))
        case _:
            return node


# --- the selector


@final
class Selector:
    """One selector. Equal canonical texts are one object while it lives, so selectors are compared by identity.

    Made by `parse`, `of` and the functions below, never directly.
    """

    __slots__ = ("__weakref__", "_restrictions", "_uid", "canonical", "matches", "node")

    node: Node
    canonical: str
    """The text that every way of writing this tree comes down to. Parsing it gives an equivalent selector, and this
    one itself unless parentheses kept a double negation apart (`!!` is read as nothing, `!(!` is not, as in Calico)."""
    matches: Predicate
    """`matches(labels) -> bool`."""

    def __init__(self, node: Node, canonical: str) -> None:
        self.node = node
        self.canonical = canonical
        self.matches = _predicate(node)
        self._uid: GroupId | None = None
        self._restrictions: Restrictions | None = None

    @property
    def uid(self) -> GroupId:
        """`s:` and the unpadded base64url of SHA-224(`s:` + canonical), as Calico names its sets."""
        if self._uid is None:
            digest = sha224(f"s:{self.canonical}".encode()).digest()
            self._uid = GroupId("s:" + urlsafe_b64encode(digest).rstrip(b"=").decode())
        return self._uid

    @property
    def restrictions(self) -> Restrictions:
        """By label, what every match shows there. Labels without a certain condition are left out."""
        if self._restrictions is None:
            self._restrictions = MappingProxyType(_restrictions(self.node))
        return self._restrictions

    @property
    def is_all(self) -> bool:
        """Written as `all()`, or empty."""
        return isinstance(self.node, All)

    @property
    def labels(self) -> frozenset[str]:
        """Every label key that the selector mentions: a change of any other cannot change a match."""
        return frozenset(leaf.label for leaf in leaves(self.node) if not isinstance(leaf, All | Global))

    @property
    def mentions_global(self) -> bool:
        return any(isinstance(leaf, Global) for leaf in leaves(self.node))

    def prefixed(self, prefix: str) -> Selector:
        """The same selector over labels whose keys begin with `prefix`."""
        return of(_prefixed(self.node, prefix))

    def __str__(self) -> str:
        return self.canonical

    def __repr__(self) -> str:
        return f"Selector({self.canonical!r})"

    def __reduce__(self) -> tuple[Callable[[Node], Selector], tuple[Node]]:
        return of, (self.node,)


def leaves(node: Node) -> Iterator[All | Global | Has | Compare | Within]:
    """The operands of a tree that are no trees themselves."""
    match node:
        case Not(operand):
            yield from leaves(operand)
        case And(operands) | Or(operands):
            for operand in operands:
                yield from leaves(operand)
        case _:
            yield node


_interned: WeakValueDictionary[str, Selector] = WeakValueDictionary()


def of(node: Node) -> Selector:
    """The selector of a tree."""
    canonical = _canonical(node)
    selector = _interned.get(canonical)
    if selector is None:
        selector = _interned[canonical] = Selector(node, canonical)
    return selector


@lru_cache(maxsize=PARSED_TEXTS)
def parse(text: str) -> Selector:
    """The selector that `text` says; an empty text is `all()`. Raises SelectorError."""
    return of(parse_tree(text))


ALL = of(All())


def all_of(*selectors: Selector) -> Selector:
    """Matches what every one of them matches. `all()` and repetitions are left out; none at all is `all()`."""
    distinct = dict.fromkeys(selector for selector in selectors if not selector.is_all)
    if not distinct:
        return ALL
    if len(distinct) == 1:
        return next(iter(distinct))
    return of(And(tuple(selector.node for selector in distinct)))


def negated(selector: Selector) -> Selector:
    """Matches what `selector` does not match."""
    node = selector.node
    return of(node.operand if isinstance(node, Not) else Not(node))


def has(label: str) -> Selector:
    return of(Has(label))


def equals(label: str, value: str) -> Selector:
    return of(Compare(label, TokenKind.EQ, value))


def one_of(label: str, values: Iterable[str]) -> Selector:
    return of(Within(label, tuple(sorted(set(values)))))


def from_label_selector(selector: LabelSelector) -> Selector:
    """A Kubernetes label selector (meta/v1): labels by key, then expressions by key; empty is `all()`."""
    labels = sorted(selector.match_labels.items())
    expressions = sorted(selector.match_expressions, key=lambda requirement: requirement.key)
    return all_of(*(equals(key, value) for key, value in labels), *map(_requirement, expressions))


def _requirement(requirement: LabelSelectorRequirement) -> Selector:
    match requirement.operator:
        case "In":
            return one_of(requirement.key, requirement.values)
        case "NotIn":
            return of(Within(requirement.key, tuple(sorted(set(requirement.values))), negated=True))
        case "Exists":
            return has(requirement.key)
        case "DoesNotExist":
            return negated(has(requirement.key))
