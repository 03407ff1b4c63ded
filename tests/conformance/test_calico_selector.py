"""Calico's own tables for the selector language, and generated selectors judged by Calico's parser."""

from __future__ import annotations

import pytest

from bus_schemas import selectors
from bus_schemas.selectors import SelectorError, TokenKind
from tests.support.manifests_conformance import Case, cases

CALICO_TOKENS = {
    "TokLabel": TokenKind.LABEL,
    "TokStringLiteral": TokenKind.STRING,
    "TokHas": TokenKind.HAS,
    "TokAll": TokenKind.ALL,
    "TokGlobal": TokenKind.GLOBAL,
    "TokEq": TokenKind.EQ,
    "TokNe": TokenKind.NE,
    "TokIn": TokenKind.IN,
    "TokNotIn": TokenKind.NOT_IN,
    "TokContains": TokenKind.CONTAINS,
    "TokStartsWith": TokenKind.STARTS_WITH,
    "TokEndsWith": TokenKind.ENDS_WITH,
    "TokNot": TokenKind.NOT,
    "TokAnd": TokenKind.AND,
    "TokOr": TokenKind.OR,
    "TokLParen": TokenKind.OPEN,
    "TokRParen": TokenKind.CLOSE,
    "TokLBrace": TokenKind.OPEN_SET,
    "TokRBrace": TokenKind.CLOSE_SET,
    "TokComma": TokenKind.COMMA,
    "TokEOF": TokenKind.END,
}


@pytest.mark.parametrize("case", cases("calico_selector.json"))
def test_selector(case: Case) -> None:
    CHECKS[case["kind"]](case)


def _match(case: Case) -> None:
    assert selectors.parse(case["selector"]).matches(case["labels"]) is case["match"]


def _error(case: Case) -> None:
    with pytest.raises(SelectorError):
        selectors.parse(case["selector"])


def _canonical(case: Case) -> None:
    selector = selectors.parse(case["selector"])
    assert selector.canonical == case["canonical"]
    assert selector.uid == case.get("uid", case.get("uid_from_calico_run"))


def _tokenize(case: Case) -> None:
    if case.get("tokenize_error"):
        with pytest.raises(SelectorError):
            selectors.tokenize(case["selector"])
        return
    expected = [(CALICO_TOKENS[token["kind"]], token.get("value") or "") for token in case["tokens"]]
    assert [(token.kind, token.value) for token in selectors.tokenize(case["selector"])] == expected
    if case["parse_error_from_calico_run"]:
        _error(case)
    else:
        selectors.parse(case["selector"])


def _restrictions(case: Case) -> None:
    expected = {
        label: selectors.LabelRestriction(
            must_be_present=restriction["MustBePresent"],
            must_be_absent=restriction["MustBeAbsent"],
            one_of=None
            if restriction["MustHaveOneOfValues"] is None
            else frozenset(restriction["MustHaveOneOfValues"]),
        )
        for label, restriction in (case["restrictions"] or {}).items()
    }
    assert selectors.parse(case["selector"]).restrictions == expected


def _prefix(case: Case) -> None:
    assert selectors.parse(case["selector"]).prefixed(case["prefix"]).canonical == case["canonical"]


def _validate(case: Case) -> None:
    if case["error"]:
        _error(case)
    else:
        selectors.parse(case["selector"])


def _generated(case: Case) -> None:
    _canonical(case)
    selector = selectors.parse(case["selector"])
    verdicts = [selector.matches(evaluation["labels"]) for evaluation in case["evaluations"]]
    assert verdicts == [evaluation["match"] for evaluation in case["evaluations"]]


CHECKS = {
    "match": _match,
    "error": _error,
    "canonical": _canonical,
    "tokenize": _tokenize,
    "label-restrictions": _restrictions,
    "prefix-rewrite": _prefix,
    "validate": _validate,
    "generated": _generated,
    "generated-error": _error,
}
