"""The definitions against the readers: what `tortie apply` takes, a server takes, and what the server makes of it means
the same; what it would refuse, most of it the server refuses, and the rest is the bridge's.

The objects are Calico's own tables, the BGP golden files, the scenarios, and thousands of alterations of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from bus_schemas.manifests import Accepted, read_object
from services.kube_bridge.sources import CALICO, CALICO_STORED
from tests.conformance.test_manifest_validation import TYPES
from tests.support.crd_objects import altered, both_groups, in_group, of_scenarios
from tests.support.crd_server import admitted
from tests.support.manifests_conformance import Case, cases, conformance_directory, table

LEFT: dict[str, tuple[str, ...]] = {
    "the grammar of selectors": ("082", "411", "594"),
    "regular expressions": ("132", "150"),
    "labels of an object, which no rule of a definition sees": ("035",),
    "keys of maps, which a schema cannot restrict": ("067", "068", "319"),
    "the order of two numbers in text": ("295", "297", "298"),
    "one list of the object checked against another": ("682", "685"),
    "parameters of Felix that nothing here uses": ("137", "147", "148", "149", "153", "154"),
}
"""What the server lets through and the bridge refuses, with a condition and an Event: the numbers of the cases."""


def _kind(case: Case) -> bool:
    return case["type"] in TYPES and TYPES[case["type"]](case["object"])[0] != "Node"


def _same(value: dict[str, Any]) -> None:
    """A server takes it, and it still means the same."""
    meant = read_object(value)
    assert isinstance(meant, Accepted), meant
    kept, faults = admitted(value)
    assert faults == [], value
    again = read_object(kept)
    assert isinstance(again, Accepted), (kept, again)
    assert again.resource == meant.resource, kept


@pytest.mark.parametrize("case", cases("calico_validation.json", _kind))
def test_calicos_tables(case: Case) -> None:
    kind, value = TYPES[case["type"]](case["object"])
    objects = [in_group(kind, value, group) for group in (CALICO, CALICO_STORED)]
    if isinstance(read_object(objects[0]), Accepted):
        for one in objects:
            _same(one)
        return
    number = case["id"].split("/")[1].split("-")[0]
    left = [reason for reason, numbers in LEFT.items() if number in numbers]
    faults = admitted(objects[0])[1]
    assert bool(faults) is not bool(left), f"left to the bridge: {left}; what the server says: {faults}"


def _golden() -> Iterator[dict[str, Any]]:
    for case in table("bird_golden.json")["cases"]:
        for manifest in (*case["resources"], *case.get("applied_on_top", ())):
            if (manifest["apiVersion"], manifest["kind"]) != ("projectcalico.org/v3", "Node"):
                yield manifest


@pytest.mark.skipif(not conformance_directory().is_dir(), reason="the tables of other projects are not here")
def test_what_others_apply_means_the_same() -> None:
    manifests = [*_golden(), *of_scenarios(conformance_directory().parent / "scenarios")]
    readable = [one for one in manifests if isinstance(read_object(one), Accepted)]
    assert len(readable) > 150
    for one in readable:
        for value in both_groups(one):
            _same(value)


STRIDE = 97
"""Of some 400,000 altered objects: all of them take five minutes (TORTIE_CRD_STRIDE=1)."""


@pytest.mark.skipif(not conformance_directory().is_dir(), reason="the tables of other projects are not here")
def test_nothing_is_refused_or_changed_that_is_read() -> None:
    seeds = [
        in_group(*TYPES[case["type"]](case["object"]), group=CALICO)
        for case in table("calico_validation.json")["cases"]
        if _kind(case) and case["valid"]
    ]
    read = 0
    for value in altered(seeds, int(os.environ.get("TORTIE_CRD_STRIDE", STRIDE))):
        outcome = read_object(value)
        # a server prunes what nobody knows; a reader says that it does not look at it
        if isinstance(outcome, Accepted) and not any("not used here" in warning for warning in outcome.warnings):
            read += 1
            _same(value)
    assert read > 200
