"""However a world of every kind came about, what is compiled is what a compiler makes that hears of its end alone."""

from __future__ import annotations

import random
import types
import typing
from functools import lru_cache
from typing import Any

import msgspec
import pytest

from bus_schemas.resources.calico_policy import EntityRule, ServiceMatch
from bus_schemas.subjects import ENDPOINT, Fact
from services.policy_compiler.core import READS
from tests.support.expanders import by_key
from tests.support.policy_changes import Compiler

HISTORIES = 60
ROUNDS = 16
FACTS = 6

SELECTORS = ("", "all()", "has(a)", "a == 'x'", "a != 'x' && b == 'y'", "a in {'x', 'y'} || !has(b)", "a ==")
WORDS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("selector", "not_selector", "service_account_selector"), SELECTORS),
    "namespace_selector": (*SELECTORS, "global()", "global()"),
    **dict.fromkeys(("nets", "not_nets", "networks", "cidr", "except_"), ("10.0.0.0/30", "10.0.0.1", "fd00::/64", "x")),
    **dict.fromkeys(("addresses", "expected_ips", "address"), ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "x")),
    **dict.fromkeys(("labels", "match_labels", "labels_to_apply", "values", "key"), ("a", "b", "x", "y")),
    "protocol": ("TCP", "UDP", 6, "nonsense"),
    "not_protocol": ("TCP",),
    **dict.fromkeys(("ports", "not_ports"), (80, "80:90", "p", "p", 70_000)),
    **dict.fromkeys(("port", "first", "last", "end_port", "container_port"), (80, 81)),
    "tier": ("default", "one", "two", "kube-admin"),
    "order": (None, 1.0, 2.0),
    "priority": (1, 2),
    "profiles": ("p", "q", "kns.red", "ksa.red.p", "projectcalico-default-allow"),
    "interface_name": ("eth0", "*"),
    "phase": ("Running", "Running", "Failed"),
    "domain_names": ("example.org",),
    "address_type": ("IPv4",),
    "uid": ("",),
}
"""By field."""
NAMESPACES, NAMES = ("red", "blue"), ("p", "q", "red")
RARE = {
    "domain_names",
    "not_selector",
    "not_nets",
    "not_ports",
    "icmp",
    "not_icmp",
    "services",
    "host_network",
}


@lru_cache
def fields(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def made(chance: random.Random, of: Any, field: str) -> Any:
    """Some value of the type, of the words of its field."""
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if of is type(None):
        return None
    if origin is tuple:
        return tuple(made(chance, arguments[0], field) for _ in range(chance.choice((0, 1, 1, 2))))
    if origin is dict:
        return {made(chance, str, field): made(chance, str, field) for _ in range(chance.choice((0, 1, 1, 2)))}
    structs = [a for a in (of, *arguments) if isinstance(a, type) and issubclass(a, msgspec.Struct)]
    if EntityRule in structs and chance.random() < 0.2:
        return EntityRule(services=ServiceMatch(name="p", namespace="red"))
    if structs:
        given = (f for f in fields(structs[0]) if f.required or chance.random() < (0.1 if f.name in RARE else 0.6))
        return structs[0](**{f.name: made(chance, f.type, f.name) for f in given})
    if origin is typing.Literal:
        return chance.choice(arguments)
    if origin in (typing.Union, types.UnionType) and (field not in WORDS or field == "labels"):
        return made(chance, chance.choice(arguments), field)
    if of is bool:
        return chance.random() < 0.3
    simple = {str: NAMES, int: (1, 2), float: (1.0,)}
    return chance.choice(WORDS.get(field) or simple[getattr(of, "__supertype__", of)])


def some_fact(chance: random.Random) -> Fact:
    family = chance.choice(READS)
    key = tuple(chance.choice(NAMESPACES if token == "namespace" else NAMES) for token in family.key)
    if family.key == ("namespace", "name") and not family.message.NAMESPACED:
        key = ("", key[1])
    if family == ENDPOINT:
        key = ("node", *key[1:])  # that what is compiled for a pod can be told by its name
    if chance.random() < 0.25:
        return Fact(family, key, None)
    value = made(chance, family.message, "")
    if family.key == ("namespace", "name"):
        labels = {**value.metadata.labels, "kubernetes.io/service-name": "p"}
        metadata = msgspec.structs.replace(value.metadata, namespace=key[0], name=key[1], labels=labels)
        value = msgspec.structs.replace(value, metadata=metadata)
    return Fact(family, key, value)


def said(compiler: Compiler) -> tuple[object, ...]:
    return (compiler.groups, compiler.rules, compiler.pods, compiler.hosts, compiler.statuses, compiler.core.faults)


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_only_the_end_of_a_history_counts(seed: int) -> None:
    chance, compiler = random.Random(seed), Compiler()
    told: list[Fact] = []
    for _ in range(ROUNDS):
        facts = [some_fact(chance) for _ in range(FACTS)]
        told += facts
        compiler.change(*facts)
    world = list(by_key(told).values())
    chance.shuffle(world)
    at_once = Compiler(*world)
    assert said(compiler) == said(at_once)
    assert compiler.core.sizes == at_once.core.sizes
    compiler.change(*(fact._replace(value=None) for fact in world))
    assert not any(said(compiler)), "nothing is left of a world that is gone"
    assert not any(compiler.core.sizes.values())
