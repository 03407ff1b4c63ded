"""Compiled rules, and why one did not match, in words for people.

    allow TCP from `app == "web"` in namespace shop to port 80 or 8000-8080
    source 10.244.1.7 is not in `app == "web"` in namespace shop

A group is known by its selector, over effective labels (`pcns.` for the namespace's, `pcsa.` for the service
account's); what everybody takes for granted (a pod of Kubernetes, in its namespace) is said as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address

from bus_schemas import selectors
from bus_schemas.ids import GroupId
from bus_schemas.policy import Icmp, Match, PortRange, Rule
from bus_schemas.selector_syntax import And, Compare, Has, Node, Not, Or, SelectorError, TokenKind, Within, parse_tree
from bus_schemas.verdicts import Flow, Miss

NAMES: dict[int, str] = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6", 136: "UDPLite", 33: "DCCP"}
NUMBERS: dict[str, int] = {name.upper(): number for number, name in NAMES.items()}

_NAMESPACE = "projectcalico.org/namespace"
_ORCHESTRATOR = "projectcalico.org/orchestrator"
_OF_NAMESPACE, _OF_ACCOUNT = "pcns.", "pcsa."
_NODES, _SERVICE = "nodes: ", 'services: service == "'
"""How the canonical selectors of what is no endpoint begin."""
_LISTED = 6
"""So many of a list are named; of the others only how many there are."""

Selector = Callable[[GroupId], str]
"""A group's canonical selector; empty where it is not known."""


def protocol(number: int) -> str:
    return NAMES.get(number, f"protocol {number}")


def address(packed: bytes) -> str:
    return str(ip_address(packed))


def ports(ranges: Iterable[PortRange]) -> list[str]:
    return [str(r.first) if r.first == r.last else f"{r.first}-{r.last}" for r in ranges]


# --- selectors


def group(id: GroupId, selector: Selector) -> str:
    return members(selector(id)) if selector(id) else f"a group that is not known ({id})"


@lru_cache(maxsize=1 << 12)
def members(canonical: str) -> str:
    """Whom a canonical selector means: `` `app == "web"` in namespace shop``."""
    if canonical.startswith(_NODES):
        labels = canonical.removeprefix(_NODES)
        return "all nodes" if labels == "all()" else f"nodes with `{labels}`"
    if canonical.startswith(_SERVICE):
        return f"endpoints of service {_service(canonical)}"
    try:
        tree = parse_tree(canonical)
    except SelectorError:
        return f"`{canonical}`"
    own: list[Node] = []
    spaces: list[Node] = []
    accounts: list[Node] = []
    where, pods = "", False
    for term in _conjuncts(tree):
        match term:
            case Compare(label, TokenKind.EQ, value) if label == _NAMESPACE:
                where = f" in namespace {value}"
            case Compare(label, TokenKind.EQ, "k8s") if label == _ORCHESTRATOR:
                pods = True
            case Has(label) if label == _NAMESPACE:
                where = where or " in any namespace"
            case _ if (stripped := _without(term, _OF_NAMESPACE)) is not None:
                spaces.append(stripped)
            case _ if (stripped := _without(term, _OF_ACCOUNT)) is not None:
                accounts.append(stripped)
            case _:
                own.append(term)
    if spaces:
        where = f" in namespaces with `{_text(spaces)}`"
    if accounts:
        where = f" with a service account with `{_text(accounts)}`{where}"
    if own and _text(own) != "all()":
        return f"`{_text(own)}`{where}"
    return f"{'pods' if pods or where else 'all endpoints'}{where}" if where or not pods else "all pods"


def _service(canonical: str) -> str:
    """`shop/db` of the selector of a service, with or without its ports; empty: it is another selector."""
    return canonical.removeprefix(_SERVICE).partition('"')[0] if canonical.startswith(_SERVICE) else ""


def _conjuncts(node: Node) -> list[Node]:
    return [term for part in node.operands for term in _conjuncts(part)] if isinstance(node, And) else [node]


def _without(node: Node, prefix: str) -> Node | None:
    """The node without a prefix that all of its labels have; None: not all of them do."""
    match node:
        case Has(label) if label.startswith(prefix):
            return Has(label.removeprefix(prefix))
        case Compare(label, operator, value) if label.startswith(prefix):
            return Compare(label.removeprefix(prefix), operator, value)
        case Within(label, values, negated) if label.startswith(prefix):
            return Within(label.removeprefix(prefix), values, negated)
        case Not(operand):
            inner = _without(operand, prefix)
            return None if inner is None else Not(inner)
        case Or(operands):
            inners = [_without(operand, prefix) for operand in operands]
            known = tuple(inner for inner in inners if inner is not None)
            return Or(known) if len(known) == len(inners) else None
    return None


def _text(terms: Sequence[Node]) -> str:
    text = selectors.of(terms[0] if len(terms) == 1 else And(tuple(terms))).canonical
    return text[1:-1] if len(terms) > 1 and text.startswith("(") else text


