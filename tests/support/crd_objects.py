"""Objects of Calico's kinds to be judged by the definitions: other projects' tables, the scenarios, and all of these
with one field changed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from bus_schemas.manifests.documents import Document, documents
from services.kube_bridge.sources import CALICO, CALICO_STORED, SOURCES
from tests.support.crd_server import definitions, schema_of

Object = dict[str, Any]
Path_ = tuple[str | int, ...]

_PLACEHOLDERS = {"block": "10.244.1.0/24", "ip": "10.244.1.7"}


def in_group(kind: str, value: Object, group: str) -> Object:
    """An object of this kind in one of the two groups."""
    (source,) = (s for s in SOURCES if s.group == group and (s.kind == kind or kind == s.resource.KIND))
    return {**value, "apiVersion": source.api_version, "kind": source.kind}


def of_calico(text: str) -> Iterator[Object]:
    """The objects of a text that have a definition here."""
    for document in documents(re.sub(r"@(\w+)\([^)]*\)", lambda match: _PLACEHOLDERS[match[1]], text)):
        if isinstance(document, Document):
            value = document.value
            for item in value.get("items") or [value]:
                if (item.get("apiVersion"), item.get("kind")) in definitions():
                    yield item


def of_scenarios(directory: Path) -> Iterator[Object]:
    for path in sorted(directory.glob("*.yaml")):
        scenario = yaml.safe_load(path.read_text())
        for text in (scenario.get("resources"), *(step.get("apply") for step in scenario["steps"])):
            yield from of_calico(text or "")


def both_groups(value: Object) -> Iterator[Object]:
    for group in (CALICO, CALICO_STORED):
        yield in_group(value["kind"], value, group)


OTHERS: tuple[Any, ...] = (
    *(None, "", 0, 1, -1, 255, 256, 65535, 65536, 2**31, 2**32, 1.5, True, False, [], {}, [None]),
    *("0", "80", "080", "100:200", "200:100", "a", "A-b", "x.y", "x" * 64, "x" * 300),
    *("default", "node.x", "Never", "Always", "Delete", "Set", "Drop", "DROP", "Enabled", "Disabled", "Ingress"),
    *("tcp", "TCP", "icmp", "ICMPv6", "64512:1", "1.10", "90s", "1m30s", "all()", "global()", "has(x)"),
    *("10.0.0.0/8", "10.0.0.1", "10.0.0.1/8", "fd00::/64", "fd00::1", "::ffff:1.2.3.4/100", "::/0", "0.0.0.0/0"),
    *(["Ingress"], ["a"], [1], ["10.0.0.0/8"], ["fd00::/8", "10.0.0.0/8"], ["all()"], [{"action": "Allow"}]),
    *({"a": "b"}, {"name": "x"}, {"type": 8}, {"code": 1}, {"min": 1, "max": 2}, {"podSelector": {}}),
    *({"services": {"name": "x"}}, {"nets": ["10.0.0.0/8"]}, {"ports": [80]}, {"ports": ["80:90", "http"]}),
    [{"cidr": "10.0.0.0/8"}],
)
"""What is put into fields, whether it belongs there or not."""


def altered(seeds: Iterable[Object], stride: int) -> Iterator[Object]:
    """Each object with each of its fields, and each field that its spec could have, put to each of OTHERS; of these
    every `stride`th."""
    distinct = {json.dumps(one, sort_keys=True): one for one in seeds}.values()
    ways = ((seed, path, other) for seed in distinct for path in _places(seed) for other in OTHERS)
    for seed, path, other in islice(ways, 0, None, stride):
        yield _put(seed, path, other)


def _places(seed: Object) -> Iterator[Path_]:
    if "spec" in seed:
        spec = schema_of(seed["apiVersion"], seed["kind"])["properties"]["spec"]["properties"]
        yield from dict.fromkeys((*_paths(seed["spec"], ("spec",)), *(("spec", name) for name in spec)))


def _paths(value: Any, path: Path_) -> Iterator[Path_]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from _paths(one, (*path, key))


def _put(value: Object, path: Path_, other: Any) -> Object:
    changed = copy.deepcopy(value)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = other
    return changed
