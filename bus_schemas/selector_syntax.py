"""The syntax of selectors: text -> tokens -> tree. What a tree means is said in `selectors`.

The grammar, loosest binding first; white space is space and tab:

    selector := "" | or                       the empty selector is all()
    or       := and ("||" and)*
    and      := operand ("&&" operand)*
    operand  := "!"* ( "has(" label ")" | "all()" | "global()" | "(" or ")"
                     | label ("==" | "!=" | "contains" | "starts with" | "ends with") string
                     | label ("in" | "not in") "{" [string ("," string)* [","]] "}" )
    string   := '...' | "..."                 without escapes; the other quote may stand inside
    label    := [A-Za-z0-9_./-]+              at most 512 characters

Operator words are words only after a label, so labels may be called `in` or `has`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

import msgspec

MAX_LABEL = 512
"""Longest label key, in characters."""
MAX_NESTING = 100
"""Deepest nesting of parentheses."""


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


_OPERAND = re.compile(
    r"[ \t]*(?:"
    r"(?P<has>has\([ \t]*([A-Za-z0-9_./-]+)[ \t]*\))"
    r"|(?P<all>all\([ \t]*\))"
    r"|(?P<global>global\([ \t]*\))"
    r"|(?P<call>(?:has|all|global)\()"
    r"|(?P<label>[A-Za-z0-9_./-]+)"
    r"|(?P<string>\"[^\"]*\"|'[^']*')"
    r"|(?P<symbol>==|!=|&&|\|\||[!(){},])"
    r"|(?P<end>\Z)"
    r"|(?P<wrong>(?s:.)))"
)
"""A token, where words are labels."""
_OPERATOR = re.compile(
    r"[ \t]*(?:"
    r"(?P<word>contains|starts[ \t]*with|ends[ \t]*with|not[ \t]*in|in)(?![A-Za-z0-9_./-])"
    r"|(?P<label>[A-Za-z0-9_./-]+)"
    r"|(?P<string>\"[^\"]*\"|'[^']*')"
    r"|(?P<symbol>==|!=|&&|\|\||[!(){},])"
    r"|(?P<end>\Z)"
    r"|(?P<wrong>(?s:.)))"
)
"""A token after a label, where words are operators."""
_SYMBOLS = {str(kind): kind for kind in TokenKind}
_WORDS = {str(kind).replace(" ", ""): kind for kind in TokenKind}


def tokenize(text: str) -> list[Token]:
    """The tokens of `text`, the last of which is END. Raises SelectorError."""
    tokens: list[Token] = []
    after_label = False
    at = 0
    while True:
        match = (_OPERATOR if after_label else _OPERAND).match(text, at)
        assert match is not None, "the patterns take any character, and the end"
        form = match.lastgroup
        assert form is not None
        start, at = match.span(form)
        match form:
            case "string":
                tokens.append(Token(TokenKind.STRING, text[start + 1 : at - 1], start))
            case "symbol":
                tokens.append(Token(_SYMBOLS[text[start:at]], "", start))
            case "label" if not after_label:
                tokens.append(Token(TokenKind.LABEL, _label(text, start, at), start))
            case "word":
                tokens.append(Token(_WORDS[re.sub(r"[ \t]", "", text[start:at])], "", start))
            case "has":
                tokens.append(Token(TokenKind.HAS, _label(text, *match.span(2)), start))
            case "all":
                tokens.append(Token(TokenKind.ALL, "", start))
            case "global":
                tokens.append(Token(TokenKind.GLOBAL, "", start))
            case "end" if not after_label:
                tokens.append(Token(TokenKind.END, "", start))
                return tokens
            case "call":
                what = "one label and ')'" if text[start:at] == "has(" else "')'"
                raise SelectorError(text, at, f"expected {what} after {text[start:at]!r}")
            case "wrong":
                raise SelectorError(text, start, _wrong(text[start]))
            case _:
                raise _no_operator(text, start, tokens)
        after_label = form == "label"


def _label(text: str, start: int, end: int) -> str:
    if end - start > MAX_LABEL:
        raise SelectorError(text, start, f"label longer than {MAX_LABEL} characters")
    return text[start:end]


def _wrong(character: str) -> str:
    if character in "\"'":
        return "string without its closing quote"
    if character in "=&|":
        return f"expected {character * 2!r}"
    return f"unexpected character {character!r}"


def _no_operator(text: str, at: int, tokens: list[Token]) -> SelectorError:
    """After a comparison the label itself is the mistake: a string without its quotes."""
    label = tokens[-1]
    if len(tokens) > 1 and tokens[-2].kind in _COMPARISONS:
        return SelectorError(text, label.position, f"expected string in quotes, not {_said(label)}")
    return SelectorError(text, at, f"expected an operator after the label {label.value!r}")


def _said(token: Token) -> str:
    return f"{token.kind.value} {token.value!r}" if token.value else token.kind.value


# --- the tree


class All(msgspec.Struct, frozen=True):
    pass


class Global(msgspec.Struct, frozen=True):
    pass


class Has(msgspec.Struct, frozen=True):
    label: str


class Compare(msgspec.Struct, frozen=True):
    """One label against one string."""

    label: str
    operator: TokenKind
    """EQ, NE, CONTAINS, STARTS_WITH or ENDS_WITH."""
    value: str


class Within(msgspec.Struct, frozen=True):
    """`in`, or with `negated` `not in`."""

    label: str
    values: tuple[str, ...]
    """Ascending, distinct."""
    negated: bool = False


class Not(msgspec.Struct, frozen=True):
    """A run of `!` is one or none; only parentheses put a Not into a Not: `!(!has(a))`."""

    operand: Node


class And(msgspec.Struct, frozen=True):
    operands: tuple[Node, ...]
    """At least two."""


class Or(msgspec.Struct, frozen=True):
    operands: tuple[Node, ...]
    """At least two."""


Node = All | Global | Has | Compare | Within | Not | And | Or


def parse_tree(text: str) -> Node:
    """The tree of a selector. Raises SelectorError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SelectorError(text, error.start, "a lone surrogate is no character") from error
    return _Parser(text).selector()


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
