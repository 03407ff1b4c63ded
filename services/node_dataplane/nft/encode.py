"""Element changes as an nfnetlink batch (include/uapi/linux/netfilter/nf_tables.h), packed by hand.

    BATCH_BEGIN   NEWSETELEM | DESTROYSETELEM ...   BATCH_END

All numbers inside attributes are big-endian; headers are in native order. A new element that is there already, and a
destroyed one that is not, are successes, so the same batch can be sent twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from services.node_dataplane.netlink.framing import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    attributes,
    message,
)
from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.sets import pack_value, spell_value
from services.node_dataplane.nft.transaction import Elements

SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES"""
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_INET = 1

NEWTABLE, GETTABLE = 0, 1
NEWSETELEM, GETSETELEM, DELSETELEM, DESTROYSETELEM = 12, 13, 14, 30

_GETCHAIN = 4
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
_FORWARD, _DROP = struct.pack(">I", 2), struct.pack(">I", 0)
_FAMILY_WORDS = {1: "inet", 2: "ip", 10: "ip6"}

_TABLE_NAME = 1
_ELEM_LIST_TABLE, _ELEM_LIST_SET, _ELEM_LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_DATA, _ELEM_OBJECT = 1, 2, 9
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_VERDICTS = {"jump": -3 & 0xFFFFFFFF, "goto": -4 & 0xFFFFFFFF}
_VERDICT_WORDS = {code: word for word, code in _VERDICTS.items()}

_CHUNK = 60_000
"""Bytes of elements in one message: the length of their attribute is sixteen bits."""

_ATTRIBUTE = struct.Struct("=HH")


