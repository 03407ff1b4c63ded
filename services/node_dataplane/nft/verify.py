"""The self-check: what the kernel shows of the table against what it should show.

The kernel does not give back the text that it was given, so the expectation is put into words by the kernel itself: the
expected table is loaded into a network namespace that exists for this moment only, and the two listings are compared.
Elements of hash sets are compared as bytes, without text at all.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.nft.libnftables import Libnftables
from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.sets import SetKind
from services.node_dataplane.nft.table import Expected

_CLONE_NEWNET = 0x40000000
_MOVING = frozenset({"handle", "packets", "bytes"})
_NAMED = 5
"""How many elements a sentence names."""

Structure = Mapping[tuple[str, str], bytes]
"""("chain", name) and ("set", name) and so on -> what they are, in a form that can be compared."""


class Seen(NamedTuple):
    structure: Structure
    elements: Mapping[str, Mapping[bytes, str] | None]


class Baseline:
    """The expected structure in the kernel's words, kept until it changes."""

    def __init__(self) -> None:
        self._script = ""
        self._structure: Structure = {}

    def structure(self, expected: Expected) -> Structure:
        """Raises NftError when the kernel does not even take the expected table."""
        script = "".join(f"{command}\n" for command in expected.structure)
        if script != self._script:
            self._structure = _elsewhere(script)
            self._script = script
        return self._structure


def takes(script: str) -> None:
    """Raises NftError when this kernel does not take a table."""
    _elsewhere(script)


def _elsewhere(script: str) -> Structure:
    """The table that a script makes, in a namespace of its own."""
    outcome: list[Structure] = []
    failure: list[Exception] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            failure.append(NftError(f"no namespace for the self-check: {os.strerror(ctypes.get_errno())}"))
            return
        try:
            with Libnftables() as nft:
                nft.run(script)
                outcome.append(structure(nft))
        except NftError as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="nft-baseline")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def structure(nft: Libnftables) -> Structure:
    """The table of this namespace by object, without the elements of hash sets and without what differs from one moment
    to the next. Raises NftError."""
    found: dict[tuple[str, str], bytes] = {}
    rules: dict[str, list[Any]] = {}
    for kind, value in _rows(nft.json(f"list table inet {TABLE}", terse=True)):
        if kind == "table":
            continue
        if kind == "rule":
            rules.setdefault(value["chain"], []).append([value["expr"], value.get("comment", "")])
            continue
        if "interval" in value.get("flags", ()):
            ((_, value),) = _rows(nft.json(f"list {kind} inet {TABLE} {value['name']}"))
        found[kind, value["name"]] = _canonical({key: item for key, item in value.items() if key not in _MOVING})
        if kind == "chain":
            rules.setdefault(value["name"], [])
    for chain, expressions in rules.items():
        found["rules", chain] = _canonical([_still(expression) for expression in expressions])
    return found


def _rows(listing: str) -> Iterator[tuple[str, Any]]:
    for row in msgspec.json.decode(listing)["nftables"]:
        ((kind, value),) = row.items()
        if kind != "metainfo":
            yield kind, value


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _still(value: Any) -> Any:
    """Without the figures of counters."""
    if isinstance(value, dict):
        if isinstance(value.get("counter"), dict):
            return {"counter": None}
        return {key: _still(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_still(item) for item in value]
    return value


_WORDS = {"rules": "the rules of chain", "chain": "chain", "set": "set", "map": "map", "counter": "counter"}


def differences(wanted: Structure, expected: Expected, seen: Seen) -> list[str]:
    """One sentence for each object that is not as it should be."""
    told: list[str] = []
    for key, value in wanted.items():
        kind, name = key
        found = seen.structure.get(key)
        if found is None:
            if kind != "rules":
                told.append(f"{_WORDS.get(kind, kind)} {name} is gone")
        elif found != value:
            told.append(f"{_WORDS.get(kind, kind)} {name} {'were' if kind == 'rules' else 'was'} changed")
    told += [
        f"{_WORDS.get(kind, kind)} {name} is not ours"
        for kind, name in seen.structure.keys() - wanted.keys()
        if kind != "rules"
    ]
    for name, rows in expected.elements.items():
        kind_ = expected.kinds[name]
        found_rows = seen.elements.get(name)
        if found_rows is None:
            continue  # The set is gone, and that was told.
        missing = [key for key, verdict in rows.items() if found_rows.get(key) != verdict]
        foreign = [key for key in found_rows if key not in rows]
        if missing:
            told.append(f"{kind_.word} {name} lacks {_listed(missing, kind_)}")
        if foreign:
            told.append(f"{kind_.word} {name} holds {_listed(foreign, kind_)}, which is not ours")
    return told


def _listed(keys: Iterable[bytes], kind: SetKind) -> str:
    listed = sorted(keys)
    text = ", ".join(kind.spell(key) for key in listed[:_NAMED])
    return text if len(listed) <= _NAMED else f"{text} and {len(listed) - _NAMED} more"
