"""Calico's label selector language: text -> syntax tree -> a fast predicate, a canonical text, an identity, index keys.

    text --tokenize--> tokens --parse--> Node (immutable tree) --> Selector (interned: equal meaning in canonical form
                                                                   is one object, so `is` and `==` agree)

The grammar, loosest binding first; white space is space and tab:

    selector := "" | or                       the empty selector is all()
    or       := and ("||" and)*
    and      := operand ("&&" operand)*
    operand  := "!"* ( "has(" label ")" | "all()" | "global()" | "(" or ")"
                     | label ("==" | "!=" | "contains" | "starts with" | "ends with") string
                     | label ("in" | "not in") "{" [string ("," string)* [","]] "}" )
    string   := '...' | "..."                 without escapes; the other quote may stand inside
    label    := [A-Za-z0-9_./-]+              at most 512 characters

Operator words are words only after a label, so labels may be called `in` or `has`. On an absent label `!=` and
`not in` are true and every other comparison is false. `global()` is true here: what it means (not in any namespace) is
said by whoever rewrites a namespace selector.

See https://docs.tigera.io/calico/latest/reference/resources/networkpolicy#selectors.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, reduce
from hashlib import sha224
from types import MappingProxyType
from typing import NamedTuple, final
from weakref import WeakValueDictionary

from bus_schemas.ids import GroupId
from bus_schemas.resources.metadata import LabelSelector, LabelSelectorRequirement

MAX_LABEL = 512
"""Longest label key, in characters."""
MAX_NESTING = 100
"""Deepest nesting of parentheses."""
PARSED_TEXTS = 1 << 16
"""How many texts `parse` remembers."""

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]


class SelectorError(ValueError):
    """The text is not a selector. `position` counts characters from 0; `reason` is one phrase."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        super().__init__(f"{reason} at position {position} of selector {text!r}")
        self.text = text
        self.position = position
        self.reason = reason


# --- tokens


class TokenKind(StrEnum):
    LABEL = "label"
    STRING = "string"
    HAS = "has(label)"
    ALL = "all()"
    GLOBAL = "global()"
    EQ = "=="
    NE = "!="
    IN = "in"
    NOT_IN = "not in"
    CONTAINS = "contains"
    STARTS_WITH = "starts with"
    ENDS_WITH = "ends with"
    NOT = "!"
    AND = "&&"
    OR = "||"
    OPEN = "("
    CLOSE = ")"
    OPEN_SET = "{"
    CLOSE_SET = "}"
    COMMA = ","
    END = "end of selector"


_COMPARISONS = frozenset({TokenKind.EQ, TokenKind.NE, TokenKind.CONTAINS, TokenKind.STARTS_WITH, TokenKind.ENDS_WITH})


class Token(NamedTuple):
    kind: TokenKind
    value: str
    """The label of LABEL and HAS, the text of STRING; otherwise empty."""
    position: int


_BLANK = re.compile(r"[ \t]*")
_LABEL = re.compile(r"[A-Za-z0-9_./-]+")
_STRING = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_HAS = re.compile(r"has\([ \t]*([A-Za-z0-9_./-]+)[ \t]*\)")
_NULLARY = re.compile(r"(all|global)\([ \t]*\)")
_CALL = re.compile(r"(?:has|all|global)\(")
_SYMBOL = re.compile(r"==|!=|&&|\|\||[!(){},]")
_WORD = re.compile(r"(contains|starts[ \t]*with|ends[ \t]*with|not[ \t]*in|in)(?![A-Za-z0-9_./-])")
_WORDS = {
    "contains": TokenKind.CONTAINS,
    "startswith": TokenKind.STARTS_WITH,
    "endswith": TokenKind.ENDS_WITH,
    "in": TokenKind.IN,
    "notin": TokenKind.NOT_IN,
}


def tokenize(text: str) -> list[Token]:
    """The tokens of `text`, the last of which is END. Raises SelectorError."""
    tokens: list[Token] = []
    at = _end(_BLANK, text, 0)
    while at < len(text):
        if tokens and tokens[-1].kind is TokenKind.LABEL:
            token, after = _operator(text, at, tokens)
        else:
            token, after = _operand(text, at)
        tokens.append(token)
        at = _end(_BLANK, text, after)
    if tokens and tokens[-1].kind is TokenKind.LABEL:
        raise _no_operator(text, at, tokens)
    tokens.append(Token(TokenKind.END, "", at))
    return tokens


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _operator(text: str, at: int, tokens: list[Token]) -> tuple[Token, int]:
    """The token after a label, where words are operators."""
    if word := _WORD.match(text, at):
        return Token(_WORDS[re.sub(r"[ \t]", "", word[1])], "", at), word.end()
    if _LABEL.match(text, at):
        raise _no_operator(text, at, tokens)
    return _symbol_or_string(text, at)


def _no_operator(text: str, at: int, tokens: list[Token]) -> SelectorError:
    """After a comparison the label itself is the mistake: a string without its quotes."""
    label = tokens[-1]
    if len(tokens) > 1 and tokens[-2].kind in _COMPARISONS:
        return SelectorError(text, label.position, f"expected string in quotes, not {_said(label)}")
    return SelectorError(text, at, f"expected an operator after the label {label.value!r}")


