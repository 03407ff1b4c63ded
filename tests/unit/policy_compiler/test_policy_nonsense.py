"""Whatever the bus holds, as long as it can be decoded, ends in messages and faults, never in an exception."""

from __future__ import annotations

import random
import types
import typing
from functools import lru_cache
from typing import Any

import msgspec
import pytest

from bus_schemas.codec import decode, encode
from bus_schemas.resources import GlobalNetworkPolicy, NetworkPolicy
from bus_schemas.subjects import DESIRED, Fact, Key
from services.policy_compiler.core import READS
from tests.support.policy_changes import Compiler, plugged, stored
from tests.support.policy_worlds import namespace

WORLDS = 120
ROUNDS = 4
FACTS = 15

TEXTS = (
    *(
        "",
        "a",
        "web",
        "red",
        "default",
        "kube-admin",
        "cut",
        "Ingress",
        "None",
        "IPv4",
        "FQDN",
        "a" * 70 + ".b",
        "x" * 3000,
    ),
    *("all()", "global()", "!global()", "a == 'b'", "a ==", "has(", "(" * 200, "has(a) && " * 3000 + "has(a)"),
    *("10.0.0.0/8", "10.0.0.1", "::/0", "fe80::1%eth0", "fe80::1%eth0/64", "10.0.0.0/99", "9" * 5000 + "/8"),
    *("1:2", "0:70000", "9" * 5000, "6", "TCP", "ICMP", "tcp", "*", "\x00", "\n", "'\"", "ümlaut", "٣", "²"),
    *("kns.red", "ksa.red.x", "projectcalico-default-allow", "projectcalico.org/namespace", "pcns.x"),
    *("kubernetes.io/service-name", "tortie.io/existing-connections", "InternalIP"),
)
INTEGERS = (0, 1, 6, 17, 80, 255, 256, 65535, 65536, -1, 1 << 31, (1 << 63) - 1, -(1 << 63))
NUMBERS = (0.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e308)
NAMESPACES = ("red", "blue", "a\"b'c")
NAMES = ("web", "p", "q", "red", "default", "kns.red", "a.b")


@lru_cache
def fields(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def made(chance: random.Random, of: Any) -> Any:
    """Some value of the type."""
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if origin is typing.Literal:
        return chance.choice(arguments)
    if origin in (typing.Union, types.UnionType):
        return made(chance, chance.choice(arguments))
    if origin is tuple and Ellipsis not in arguments:
        return tuple(made(chance, each) for each in arguments)
    if origin is tuple:
        return tuple(made(chance, arguments[0]) for _ in range(chance.choice((0, 1, 1, 2, 3))))
    if origin is dict:
        return {made(chance, arguments[0]): made(chance, arguments[1]) for _ in range(chance.choice((0, 0, 1, 2)))}
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        given = (field for field in fields(of) if field.required or chance.random() < 0.6)
        return of(**{field.name: made(chance, field.type) for field in given})
    simple = {str: TEXTS, int: INTEGERS, float: NUMBERS, bool: (True, False), type(None): (None,)}
    return chance.choice(simple[getattr(of, "__supertype__", of)])


def some_fact(chance: random.Random) -> Fact:
    family = chance.choice(READS)
    key: Key = tuple(chance.choice(NAMESPACES if token == "namespace" else NAMES) for token in family.key)
    if chance.random() < 0.2:
        return Fact(family, key, None)
    value = made(chance, family.message)
    if family.key == ("namespace", "name") and chance.random() < 0.9:
        metadata = msgspec.structs.replace(value.metadata, namespace=key[0], name=key[1])
        value = msgspec.structs.replace(value, metadata=metadata)
    return Fact(family, key, decode(encode(value), family.message))


@pytest.mark.parametrize("seed", range(WORLDS))
def test_no_world_ends_in_an_exception(seed: int) -> None:
    chance, compiler = random.Random(seed), Compiler()
    for _ in range(ROUNDS):
        compiler.change(*(some_fact(chance) for _ in range(FACTS)))


def test_a_resource_under_the_key_of_another_governs_nobody() -> None:
    """Two of them could claim one id."""
    policy = stored(GlobalNetworkPolicy, "p", {"ingress": [{"action": "Allow"}]})
    compiler = Compiler(policy)
    twin = Fact(DESIRED[GlobalNetworkPolicy], ("", "twin"), policy.value)
    assert compiler.change(twin) == {"status globalnetworkpolicy/twin"}
    assert compiler.change(twin._replace(value=None)) == {"-status globalnetworkpolicy/twin"}


def test_a_policy_without_its_namespace_governs_nobody() -> None:
    compiler = Compiler(namespace("red"), *plugged("red/web", "10.0.0.1"))
    assert compiler.change(stored(NetworkPolicy, "p", {"ingress": []})) == {"status networkpolicy/p"}
    assert compiler.change(stored(GlobalNetworkPolicy, "red/p", {"ingress": []})) == {
        "status globalnetworkpolicy/red/p"
    }
