"""What a release may change: each change alone, made to the schemas of now."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tortie.catalogue.compare import faults
from tortie.catalogue.snapshot import snapshot
from tortie.cli.schema import last_release

Json = dict[str, Any]
RELEASED = Path(__file__).resolve().parents[3] / "docs" / "schemas"


def test_whatever_the_last_release_says_is_understood() -> None:
    last = last_release(RELEASED)
    assert last is not None
    assert faults(json.loads(last.read_text()), snapshot()) == []


def test_a_snapshot_survives_json() -> None:
    assert faults(json.loads(json.dumps(snapshot())), snapshot()) == []


def struct(snapshot: Json, name: str) -> Json:
    fields: Json = snapshot["structs"][name]["fields"]
    return fields


def _move(fields: Json, name: str, last: str) -> None:
    fields[last] = fields.pop(name)


ALLOWED: dict[str, Callable[[Json], object]] = {
    "nothing": lambda s: None,
    "a field with a default": lambda s: struct(s, "Block").update(
        colour={"type": "str", "required": False, "default": ""}
    ),
    "the same inside a message": lambda s: struct(s, "Allocation").update(
        colour={"type": "str", "required": False, "default": ""}
    ),
    "at the end of an array": lambda s: struct(s, "Hit").update(seen={"type": "int", "required": False, "default": 0}),
    "a message": lambda s: s["structs"].update(New={"tag": "new/1", "array": False, "fields": {}}),
    "a subject": lambda s: s["families"].update(
        new={"stream": "TORTIE_STATUS", "words": ["new"], "key": [], "message": "Block"}
    ),
    "a request": lambda s: s["requests"].update({"tortie.v1.rpc.x": {"request": "Block", "replies": []}}),
    "an event": lambda s: s["events"].update({"pod.moved": []}),
    "a key of an event's detail": lambda s: s["events"]["pod.started"].append("image"),
    "another name of the class": lambda s: (
        s["structs"].update(Record=s["structs"].pop("Block")),
        s["families"]["block"].update(message="Record"),
    ),
    "another order in a map": lambda s: _move(struct(s, "Block"), "cidr", "cidr"),
    "a new version, whatever is in it": lambda s: (
        s["structs"]["Block"].update(tag="block/2"),
        struct(s, "Block").clear(),
    ),
    "a new version of a reply": lambda s: s["structs"]["Assigned"].update(tag="assigned/2"),
}

FORBIDDEN: dict[str, tuple[Callable[[Json], object], str]] = {
    "a field goes": (lambda s: struct(s, "Block").pop("pool"), "block/1.pool is gone"),
    "a field inside goes": (lambda s: struct(s, "Allocation").pop("handle"), "block/1.allocations.handle is gone"),
    "a field is renamed": (
        lambda s: _move(struct(s, "Block"), "claimed", "claimedAt"),
        "block/1.claimed is gone",
    ),
    "another type": (
        lambda s: struct(s, "Block")["sequence"].update(type="str"),
        "block/1.sequence: its type changed from int to str",
    ),
    "another type in a list": (
        lambda s: struct(s, "Block")["free"].update(type={"list of": "str"}),
        "block/1.free: its type changed from int to str",
    ),
    "null as well": (
        lambda s: struct(s, "Block")["pool"].update(type={"one of": ["none", "str"]}),
        "block/1.pool: its type changed from str to one of none, str",
    ),
    "another unit": (
        lambda s: struct(s, "Block")["claimed"].update(unit="milliseconds"),
        "block/1.claimed: its unit changed from Unix time in seconds to milliseconds",
    ),
    "no unit": (
        lambda s: struct(s, "Block")["claimed"].pop("unit"),
        "block/1.claimed: its unit changed from Unix time in seconds to none",
    ),
    "required": (
        lambda s: struct(s, "Block")["sequence"].update(required=True),
        "block/1.sequence is required now",
    ),
    "optional": (
        lambda s: struct(s, "Block")["pool"].update(required=False, default=""),
        "block/1.pool is optional now",
    ),
    "another default": (
        lambda s: struct(s, "Handle")["use"].update(default="warm"),
        "handle/1.use: its default changed from workload to warm",
    ),
    "new and required": (
        lambda s: struct(s, "Block").update(colour={"type": "str", "required": True}),
        "block/1.colour is new and required: messages of the last release do not have it",
    ),
    "fewer values": (
        lambda s: struct(s, "Affinity")["state"].update(type={"values": ["confirmed", "pending"]}),
        "affinity/1.state: its type changed",
    ),
    "more values": (
        lambda s: struct(s, "Event")["severity"]["type"]["values"].append("fatal"),
        "event/1.severity: its type changed",
    ),
    "a field first in an array": (
        lambda s: s["structs"]["PortRange"].update(
            fields={"flag": {"type": "bool", "required": False, "default": False}, **struct(s, "PortRange")}
        ),
        "the order of its fields changed, and it is an array",
    ),
    "an array that was a map": (lambda s: s["structs"]["Allocation"].update(array=True), "it is an array now"),
    "another message": (
        lambda s: s["families"]["block"].update(message="Handle"),
        "block: its message is handle/1, not block/1 as before",
    ),
    "an older version": (lambda s: s["structs"]["Block"].update(tag="block/0"), "block: its message is block/0"),
    "another token": (lambda s: s["families"]["block"]["key"].append("node"), "block: its key changed"),
    "another word": (lambda s: s["families"]["block"].update(words=["ipam", "range"]), "block: its words changed"),
    "another stream": (lambda s: s["families"]["block"].update(stream="TORTIE_STATUS"), "block: its stream changed"),
    "no subject": (lambda s: s["families"].pop("block"), "block: its subject is gone"),
    "another prefix": (lambda s: s.update(prefix="tortie.v2."), "subjects begin with tortie.v2."),
    "no request": (lambda s: s["requests"].pop("tortie.v1.rpc.ipam.assign"), "assign: the request is gone"),
    "a reply that nobody knows": (
        lambda s: s["requests"]["tortie.v1.rpc.ipam.assign"]["replies"].append("Block"),
        "whoever asks does not know the reply block/1",
    ),
    "no event": (lambda s: s["events"].pop("pod.started"), "event pod.started is gone"),
    "no key of detail": (
        lambda s: s["events"]["pod.started"].remove("link"),
        "event pod.started: detail.link is gone",
    ),
}


def changed(change: Callable[[Json], object]) -> tuple[Json, Json]:
    old, new = snapshot(), copy.deepcopy(snapshot())
    change(new)
    return old, new


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str) -> None:
    assert faults(*changed(ALLOWED[name])) == []


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden(name: str) -> None:
    change, says = FORBIDDEN[name]
    found = faults(*changed(change))
    assert any(says in fault for fault in found), found


def test_a_release_is_kept_and_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tortie.cli.main import main

    def schema(*arguments: str) -> int:
        return main(["schema", *arguments, "--directory", str(tmp_path)])

    assert schema("check") == 1
    assert (schema("release"), schema("release"), schema("check")) == (0, 0, 0)
    (path,) = tmp_path.iterdir()
    changed = json.loads(path.read_text())
    changed["structs"]["Block"]["fields"]["colour"] = {"type": "str", "required": True}
    path.write_text(json.dumps(changed))
    assert (schema("check"), schema("release"), schema("release", "--again")) == (1, 1, 0)
    path.rename(tmp_path / "0.0.9.json")
    (tmp_path / "0.0.10.json").write_text(json.dumps(changed))
    assert last_release(tmp_path) == tmp_path / "0.0.10.json"
    assert schema("release") == 1
