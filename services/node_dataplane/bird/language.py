"""As much of BIRD's filter language as our filters need, as values that print themselves
(https://bird.network.cz/?get_doc&v=20&f=bird-5.html).

    Function --- parameters, statements --- conditions

Filters are built of these (see `filters`) and printed; whoever wants to know what a filter does to a route can walk the
same values. A condition on an attribute that a route does not have is false, as in BIRD.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

LARGEST = 0x7FFFFFFF
"""What priorities (metrics; lower is better) are taken from to become local preferences (higher is better)."""

Attribute = Literal["bgp_local_pref", "krt_metric", "krt_source"]


class Inside(NamedTuple):
    """The destination is in the network; with `low` or `high` also its prefix length is between them."""

    cidr: str
    low: int | None = None
    high: int | None = None

    def __str__(self) -> str:
        if self.low is None and self.high is None:
            return f"net ~ {self.cidr}"
        own = int(self.cidr.rpartition("/")[2])
        width = 128 if ":" in self.cidr else 32
        low = max(own, self.low or 0)
        high = width if self.high is None else self.high
        return f"net ~ [ {self.cidr}{{{low},{high}}} ]" if low <= high else "false"


class Is(NamedTuple):
    """The destination is the network."""

    cidr: str

    def __str__(self) -> str:
        return f"net = {self.cidr}"


class From(NamedTuple):
    """Where the route comes from."""

    source: Literal["RTS_BGP", "RTS_STATIC", "RTS_INHERIT"]

    def __str__(self) -> str:
        return f"source = {self.source}"


class Blackhole(NamedTuple):
    """The route drops what it matches."""

    def __str__(self) -> str:
        return "dest = RTD_BLACKHOLE"


class By(NamedTuple):
    """The route leads to such a device. One that leads to none (BIRD: "") leads to no device of any name."""

    pattern: str

    def __str__(self) -> str:
        pattern = self.pattern if self.pattern.strip("*") else "?*"
        return f'ifname ~ "{pattern}"'


class Defined(NamedTuple):
    attribute: Attribute

    def __str__(self) -> str:
        return f"defined({self.attribute})"


class Compared(NamedTuple):
    attribute: Attribute
    operator: Literal["=", ">", "<"]
    value: int

    def __str__(self) -> str:
        return f"{self.attribute} {self.operator} {self.value}"


class PathBegins(NamedTuple):
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"bgp_path ~ [= {' '.join(map(str, self.numbers))} * =]"


class Carries(NamedTuple):
    community: str

    def __str__(self) -> str:
        return f"{pair(self.community)} ~ {community_list(self.community)}"


class Internal(NamedTuple):
    """The session is within one AS: the parameter of the filters for peers."""

    def __str__(self) -> str:
        return "same_as"


class Not(NamedTuple):
    condition: Condition

    def __str__(self) -> str:
        return f"!({self.condition})"


class AllOf(NamedTuple):
    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " && ".join(f"({condition})" for condition in self.conditions) or "true"


class AnyOf(NamedTuple):
    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " || ".join(f"({condition})" for condition in self.conditions) or "false"


Condition = (
    Inside | Is | From | Blackhole | By | Defined | Compared | PathBegins | Carries | Internal | Not | AllOf | AnyOf
)


class Accept(NamedTuple):
    pass


class Reject(NamedTuple):
    pass


class Set(NamedTuple):
    attribute: Attribute
    value: int


class SetComplement(NamedTuple):
    """`attribute` = LARGEST - `of`: a priority becomes a preference, or back."""

    attribute: Attribute
    of: Attribute


class AddCommunity(NamedTuple):
    community: str


class Prepend(NamedTuple):
    number: int


class Call(NamedTuple):
    """Goes on here unless the function accepts or rejects."""

    function: str
    internal: bool | None = None
    """The argument; None: it takes none."""


class If(NamedTuple):
    condition: Condition
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


Statement = Accept | Reject | Set | SetComplement | AddCommunity | Prepend | Call | If


class Function(NamedTuple):
    name: str
    body: tuple[Statement, ...]
    of_sessions: bool = False
    """It takes the parameter `same_as`."""

    def __str__(self) -> str:
        parameters = "bool same_as" if self.of_sessions else ""
        return "\n".join([f"function {self.name}({parameters})", "{", *lines(self.body, 1), "}"])


def lines(statements: tuple[Statement, ...], depth: int) -> Iterator[str]:
    """Statements as indented text."""
    indent = "  " * depth
    for statement in statements:
        match statement:
            case If(condition, then, otherwise):
                yield f"{indent}if {condition} then {{"
                yield from lines(then, depth + 1)
                if otherwise:
                    yield f"{indent}}} else {{"
                    yield from lines(otherwise, depth + 1)
                yield f"{indent}}}"
            case _:
                yield f"{indent}{_line(statement)}"


def _line(statement: Accept | Reject | Set | SetComplement | AddCommunity | Prepend | Call) -> str:
    match statement:
        case Accept():
            return "accept;"
        case Reject():
            return "reject;"
        case Set(attribute, value):
            return f"{attribute} = {value};"
        case SetComplement(attribute, of):
            return f"{attribute} = {LARGEST} - {of};"
        case AddCommunity(community):
            return f"{community_list(community)}.add({pair(community)});"
        case Prepend(number):
            return f"bgp_path.prepend({number});"
        case Call(function, internal):
            argument = "" if internal is None else "true" if internal else "false"
            return f"{function}({argument});"


def pair(community: str) -> str:
    """`64512:100` as BIRD has it."""
    return f"({', '.join(community.split(':'))})"


def community_list(community: str) -> Literal["bgp_community", "bgp_large_community"]:
    return "bgp_large_community" if community.count(":") == 2 else "bgp_community"
