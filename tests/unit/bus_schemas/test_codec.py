"""Every message on the wire: readable by a plain msgpack reader, tolerant of additions, strict about the rest."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest

import bus_schemas
from bus_schemas import codec, ipam, subjects
from bus_schemas.codec import Malformed, Message
from tests.support.manifests_messages import sample


def _message_classes() -> list[type[Message]]:
    for module in pkgutil.walk_packages(bus_schemas.__path__, "bus_schemas."):
        importlib.import_module(module.name)
    found: list[type[Message]] = []
    pending = Message.__subclasses__()
    while pending:
        class_ = pending.pop()
        pending += class_.__subclasses__()
        if "/" in str(class_.__struct_config__.tag):
            found.append(class_)
    return sorted(found, key=lambda class_: str(class_.__struct_config__.tag))


CLASSES = _message_classes()
every_class = pytest.mark.parametrize("class_", CLASSES, ids=lambda class_: class_.__name__)


def test_every_message_has_a_tag_of_its_own() -> None:
    tags = [class_.__struct_config__.tag for class_ in CLASSES]
    assert len(set(tags)) == len(tags)
    spoken = {family.message for family in subjects.FAMILIES}
    assert spoken <= set(CLASSES)


@every_class
def test_a_plain_msgpack_reader_understands_it(class_: type[Message]) -> None:
    message = sample(class_)
    read: dict[str, Any] = msgpack.unpackb(codec.encode(message))
    assert read.pop("type") == class_.__struct_config__.tag
    names = dict(zip(class_.__struct_fields__, class_.__struct_encode_fields__, strict=True))
    for field, name in names.items():
        assert (name in read) == (name in msgspec.to_builtins(message)), field
    assert set(read) <= set(names.values())


@every_class
def test_it_comes_back_equal(class_: type[Message]) -> None:
    message = sample(class_)
    assert codec.decode(codec.encode(message), class_) == message


@every_class
def test_a_field_of_a_later_version_is_ignored(class_: type[Message]) -> None:
    message = sample(class_)
    payload = msgpack.packb({**msgpack.unpackb(codec.encode(message)), "ofTomorrow": [1, {"a": b"x"}]})
    assert codec.decode(payload, class_) == message


@every_class
def test_another_tag_is_malformed(class_: type[Message]) -> None:
    payload = msgpack.packb({**msgpack.unpackb(codec.encode(sample(class_))), "type": "something/9"})
    with pytest.raises(Malformed, match="something/9"):
        codec.decode(payload, class_)


@every_class
def test_every_truncation_is_malformed(class_: type[Message]) -> None:
    payload = codec.encode(sample(class_))
    for length in range(len(payload)):
        with pytest.raises(Malformed):
            codec.decode(payload[:length], class_)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"{}", b"\x81\xa4type\xa4\xff\xff\xff\xff", b"\x91" * 5000 + b"\xc0"]
)
def test_bytes_of_another_kind_are_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode(payload, ipam.Block)


def test_replies_are_told_apart_by_their_tags() -> None:
    replies: Any = ipam.AssignReply
    for reply in (ipam.Assigned(addresses=("10.0.0.1",)), ipam.Busy(reason="later"), ipam.Refused(reason="no")):
        assert codec.decode(codec.encode(reply), replies) == reply
    with pytest.raises(Malformed):
        codec.decode(codec.encode(ipam.Released()), replies)
