"""What a filter does to a route, by walking the values that the filter is printed from: BIRD's rules, written down a
second time. A condition on an attribute that the route does not have is false."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from ipaddress import ip_network
from typing import Any, Literal

from services.node_dataplane.bird import language as bird

Verdict = Literal["accept", "reject"]


@dataclass(frozen=True)
class Announcement:
    """A route as a filter sees it."""

    net: str
    source: str
    ifname: str = ""
    blackhole: bool = False
    numbers: Mapping[str, int] = field(default_factory=dict)
    """bgp_local_pref, krt_metric, krt_source: those that the route has."""
    path: tuple[int, ...] = ()
    communities: frozenset[tuple[int, ...]] = frozenset()


def decide(
    statements: Iterable[bird.Statement], route: Announcement, functions: Mapping[str, bird.Function]
) -> tuple[Verdict | None, Announcement]:
    """None: the statements end without a word."""
    walk = _Walk(route, functions)
    return walk.run(statements, internal=False), walk.route


class _Walk:
    def __init__(self, route: Announcement, functions: Mapping[str, bird.Function]) -> None:
        self.route = route
        self.functions = functions

    def run(self, statements: Iterable[bird.Statement], *, internal: bool) -> Verdict | None:
        for statement in statements:
            verdict = self._step(statement, internal)
            if verdict is not None:
                return verdict
        return None

    def _step(self, statement: bird.Statement, internal: bool) -> Verdict | None:
        match statement:
            case bird.Accept():
                return "accept"
            case bird.Reject():
                return "reject"
            case bird.If(condition, then, otherwise):
                return self.run(then if self._holds(condition, internal) else otherwise, internal=internal)
            case bird.Call(function, argument):
                called = self.functions[function]
                assert called.of_sessions is (argument is not None)
                return self.run(called.body, internal=bool(argument))
            case bird.Set(attribute, value):
                self._set(attribute, value)
            case bird.SetComplement(attribute, of):
                self._set(attribute, bird.LARGEST - self.route.numbers[of])
            case bird.AddCommunity(community):
                value = tuple(map(int, community.split(":")))
                self.route = replace(self.route, communities=self.route.communities | {value})
            case bird.Prepend(number):
                self.route = replace(self.route, path=(number, *self.route.path))
        return None

    def _set(self, attribute: str, value: int) -> None:
        self.route = replace(self.route, numbers={**self.route.numbers, attribute: value})

    def _holds(self, condition: bird.Condition, internal: bool) -> bool:
        route = self.route
        match condition:
            case bird.Inside(cidr, low, high):
                return _inside(route.net, cidr) and _length(route.net, cidr, low, high)
            case bird.Is(cidr):
                return _network(route.net) == _network(cidr)
            case bird.From(source):
                return route.source == source
            case bird.Blackhole():
                return route.blackhole
            case bird.By(pattern):
                return bool(route.ifname) and fnmatchcase(route.ifname, pattern)
            case bird.Defined(attribute):
                return attribute in route.numbers
            case bird.Compared(attribute, operator, value):
                return attribute in route.numbers and _compare(route.numbers[attribute], operator, value)
            case bird.PathBegins(numbers):
                return route.path[: len(numbers)] == numbers
            case bird.Carries(community):
                return tuple(map(int, community.split(":"))) in route.communities
            case bird.Internal():
                return internal
            case bird.Not(inner):
                return not self._holds(inner, internal)
            case bird.AllOf(conditions):
                return all(self._holds(one, internal) for one in conditions)
            case bird.AnyOf(conditions):
                return any(self._holds(one, internal) for one in conditions)


def _compare(left: int, operator: str, right: int) -> bool:
    return left == right if operator == "=" else left > right if operator == ">" else left < right


@cache
def _network(cidr: str) -> Any:
    return ip_network(cidr)


def _inside(net: str, cidr: str) -> bool:
    part, whole = _network(net), _network(cidr)
    return bool(part.version == whole.version and part.subnet_of(whole))


def _length(net: str, cidr: str, low: int | None, high: int | None) -> bool:
    length = _network(net).prefixlen
    return (low is None or length >= low) and (high is None or length <= high)