def _operand(text: str, at: int) -> tuple[Token, int]:
    """A token anywhere else, where words are labels."""
    if has := _HAS.match(text, at):
        _check_label(text, has.start(1), has[1])
        return Token(TokenKind.HAS, has[1], at), has.end()
    if nullary := _NULLARY.match(text, at):
        kind = TokenKind.ALL if nullary[1] == "all" else TokenKind.GLOBAL
        return Token(kind, "", at), nullary.end()
    if call := _CALL.match(text, at):
        what = "one label and ')'" if call[0] == "has(" else "')'"
        raise SelectorError(text, call.end(), f"expected {what} after {call[0]!r}")
    if label := _LABEL.match(text, at):
        _check_label(text, at, label[0])
        return Token(TokenKind.LABEL, label[0], at), label.end()
    return _symbol_or_string(text, at)


def _said(token: Token) -> str:
    return f"{token.kind.value} {token.value!r}" if token.value else token.kind.value


def _symbol_or_string(text: str, at: int) -> tuple[Token, int]:
    if symbol := _SYMBOL.match(text, at):
        return Token(TokenKind(symbol[0]), "", at), symbol.end()
    if string := _STRING.match(text, at):
        return Token(TokenKind.STRING, string[0][1:-1], at), string.end()
    if text[at] in "\"'":
        raise SelectorError(text, at, "string without its closing quote")
    if text[at] in "=&|":
        raise SelectorError(text, at, f"expected {text[at] * 2!r}")
    raise SelectorError(text, at, f"unexpected character {text[at]!r}")


def _check_label(text: str, at: int, label: str) -> None:
    if len(label) > MAX_LABEL:
        raise SelectorError(text, at, f"label longer than {MAX_LABEL} characters")


# --- the tree


@dataclass(frozen=True, slots=True)
class All:
    pass


@dataclass(frozen=True, slots=True)
class Global:
    pass


@dataclass(frozen=True, slots=True)
class Has:
    label: str


@dataclass(frozen=True, slots=True)
class Compare:
    """One label against one string."""

    label: str
    operator: TokenKind
    """EQ, NE, CONTAINS, STARTS_WITH or ENDS_WITH."""
    value: str


@dataclass(frozen=True, slots=True)
class Within:
    """`in`, or with `negated` `not in`."""

    label: str
    values: tuple[str, ...]
    """Ascending, distinct."""
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """A run of `!` is one or none; only parentheses put a Not into a Not: `!(!has(a))`."""

    operand: Node


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Node, ...]
    """At least two."""


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Node, ...]
    """At least two."""


Node = All | Global | Has | Compare | Within | Not | And | Or


class _Parser:
    """Recursive descent over the tokens of one text: one method for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._next = 0
        self._depth = 0

    def selector(self) -> Node:
        if self._peek() is TokenKind.END:
            return All()
        node = self._or()
        self._take(TokenKind.END)
        return node

    def _or(self) -> Node:
        operands = [self._and()]
        while self._skip(TokenKind.OR):
            operands.append(self._and())
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def _and(self) -> Node:
        operands = [self._operand()]
        while self._skip(TokenKind.AND):
            operands.append(self._operand())
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def _operand(self) -> Node:
        negated = False
        while self._skip(TokenKind.NOT):
            negated = not negated
        node = self._plain_operand()
        return Not(node) if negated else node

    def _plain_operand(self) -> Node:
        token = self._tokens[self._next]
        self._next += 1
        match token.kind:
            case TokenKind.HAS:
                return Has(token.value)
            case TokenKind.ALL:
                return All()
            case TokenKind.GLOBAL:
                return Global()
            case TokenKind.LABEL:
                return self._comparison(token.value)
            case TokenKind.OPEN:
                self._depth += 1
                if self._depth > MAX_NESTING:
                    raise SelectorError(self._text, token.position, f"nested deeper than {MAX_NESTING}")
                node = self._or()
                self._take(TokenKind.CLOSE)
                self._depth -= 1
                return node
            case _:
                raise SelectorError(self._text, token.position, f"expected an operand, not {_said(token)}")

    def _comparison(self, label: str) -> Node:
        operator = self._tokens[self._next]
        self._next += 1
        if operator.kind in _COMPARISONS:
            return Compare(label, operator.kind, self._take(TokenKind.STRING).value)
        if operator.kind in (TokenKind.IN, TokenKind.NOT_IN):
            return Within(label, self._set(), negated=operator.kind is TokenKind.NOT_IN)
        raise SelectorError(
            self._text, operator.position, f"expected an operator after the label {label!r}, not {_said(operator)}"
        )

    def _set(self) -> tuple[str, ...]:
        values = set()
        self._take(TokenKind.OPEN_SET)
        while self._peek() is TokenKind.STRING:
            values.add(self._take(TokenKind.STRING).value)
            if not self._skip(TokenKind.COMMA):
                break
        self._take(TokenKind.CLOSE_SET)
        return tuple(sorted(values))

    def _peek(self) -> TokenKind:
        return self._tokens[self._next].kind

    def _skip(self, kind: TokenKind) -> bool:
        if self._peek() is not kind:
            return False
        self._next += 1
        return True

    def _take(self, kind: TokenKind) -> Token:
        token = self._tokens[self._next]
        if token.kind is not kind:
            in_quotes = " in quotes" if kind is TokenKind.STRING else ""
            raise SelectorError(self._text, token.position, f"expected {kind.value}{in_quotes}, not {_said(token)}")
        self._next += 1
        return token


# --- what a tree means


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
            return reduce(_both, map(_predicate, operands))
        case Or(operands):
            return reduce(_either, map(_predicate, operands))


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
            return f"{label} {operator.value} {_quoted(value)}"
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
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SelectorError(text, error.start, "a lone surrogate is no character") from error
    return of(_Parser(text).selector())


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
