"""Text to values: the traps of YAML, several documents, and texts made to hurt."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.manifests.documents import MAX_DEPTH, Document, Unreadable, documents, plain


def values(text: str) -> list[object]:
    """The values of the documents, and the reasons of those without one."""
    return [found.value if isinstance(found, Document) else found.reason for found in documents(text)]


def test_a_broken_document_hides_no_other() -> None:
    found = list(documents("a: 1\n---\nb: [\n---\n# note\n\nc: 2\n"))
    assert found[0] == Document({"a": 1}, 1)
    assert isinstance(found[1], Unreadable)
    assert "line" in found[1].reason
    assert found[2] == Document({"c": 2}, 7)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "---\n", "# nothing\n---\n---\n# here\n", "--- # comment\n...\n", "null\n", "%YAML 1.1\n---\n", " \t\n"],
)
def test_empty_documents_are_left_out(text: str) -> None:
    assert values(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("--- {a: b}", {"a": "b"}),
        ("%YAML 1.1\n---\na: b\n", {"a": "b"}),
        ("a: |\n  --- no marker\nb: c\n", {"a": "--- no marker\n", "b": "c"}),
        ("\ufeffa: b", {"a": "b"}),
        ("a: b\r\nc: d\r\n", {"a": "b", "c": "d"}),
        ("{a: b}", {"a": "b"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{\n\t"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        ("base: &b {p: 1, q: 2}\nmore: {<<: *b, q: 3}", {"base": {"p": 1, "q": 2}, "more": {"p": 1, "q": 3}}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("8080: a", {"8080": "a"}),
        ("a: !!str 80\nb: !!int '8'\nc: !!float 1", {"a": "80", "b": 8, "c": 1}),
    ],
)
def test_reads(text: str, value: object) -> None:
    assert values(text) == [value]


def test_json_documents_follow_each_other() -> None:
    assert values('{"a": 1}\n{"b": 2} ') == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10:20", "10:20"),
        ("2020-01-01", "2020-01-01"),
        ("1e3", 1000.0),
        ("0.0", 0.0),
        ("0644", 420),
        ("0x1F", 31),
        ("-7", -7),
        ("1_000", 1000),
        ("1.2.3.4", "1.2.3.4"),
        ("10.244.0.0/16", "10.244.0.0/16"),
        ("::1", "::1"),
        ("on", True),
        ("No", False),
        ("~", None),
        ("", None),
        ("0b", "0b"),
        ("089", 89.0),
        ("e3", "e3"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_an_unquoted_scalar_means(text: str, value: object) -> None:
    assert plain(text) == value
    assert type(plain(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "the key 'a' is given twice (line 2)"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("on: 1", "quote it"),
        ("? [a]\n: 1", "a key must be text"),
        ("a: .nan", "not a number"),
        ('{"a": Infinity}', "not a number"),
        ("a: &x [*x]", "contains itself"),
        ("a: *x", "stands for nothing"),
        ("a: !!python/object:os.system x", "cannot be read"),
        ("a: !!binary aGk=", "cannot be read"),
        ("<<: 1", "must be followed by a mapping"),
        ("[" * 100_000, "nested deeper"),
        ("- " * 5000 + "x", "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested deeper"),
        ("a: \x00", "not YAML"),
        ("a: '\ud800'", "surrogate"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    (found,) = values(text)
    assert isinstance(found, str)
    assert reason in found


def test_aliases_count_as_often_as_they_are_used() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]
    assert values("\n".join(levels)) == ["more than 1000000 values"]


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.dictionaries(st.text(), st.one_of(SCALARS, st.lists(SCALARS), st.dictionaries(st.text(), SCALARS))))
def test_json_is_read_as_json(value: dict[str, object]) -> None:
    assert values(json.dumps(value)) == [value]


@given(st.text(alphabet="ab:-\n #[]{}'\"&*!|>%,?0~<", max_size=30))
def test_any_text_has_an_outcome(text: str) -> None:
    for found in documents(text):
        assert isinstance(found, Document | Unreadable)
