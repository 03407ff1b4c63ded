"""The selector language against an evaluator that only reads the tree, and what the rest of the system relies on."""

from __future__ import annotations

import gc
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas import selectors
from bus_schemas.resources.metadata import LabelSelector, LabelSelectorRequirement
from bus_schemas.selectors import (
    All,
    And,
    Compare,
    Global,
    Has,
    LabelRestriction,
    Node,
    Not,
    Or,
    Selector,
    SelectorError,
    TokenKind,
    Within,
    parse,
)

KEYS = st.sampled_from(["a", "b", "in", "not", "has", "projectcalico.org/name", "x-1_y.z"])
VALUES = st.sampled_from(["", "a", "ab", "b", "'", '"', "ü", "not in {"])
LABEL_SETS = st.dictionaries(KEYS, VALUES, max_size=4)

LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.just(All()),
    st.just(Global()),
    st.builds(Has, KEYS),
    st.builds(
        Compare,
        KEYS,
        st.sampled_from([TokenKind.EQ, TokenKind.NE, TokenKind.CONTAINS, TokenKind.STARTS_WITH, TokenKind.ENDS_WITH]),
        VALUES,
    ),
    st.builds(Within, KEYS, st.sets(VALUES, max_size=3).map(lambda values: tuple(sorted(values))), st.booleans()),
)
TREES: st.SearchStrategy[Node] = st.recursive(
    LEAVES,
    lambda nodes: st.one_of(
        nodes.map(Not),
        st.lists(nodes, min_size=2, max_size=3).map(lambda operands: And(tuple(operands))),
        st.lists(nodes, min_size=2, max_size=3).map(lambda operands: Or(tuple(operands))),
    ),
    max_leaves=8,
)


def holds(node: Node, labels: dict[str, str]) -> bool:
    """The meaning of a tree, spelt out."""
    match node:
        case All() | Global():
            return True
        case Has(label):
            return label in labels
        case Compare(label, TokenKind.NE, value):
            return label not in labels or labels[label] != value
        case Within(label, values, True):
            return label not in labels or labels[label] not in values
        case Compare(label) | Within(label) if label not in labels:
            return False
        case Compare(label, TokenKind.EQ, value):
            return labels[label] == value
        case Compare(label, TokenKind.CONTAINS, value):
            return value in labels[label]
        case Compare(label, TokenKind.STARTS_WITH, value):
            return labels[label][: len(value)] == value
        case Compare(label, _, value):
            return labels[label][len(labels[label]) - len(value) :] == value if value else True
        case Within(label, values, _):
            return labels[label] in values
        case Not(operand):
            return not holds(operand, labels)
        case And(operands):
            return all(holds(operand, labels) for operand in operands)
        case Or(operands):
            return any(holds(operand, labels) for operand in operands)


def has_double_negation(node: Node) -> bool:
    match node:
        case Not(Not(_)):
            return True
        case Not(operand):
            return has_double_negation(operand)
        case And(operands) | Or(operands):
            return any(map(has_double_negation, operands))
        case _:
            return False


@given(TREES, LABEL_SETS)
def test_matches_what_the_tree_says(tree: Node, labels: dict[str, str]) -> None:
    assert selectors.of(tree).matches(labels) is holds(tree, labels)


@given(TREES, LABEL_SETS)
def test_the_canonical_text_reads_as_the_same_selector(tree: Node, labels: dict[str, str]) -> None:
    selector = selectors.of(tree)
    again = parse(selector.canonical)
    assert again.matches(labels) is selector.matches(labels)
    assert parse(again.canonical) is again
    if not has_double_negation(tree):
        assert again is selector


@given(TREES, LABEL_SETS)
def test_every_match_meets_the_restrictions(tree: Node, labels: dict[str, str]) -> None:
    selector = selectors.of(tree)
    if not selector.matches(labels):
        return
    for label, restriction in selector.restrictions.items():
        assert restriction.restricts
        assert label in labels or not restriction.must_be_present
        assert label not in labels or not restriction.must_be_absent
        assert restriction.one_of is None or labels[label] in restriction.one_of


@given(TREES, LABEL_SETS, st.sampled_from(["pcns.", "pcsa."]))
def test_a_prefix_moves_every_label(tree: Node, labels: dict[str, str], prefix: str) -> None:
    selector = selectors.of(tree)
    moved = selector.prefixed(prefix)
    assert moved.matches({prefix + key: value for key, value in labels.items()}) is selector.matches(labels)
    assert moved.labels == {prefix + label for label in selector.labels}