# --- rules


def rule(given: Rule, selector: Selector) -> str:
    """`allow TCP from ... to ...`; what it does not restrict is left out."""
    words: list[str] = [given.action]
    if given.ip_version is not None:
        words.append(f"IPv{given.ip_version}")
    if given.protocol is not None:
        words.append(protocol(given.protocol))
    if given.not_protocol is not None:
        words.append(f"all but {protocol(given.not_protocol)}")
    if given.icmp is not None:
        words.append(_icmp(given.icmp))
    if given.not_icmp is not None:
        words.append(f"but not {_icmp(given.not_icmp)}")
    for preposition, end in (("from", given.source), ("to", given.destination)):
        told = _end(end, selector)
        words += [preposition, told] if told else []
    return " ".join(words) if len(words) > 1 else f"{given.action} everything"


def _icmp(icmp: Icmp) -> str:
    return f"type {icmp.type}" if icmp.code is None else f"type {icmp.type} code {icmp.code}"


def _end(match: Match, selector: Selector) -> str:
    parts = [group(id, selector) for id in match.groups]
    parts += [_either(match.nets)] if match.nets else []
    parts += [f"service {name}" for id in match.named_ports if (name := _service(selector(id)))]
    parts += [f"not {group(id, selector)}" for id in match.not_groups]
    parts += [f"not {_either(match.not_nets)}"] if match.not_nets else []
    told = " and ".join(parts)
    listed = _ports(match, selector)
    if listed:
        told += f"{' ' if told else ''}port {_either(listed)}"
    excepted = [*ports(match.not_ports), *(_named(id, selector) for id in match.not_named_ports)]
    if excepted:
        told += f"{' ' if told else ''}any port but {_either(excepted)}"
    return told


def _ports(match: Match, selector: Selector) -> list[str]:
    """Numbers and names; the ports of services are none of either."""
    return [
        *ports(match.ports),
        *(_named(id, selector) for id in match.named_ports if not _service(selector(id))),
    ]


def _named(id: GroupId, selector: Selector) -> str:
    """The name of a `ports` group: its selector ends in ` :<port name>`."""
    return selector(id).rpartition(" :")[2] or f"a named port that is not known ({id})"


def _either(values: Sequence[str]) -> str:
    if len(values) > _LISTED:
        return f"{', '.join(values[: _LISTED - 1])} or {len(values) - _LISTED + 1} more"
    return " or ".join((", ".join(values[:-1]), values[-1])) if len(values) > 1 else values[0]


# --- why not


def miss(given: Miss, of: Rule, flow: Flow, selector: Selector) -> str:
    """The first condition that was not met, as a sentence without its full stop."""
    match given.condition:
        case "unknown":
            named = group(given.group, selector) if given.group else given.text
            return f"it cannot be trusted: {named}"
        case "unwritable":
            return f"it cannot be enforced: {given.text}"
        case "ip_version":
            return f"it is for IPv{of.ip_version}"
        case "protocol" | "not_protocol":
            said = protocol(of.protocol) if of.protocol is not None else f"all but {protocol(of.not_protocol or 0)}"
            return f"it is for {said}, not {protocol(flow.protocol)}"
        case "icmp":
            return f"it is for {_icmp(of.icmp)}" if of.icmp else "the ICMP type is another"
        case "not_icmp":
            return f"it excepts {_icmp(of.not_icmp)}" if of.not_icmp else "the ICMP type is excepted"
    return _miss_end(given, of, flow, selector)


def _is_not_of(whom: str) -> str:
    if whom == "all nodes":
        return "is no node's"
    if whom.startswith(("pods ", "nodes ", "endpoints ")):
        return f"is none of the {whom}"
    return f"is not in {whom}" if not whom.startswith("all ") else "is nobody's that policies know"


def _miss_end(given: Miss, of: Rule, flow: Flow, selector: Selector) -> str:
    source = given.end == "source"
    match = of.source if source else of.destination
    who = f"{given.end} {address(flow.source if source else flow.destination)}"
    port = f"{given.end} port {flow.source_port if source else flow.port}"
    match given.condition:
        case "groups":
            return f"{who} {_is_not_of(group(given.group, selector))}"
        case "not_groups":
            return f"{who} is in {group(given.group, selector)}, which it excepts"
        case "nets":
            return f"{who} is not in {_either(match.nets)}"
        case "not_nets":
            return f"{who} is in what it excepts: {_either(match.not_nets)}"
        case "ports":
            services = [name for id in match.named_ports if (name := _service(selector(id)))]
            if services:
                return f"{who} {protocol(flow.protocol)} port {flow.port} is no endpoint of service {_either(services)}"
            if flow.protocol not in NAMES or not flow.port:
                return "it is for ports"
            return f"{port} is not {_either(_ports(match, selector))}"
        case "not_ports":
            return f"{port} is one that it excepts"
    return f"{port} is {_named(given.group, selector)}, which it excepts"