def _header(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg"""
    return struct.pack("=BBH", family, 0, (resource << 8 | resource >> 8) & 0xFFFF)


_BEGIN = message(_BATCH_BEGIN, NLM_F_REQUEST, _header(0, SUBSYSTEM))
_END = message(_BATCH_END, NLM_F_REQUEST, _header(0, SUBSYSTEM))
_INET_HEADER = _header(_INET)
_TABLE = attribute(_ELEM_LIST_TABLE, TABLE.encode() + b"\0")


def batch(commands: Sequence[Elements], *, destroy: bool = True) -> list[bytes]:
    """The messages of one transaction. Without `destroy` (kernels before 6.3) a missing element fails the batch."""
    delete = (SUBSYSTEM << 8) | (DESTROYSETELEM if destroy else DELSETELEM)
    messages = [_BEGIN]
    for command in commands:
        head = _INET_HEADER + _TABLE + attribute(_ELEM_LIST_SET, command.set.encode() + b"\0")
        adding = command.verb == "add"
        type_ = (SUBSYSTEM << 8) | NEWSETELEM if adding else delete
        flags = NLM_F_REQUEST | NLM_F_ACK | (NLM_F_CREATE if adding else 0)
        for elements in _chunks(command):
            messages.append(message(type_, flags, head + attribute(_ELEM_LIST_ELEMENTS | NLA_F_NESTED, elements)))
    messages.append(_END)
    return messages


def _chunks(command: Elements) -> Iterator[bytes]:
    rows: list[bytes] = []
    size = 0
    with_data = command.kind.mapped and command.verb == "add"
    make = _valued if command.kind.values else _element
    for key, verdict in command.rows:
        row = make(key, verdict if with_data else "")
        if size + len(row) > _CHUNK:
            yield b"".join(rows)
            rows, size = [], 0
        rows.append(row)
        size += len(row)
    if rows:
        yield b"".join(rows)


def _element(key: bytes, verdict: str) -> bytes:
    length = len(key)
    if not verdict and not length & 3:  # The hot path: every key of ours is a multiple of four bytes.
        return b"%b%b%b%b" % (
            _ATTRIBUTE.pack(length + 12, _LIST_ELEM | NLA_F_NESTED),
            _ATTRIBUTE.pack(length + 8, _ELEM_KEY | NLA_F_NESTED),
            _ATTRIBUTE.pack(length + 4, _DATA_VALUE),
            key,
        )
    body = attribute(_ELEM_KEY | NLA_F_NESTED, attribute(_DATA_VALUE, key))
    if verdict and " " not in verdict:
        body += attribute(_ELEM_OBJECT, verdict.encode() + b"\0")
    elif verdict:
        word, chain = verdict.split(" ")
        inner = attribute(_VERDICT_CODE, struct.pack(">I", _VERDICTS[word]))
        inner += attribute(_VERDICT_CHAIN, chain.encode() + b"\0")
        body += attribute(_ELEM_DATA | NLA_F_NESTED, attribute(_DATA_VERDICT | NLA_F_NESTED, inner))
    return attribute(_LIST_ELEM | NLA_F_NESTED, body)


def _valued(key: bytes, value: str) -> bytes:
    """An element of a map to addresses and ports."""
    body = attribute(_ELEM_KEY | NLA_F_NESTED, attribute(_DATA_VALUE, key))
    if value:
        body += attribute(_ELEM_DATA | NLA_F_NESTED, attribute(_DATA_VALUE, pack_value(value)))
    return attribute(_LIST_ELEM | NLA_F_NESTED, body)


def get_table(name: str = TABLE, family: int = _INET) -> bytes:
    body = _header(family) + attribute(_TABLE_NAME, name.encode() + b"\0")
    return message((SUBSYSTEM << 8) | GETTABLE, NLM_F_REQUEST, body)


def probe_destroy() -> list[bytes]:
    """A batch that every kernel refuses: with EINVAL where it does not know DESTROYSETELEM, else with ENOENT."""
    body = _INET_HEADER + attribute(_ELEM_LIST_TABLE, b"tortie_probe\0") + attribute(_ELEM_LIST_SET, b"probe\0")
    body += attribute(_ELEM_LIST_ELEMENTS | NLA_F_NESTED, _element(b"\0\0\0\0", ""))
    return [_BEGIN, message((SUBSYSTEM << 8) | DESTROYSETELEM, NLM_F_REQUEST | NLM_F_ACK, body), _END]


def dump_elements(set_: str) -> bytes:
    body = _INET_HEADER + _TABLE + attribute(_ELEM_LIST_SET, set_.encode() + b"\0")
    return message((SUBSYSTEM << 8) | GETSETELEM, NLM_F_REQUEST | NLM_F_DUMP, body)


def dump_chains() -> bytes:
    """Every family's chains."""
    return message((SUBSYSTEM << 8) | _GETCHAIN, NLM_F_REQUEST | NLM_F_DUMP, _header(0))


def forward_drop(body: bytes) -> str:
    """`<family> <table> <chain>` of a base chain of forwarded packets that drops by policy; empty: none, or ours."""
    family = _FAMILY_WORDS.get(body[0])
    found = dict(attributes(body[4:]))
    if family is None or _CHAIN_HOOK not in found or _CHAIN_POLICY not in found:
        return ""
    hook = dict(attributes(found[_CHAIN_HOOK])).get(_HOOK_NUMBER)
    table, chain = (found[name].rstrip(b"\0").decode() for name in (_CHAIN_TABLE, _CHAIN_NAME))
    dropped = (hook, found[_CHAIN_POLICY]) == (_FORWARD, _DROP)
    return f"{family} {table} {chain}" if dropped and (family, table) != ("inet", TABLE) else ""


def read_elements(body: bytes) -> Iterator[tuple[bytes, str]]:
    """(key, verdict, counter or value) of the elements in one answer to `dump_elements`."""
    for type_, payload in attributes(body[4:]):
        if type_ == _ELEM_LIST_ELEMENTS:
            for _, element in attributes(payload):
                yield _read_element(element)


def _read_element(element: bytes) -> tuple[bytes, str]:
    key, verdict = b"", ""
    for type_, payload in attributes(element):
        if type_ == _ELEM_KEY:
            key = dict(attributes(payload))[_DATA_VALUE]
        elif type_ == _ELEM_OBJECT:
            verdict = payload.rstrip(b"\0").decode()
        elif type_ == _ELEM_DATA:
            data = dict(attributes(payload))
            inner = data.get(_DATA_VERDICT)
            if inner is None:
                verdict = spell_value(data[_DATA_VALUE])
            else:
                parts = dict(attributes(inner))
                code = struct.unpack(">I", parts[_VERDICT_CODE])[0]
                chain = parts.get(_VERDICT_CHAIN, b"").rstrip(b"\0").decode()
                verdict = f"{_VERDICT_WORDS.get(code, code)} {chain}"
    return key, verdict
