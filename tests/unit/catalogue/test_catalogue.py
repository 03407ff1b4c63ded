"""The catalogue says everything, it is up to date, and its examples are real."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import msgspec
import pytest
import yaml

from bus_schemas.codec import encode
from bus_schemas.glossary import FIELDS
from bus_schemas.happenings import ALL, BY_NAME, DOMAINS
from bus_schemas.subjects import FAMILIES, Family
from tortie.catalogue import asyncapi, events_page, shapes
from tortie.catalogue.event_samples import EVENTS
from tortie.catalogue.samples import samples
from tortie.catalogue.words import example

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("file", "made"), [("events.md", events_page.page), ("asyncapi.yaml", asyncapi.text)])
def test_the_committed_files_are_up_to_date(file: str, made: object) -> None:
    assert callable(made)
    assert (ROOT / "docs" / file).read_text() == made(), "`make docs` writes them"


# --- fields


def test_every_field_has_a_text_and_no_text_is_idle() -> None:
    used = set()
    for class_ in shapes.every_shape().values():
        own = shapes._docs(class_)
        for field in shapes.shape_of(class_).fields:  # raises Undocumented
            assert field.doc.endswith((".", "`", ")", "...", "?")), f"{class_.__name__}.{field.name}: {field.doc}"
        for name in class_.__struct_fields__:
            if not own.get(name):
                qualified = f"{class_.__name__}.{name}"
                used.add(qualified if qualified in FIELDS else name)
    assert set(FIELDS) == used


class Bare(shapes.Resource, tag="bare/1", frozen=True, kw_only=True):
    strange: int


def test_a_field_without_a_text_is_a_fault() -> None:
    with pytest.raises(shapes.Undocumented, match=r"Bare\.strange"):
        shapes.shape_of(Bare)


# --- examples


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_has_a_message_that_any_reader_reads(family: Family[Any]) -> None:
    found, key, message = samples()[family.name]
    assert found is family
    assert found.parse(found.subject(*key)) == tuple(key)
    assert isinstance(message, found.message)
    assert msgpack.unpackb(encode(message)) == msgspec.msgpack.decode(encode(message))


def test_every_event_has_a_sample_with_no_other_details_than_told() -> None:
    assert set(EVENTS) == {one.name for one in ALL}
    for name, event in EVENTS.items():
        known = BY_NAME[event.domain, event.what]
        assert (event.severity, event.advice) == (known.severity, known.advice), name
        assert set(event.detail) <= set(known.detail), name
        assert known.domain in DOMAINS


def test_whatever_is_not_for_the_record_alone_says_what_to_do() -> None:
    assert [one.name for one in ALL if one.severity != "info" and not one.advice] == []


# --- the table of events, and what the services send


TELLING = frozenset(
    {"tell", "_tell", "_tell_of_pod", "_report", "report", "_emit", "_told", "Told", "_event", "Withheld", "Turn"}
)


def told(path: Path) -> Iterator[str]:
    """The names of events in a file: first words of calls that tell, `what=`, and constants made for it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TELLING and node.args:
                yield from words(node.args[0])
            if name == "Trouble":
                yield from words(node.args[3])
            if name in ("Event", "EventStream"):
                for keyword in node.keywords:
                    if keyword.arg == "what":
                        yield from words(keyword.value)


def words(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)) if text and text.replace("_", "").isalpha() and text.islower():
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from words(body)
            yield from words(orelse)


def test_the_services_tell_what_is_in_the_table_and_all_of_it() -> None:
    from services.node_dataplane.cutting import CUT
    from services.node_dataplane.denials import EVENTS as DENIALS
    from services.node_dataplane.denials import UNTOLD
    from services.node_dataplane.policy_news import IN_FORCE

    files = sorted((ROOT / "services").rglob("*.py"))
    found = {word for path in files for word in told(path)} | set(DENIALS.values()) | {UNTOLD, CUT, IN_FORCE}
    assert found == {one.what for one in ALL}


# --- AsyncAPI


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = asyncapi.document()

    def references(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in set(references(document)):
        place: object = document
        for step in reference.removeprefix("#/").split("/"):
            assert isinstance(place, dict), reference
            assert step in place, reference
            place = place[step]


def test_every_subject_is_a_channel() -> None:
    addresses = {channel["address"] for channel in asyncapi.document()["channels"].values()}
    for family in FAMILIES:
        if family.name != "event":
            assert "tortie.v1." + ".".join([*family.words, *(f"{{{token}}}" for token in family.key)]) in addresses
    for one in ALL:
        assert f"tortie.v1.event.{one.domain}.{one.what}.{{node}}" in addresses


def test_the_document_is_valid_by_the_official_schema() -> None:
    schema = ROOT / ".venv/npm/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"
    if not schema.exists():
        pytest.skip("the npm package @asyncapi/specs is not here: `scripts/prepare dev` installs it")
    document = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    assert [error.message for error in validator.iter_errors(document)] == []
    del document["channels"]["block"]["address"], document["info"]["title"]
    document["channels"]["block"]["adress"] = "x"
    assert not validator.is_valid(document)


def test_the_examples_of_the_document_are_valid_by_its_own_schemas() -> None:
    document = asyncapi.document()
    checked = 0
    for name, message in document["components"]["messages"].items():
        for sample in message.get("examples", ()):
            schema = {**message["payload"], "components": document["components"]}
            found = [e.message for e in jsonschema.Draft7Validator(schema).iter_errors(sample["payload"])]
            assert found == [], name
            checked += 1
    assert checked > len(FAMILIES)


def test_an_example_is_what_travels() -> None:
    _, _, group = samples()["group"]
    assert example(group)["v4"] == "CvSuQQ=="  # 10.244.174.65