@given(TREES, LABEL_SETS)
def test_other_labels_do_not_matter(tree: Node, labels: dict[str, str]) -> None:
    selector = selectors.of(tree)
    mentioned = {key: value for key, value in labels.items() if key in selector.labels}
    assert selector.matches(labels) is selector.matches(mentioned)


@given(st.lists(TREES, max_size=4), LABEL_SETS)
def test_all_of_is_a_conjunction(trees: list[Node], labels: dict[str, str]) -> None:
    parts = [selectors.of(tree) for tree in trees]
    assert selectors.all_of(*parts).matches(labels) is all(part.matches(labels) for part in parts)
    assert selectors.all_of(*parts, *parts, selectors.ALL) is selectors.all_of(*parts)


@given(TREES, LABEL_SETS)
def test_negated_is_the_opposite(tree: Node, labels: dict[str, str]) -> None:
    selector = selectors.of(tree)
    assert selectors.negated(selector).matches(labels) is not selector.matches(labels)


@given(st.text(alphabet="ab in{}()!&|='\",.\thas", max_size=20))
def test_any_text_is_a_selector_or_an_error_with_its_position(text: str) -> None:
    outcome = parsed(text)
    if isinstance(outcome, SelectorError):
        assert (outcome.text, outcome.reason != "") == (text, True)
        assert 0 <= outcome.position <= len(text)


def parsed(text: str) -> Selector | SelectorError:
    try:
        return parse(text)
    except SelectorError as error:
        return error


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("a = 'b'", 2, "expected '=='"),
        ("a == 'b' & c", 9, "expected '&&'"),
        ("a == 'b", 5, "without its closing quote"),
        ("a == b", 5, "expected string in quotes, not label 'b'"),
        ("a == b && c == 'd'", 5, "expected string in quotes"),
        ("a", 1, "expected an operator"),
        ("has (a)", 4, "expected an operator"),
        ("(a == 'b'", 9, "expected ), not end of selector"),
        ("a in {'b' 'c'}", 10, "expected }"),
        ("a == 'b'\n", 8, "unexpected character"),
        ("a == 'b' c == 'd'", 9, "expected end of selector"),
        ("has(a,b)", 4, "expected one label"),
        ("all(a)", 4, "expected ')'"),
        ("(" * 101 + "all()" + ")" * 101, 100, "nested deeper"),
        ("a == '\ud800'", 6, "surrogate"),
        ("x" * 513 + " == 'a'", 0, "longer than 512"),
    ],
)
def test_errors_say_where_and_why(text: str, position: int, reason: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert caught.value.position == position
    assert reason in caught.value.reason


def test_ways_of_writing_share_one_selector() -> None:
    assert parse("a=='b'  &&\thas( c )") is parse('(a == "b" && has(c))')
    assert parse("") is parse(" all( ) ") is selectors.ALL
    assert parse("a in {'y','x','y',}").canonical == 'a in {"x", "y"}'


def test_selectors_that_nobody_uses_are_forgotten() -> None:
    selectors.of(Has("only-here"))
    gc.collect()
    assert "has(only-here)" not in selectors._interned


def test_a_pickled_selector_comes_back_as_itself() -> None:
    selector = parse("a == 'b' || !has(c)")
    assert pickle.loads(pickle.dumps(selector)) is selector


def test_label_selectors_are_sorted() -> None:
    selector = selectors.from_label_selector(
        LabelSelector(
            match_labels={"b": "2", "a": "1"},
            match_expressions=(
                LabelSelectorRequirement(key="z", operator="DoesNotExist"),
                LabelSelectorRequirement(key="y", operator="Exists"),
                LabelSelectorRequirement(key="x", operator="NotIn", values=("q", "p")),
                LabelSelectorRequirement(key="w", operator="In", values=("s", "r")),
            ),
        )
    )
    assert selector.canonical == (
        '(a == "1" && b == "2" && w in {"r", "s"} && x not in {"p", "q"} && has(y) && !has(z))'
    )
    assert selectors.from_label_selector(LabelSelector()) is selectors.ALL


def test_global_is_seen_wherever_it_stands() -> None:
    assert parse("a == 'b' || !global()").mentions_global
    assert not parse("a == 'global()'").mentions_global


def test_restrictions_can_rule_out_everything() -> None:
    assert parse("a == 'x' && a == 'y'").restrictions == {
        "a": LabelRestriction(must_be_present=True, one_of=frozenset())
    }
