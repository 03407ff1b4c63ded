"""A small nftables in Python: runs nft scripts on a model of the table, and packets through the result.

It knows nothing of how the scripts are made, only nft's own words (nft(8)), of which it understands those that the
table uses; anything else is an error, and so is what the kernel would refuse: an unknown set, a chain deleted while
something still jumps to it, an element deleted that is not there.

    nft = Nftables()
    nft.run(str(transaction))
    nft.send(Packet("10.0.0.1", "10.0.0.2", TCP, in_link="tor1", out_link="tor2", port=80)).accepted
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal

from services.node_dataplane.nft.link_groups import first_choice
from services.node_dataplane.nft.names import LINK_PREFIX

Path = Literal["forward", "input", "output"]

_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "srcnat": 100}
_DSTNAT = -100
_HOOKS: dict[Path, tuple[str, ...]] = {
    "forward": ("prerouting", "forward", "postrouting"),
    "input": ("prerouting", "input"),
    "output": ("output", "postrouting"),
}
_TOKEN = re.compile(r'"[^"]*"|[{},;:]+(?=\s|$)|(?:[^\s{},;"]|"[^"]*")+|[{},;]')
_DEPTH = 16
"""NFT_JUMP_STACK_SIZE"""


class Refused(Exception):
    """What the kernel, or nft, would not take."""


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection, unless `state` says otherwise."""

    source: str
    destination: str
    protocol: int
    port: int = 0
    source_port: int = 40000
    in_link: str = "eth0"
    out_link: str = "eth0"
    icmp_type: int = 8
    icmp_code: int = 0
    grouped: bool = True
    """Links with a pod's name are in the groups of pods' links, as they are when an agent made them."""
    path: Path = "forward"
    state: str = "new"
    status: str = ""
    """`dnat`: somebody replaced the destination, before what is evaluated here saw it."""
    mark: int = 0
    own: bool = False
    """The source is an address of the node."""
    draw: int = 0
    """What random numbers are made of: their remainder."""
    remembered: frozenset[str] = frozenset()
    """Dynamic sets that the source is in."""
    original: tuple[str, int] | None = None
    """The destination and its port until somebody replaces them: behind the raw and mangle priorities of the first
    hook. Then the status is `dnat`."""


@dataclass
class Outcome:
    accepted: bool = True
    masqueraded: bool = False
    rejected: str = ""
    """With what it was dropped, where the sender is told."""
    destination: str = ""
    """Where it goes, `address port`, when the table itself redirected it."""
    learned: list[str] = field(default_factory=list)
    """Dynamic sets that it put its source in."""
    tracked: bool = True
    logged: list[str] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)
    """Prefixes of the messages to the log group; no limit withholds one."""
    counted: list[str] = field(default_factory=list)
    """Named counters, in the order in which they were passed."""
    by: str = ""
    """The rule that dropped it."""


@dataclass
class _Set:
    types: tuple[str, ...]
    interval: bool
    dynamic: bool = False
    elements: dict[tuple[Any, ...], str] = field(default_factory=dict)
    """An interval set's keys are ranges: (first, last) of each part, as numbers."""

    def get(self, key: tuple[object, ...]) -> str | None:
        if not self.interval:
            return self.elements.get(key)
        numbers = [int(part) for part in key]  # type: ignore[call-overload]
        for box, verdict in self.elements.items():
            if all(first <= number <= last for number, (first, last) in zip(numbers, box, strict=True)):
                return verdict
        return None

    def add_range(self, key: tuple[tuple[int, int], ...], verdict: str) -> None:
        overlap = any(
            all(a <= d and c <= b for (a, b), (c, d) in zip(key, other, strict=True)) for other in self.elements
        )
        _must(not overlap, "overlap")
        self.elements[key] = verdict


@dataclass
class _Rule:
    text: str
    conditions: list[Callable[[_Seen, Outcome], bool]]
    uses: list[str]
    """Sets and chains."""
    counter: list[int] = field(default_factory=lambda: [0])
    verdict: Callable[[_Seen], str | None] | None = None


@dataclass
class _Chain:
    hook: str = ""
    priority: int = 0
    nat: bool = False
    rules: list[_Rule] = field(default_factory=list)


class _Seen:
    """A packet with its addresses parsed."""

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.source = ip_address(packet.source)
        self.destination = ip_address(packet.destination)
        self.port = packet.port
        self.family = self.source.version
        self.state = packet.state
        self.status = packet.status
        self.mark = packet.mark
        if packet.original is not None:
            self.destination, self.port = ip_address(packet.original[0]), packet.original[1]

    def redirect(self, there: str, outcome: Outcome) -> bool:
        """By the table itself."""
        address, _, port = there.partition(" ")
        self.destination, self.port, self.status = ip_address(address), int(port), "dnat"
        outcome.destination = there
        return True

    def translate(self) -> None:
        """The destination NAT."""
        if self.packet.original is not None:
            if self.status != "dnat":
                self.destination, self.port = ip_address(self.packet.destination), self.packet.port
            self.status = "dnat"


class Nftables:
    """One table, `inet tortie`."""

    def __init__(self) -> None:
        self._exists = False
        self._clear()

    def _clear(self) -> None:
        self.sets: dict[str, _Set] = {}
        self.chains: dict[str, _Chain] = {}
        self.counters: set[str] = set()
        self.limits: set[str] = set()

    # --- scripts

    def run(self, script: str) -> None:
        for line in script.splitlines():
            if line.strip():
                try:
                    self._command(_tokens(line))
                except (Refused, KeyError, ValueError, IndexError) as error:
                    raise Refused(f"{line}: {error!r}") from error
        self._check_references()

    def snapshot(self) -> dict[str, object]:
        """Everything that matters of the table, for comparing two of them."""
        return {
            "sets": {n: (s.types, s.interval, dict(s.elements)) for n, s in self.sets.items()},
            "counters": set(self.counters),
            "chains": {n: (c.hook, c.priority, [r.text for r in c.rules]) for n, c in self.chains.items()},
        }

    def _command(self, words: list[str]) -> None:
        verb, kind, family, table, *rest = words
        if (family, table) != ("inet", "tortie"):
            raise Refused("not the table inet tortie")
        if kind == "table":
            if verb == "delete":
                _must(self._exists, "no such table")
                self._clear()
            self._exists = verb == "add"
            return
        _must(self._exists, "no such table")
        name, *rest = rest
        match verb, kind:
            case "add", "counter":
                self.counters.add(name)
            case "delete", "counter":
                self.counters.remove(name)
            case "add", "limit":
                self.limits.add(name)
            case "add", ("set" | "map"):
                _must(name not in self.sets, "the set exists")
                self.sets[name] = _set_of(rest, kind)
            case "flush", ("set" | "map"):
                self.sets[name].elements.clear()
            case "delete", ("set" | "map"):
                del self.sets[name]
            case "add", "chain":
                _must(name not in self.chains, "the chain exists")
                self.chains[name] = _chain_of(rest)
            case "flush", "chain":
                self.chains[name].rules.clear()
            case "delete", "chain":
                _must(not self.chains[name].rules, "the chain has rules")
                del self.chains[name]
            case "add", "rule":
                self.chains[name].rules.append(self._rule(rest))
            case (("add" | "delete"), "element"):
                self._elements(verb, self.sets[name], rest)
            case _:
                raise Refused("unknown command")

    def _elements(self, verb: str, set_: _Set, words: list[str]) -> None:
        for row in _rows(words):
            key, _, verdict = " ".join(row).partition(" : ")
            verdict = verdict.strip('"')
            if set_.interval:
                _must(verb == "add", "ranges are added and flushed, nothing else")
                parts = zip(key.split(" . "), set_.types, strict=True)
                set_.add_range(tuple(_range(part, type_) for part, type_ in parts), verdict)
                continue
            parsed = tuple(_value(part, type_) for part, type_ in zip(key.split(" . "), set_.types, strict=True))
            if verb == "delete":
                _must(parsed in set_.elements, f"no element {key}")
                del set_.elements[parsed]
            else:
                _must(set_.elements.get(parsed, verdict) == verdict, f"element {key} exists with another verdict")
                set_.elements[parsed] = verdict

    def _check_references(self) -> None:
        """At commit: everything that is named exists."""
        for name, chain in self.chains.items():
            for rule in chain.rules:
                for use in rule.uses:
                    if use not in self.sets.keys() | self.chains.keys() | self.counters | self.limits:
                        raise Refused(f"chain {name} names {use}, which does not exist")
        for name, set_ in self.sets.items():
            for verdict in set_.elements.values():
                if verdict and " . " not in verdict and verdict.split()[-1] not in self.chains.keys() | self.counters:
                    raise Refused(f"map {name} leads to {verdict}, which does not exist")

    # --- rules

    def _rule(self, words: list[str]) -> _Rule:
        rule = _Rule(" ".join(words), [], [])
        rest = list(words)
        while rest:
            self._statement(rule, rest)
        return rule

    def _statement(self, rule: _Rule, rest: list[str]) -> None:
        word = rest.pop(0)
        match word:
            case "meta" if rest[:4] == ["mark", "set", "meta", "mark"]:
                operator, value = rest[4], int(rest[5], 16)
                _must(operator in ("|", "&"), "a mark that is not made of itself")
                del rest[:6]

                def mark(seen: _Seen, outcome: Outcome) -> bool:
                    seen.mark = seen.mark | value if operator == "|" else seen.mark & value
                    return True

                rule.conditions.append(mark)
            case "accept" | "drop" | "return":
                rule.verdict = lambda seen: word
            case "jump" | "goto":
                target = rest.pop(0)
                rule.uses.append(target)
                rule.verdict = lambda seen: f"{word} {target}"
            case "counter":
                name = ""
                if rest and rest[0] == "name":
                    rest.pop(0)
                    if len(rest) > 1 and f"{rest[0]} {rest[1]}" in _FIELDS:
                        rule.conditions.append(self._count_by_map(rule, rest))
                        return
                    name = rest.pop(0)
                    rule.uses.append(name)
                counter = rule.counter

                def count(seen: _Seen, outcome: Outcome) -> bool:
                    counter[0] += 1
                    if name:
                        outcome.counted.append(name)
                    return True

                rule.conditions.append(count)
            case "comment":
                rest.pop(0)
            case "reject":
                how = " ".join(rest)
                _must(how in ("with tcp reset", "with icmpx type port-unreachable"), "another reject")
                rest.clear()

                def reject(seen: _Seen, outcome: Outcome) -> bool:
                    outcome.rejected = how.split()[-1]
                    return True

                rule.conditions.append(reject)
                rule.verdict = lambda seen: "drop"
            case "update":
                name, rest[:] = rest[0][1:], rest[1:]
                _must(self.sets[name].dynamic and rest[0] == "{" and rest[3] == "}", "an update of another set")
                rule.uses.append(name)
                del rest[:4]

                def learn(seen: _Seen, outcome: Outcome) -> bool:
                    outcome.learned.append(name)
                    return True

                rule.conditions.append(learn)
            case "dnat":
                rule.conditions.append(self._dnat(rule, rest))
                rule.verdict = lambda seen: "accept"
            case "meta" if rest[:1] == ["priority"]:
                raise Refused("a priority")
            case "log":
                _must(rest.pop(0) == "prefix", "log without prefix")
                prefix = rest.pop(0).strip('"')
                _must(len(prefix) < 128, "a long prefix")
                to_group = bool(rest) and rest[0] == "group"
                if to_group:
                    _must((rest[1], rest[2], rest[3]) == ("84", "snaplen", "128"), "another group")
                    del rest[:4]

                def log(seen: _Seen, outcome: Outcome) -> bool:
                    (outcome.reported if to_group else outcome.logged).append(prefix)
                    return True

                rule.conditions.append(log)
            case "limit" if rest[:1] == ["rate"]:
                _must(rest[2] == "burst" and rest[4] == "packets", "a limit without burst")
                del rest[:5]
            case "limit":
                _must(rest.pop(0) == "name", "a limit of its own")
                rule.uses.append(rest.pop(0).strip('"'))
            case "notrack":

                def untrack(seen: _Seen, outcome: Outcome) -> bool:
                    outcome.tracked, seen.state = False, "untracked"
                    return True

                rule.conditions.append(untrack)
            case "masquerade":
                if rest and rest[0] == "fully-random":
                    rest.pop(0)

                def masquerade(seen: _Seen, outcome: Outcome) -> bool:
                    outcome.masqueraded = True
                    return True

                rule.conditions.append(masquerade)
                rule.verdict = lambda seen: "accept"
            case _:
                rest.insert(0, word)
                self._match(rule, rest)

    def _dnat(self, rule: _Rule, rest: list[str]) -> Callable[[_Seen, Outcome], bool]:
        """`dnat ip to <key> map @<map>` or `dnat ip to <address>:<port>`: a miss ends the rule."""
        ip = rest.pop(0)
        _must(rest.pop(0) == "to", "no destination")
        if len(rest) == 1 and rest[0][-1].isdigit():
            address, _, port = rest.pop(0).rpartition(":")
            there = f"{ip_address(address.strip('[]'))} {int(port)}"
            return lambda seen, outcome: seen.redirect(there, outcome)
        fields = _fields(rest)
        _must(rest.pop(0) == "map", "a key without a map")
        name = rest.pop(0)[1:]
        map_ = self.sets[name]
        _must(len(map_.types) == len(fields) and ip in ("ip", "ip6"), "the map has another type")
        rule.uses.append(name)

        def translate(seen: _Seen, outcome: Outcome) -> bool:
            key = _key(fields, seen)
            found = None if key is None else map_.get(key)
            return found is not None and seen.redirect(found.replace(" . ", " "), outcome)

        return translate

    def _count_by_map(self, rule: _Rule, rest: list[str]) -> Callable[[_Seen, Outcome], bool]:
        """`counter name <key> map @<map>`: a miss ends the rule."""
        fields = _fields(rest)
        _must(rest.pop(0) == "map", "a counter by key without a map")
        name = rest.pop(0)[1:]
        map_ = self.sets[name]
        _must(len(map_.types) == len(fields), "the map has another type")
        rule.uses.append(name)

        def count(seen: _Seen, outcome: Outcome) -> bool:
            key = _key(fields, seen)
            found = None if key is None else map_.get(key)
            if found is not None:
                outcome.counted.append(found)
            return found is not None

        return count

    def _match(self, rule: _Rule, rest: list[str]) -> None:
        if rest[:3] == ["meta", "mark", "&"]:
            mask, compared, wanted = int(rest[3], 16), rest[4], int(rest[5], 16)
            _must(compared == "==", "a mark that is compared otherwise")
            del rest[:6]
            rule.conditions.append(lambda seen, outcome: seen.mark & mask == wanted)
            return
        if rest[0] in ("iifgroup", "oifgroup") and rest[1] == "&":
            name, mask, compared, group = rest[0], int(rest[2], 16), rest[3], int(rest[4], 16)
            _must(compared in ("==", "!="), "a group that is compared otherwise")
            del rest[:5]
            rule.conditions.append(lambda seen, outcome: (_group(seen, name) & mask == group) == (compared == "=="))
            return
        fields = _fields(rest)
        if rest[:2] == ["vmap", "{"]:
            end = rest.index("}")
            pairs = [" ".join(row).partition(" : ") for row in _rows(rest[1 : end + 1])]
            leads = {(int(key),): verdict for key, _, verdict in pairs}
            rule.uses += [verdict.split()[-1] for verdict in leads.values()]
            del rest[: end + 1]
            rule.verdict = lambda seen: leads.get(_key(fields, seen) or ())  # type: ignore[arg-type]
            return
        if rest[0] == "vmap":
            map_ = self.sets[rest[1][1:]]
            rule.uses.append(rest[1][1:])
            del rest[:2]
            _must(len(map_.types) == len(fields), "the map has another type")

            def lookup(seen: _Seen) -> str | None:
                key = _key(fields, seen)
                return None if key is None else map_.get(key)

            rule.verdict = lookup
            return
        if rest[0][1:] in self.sets and self.sets[rest[0][1:]].dynamic:
            clients = rest.pop(0)[1:]
            rule.uses.append(clients)
            rule.conditions.append(lambda seen, outcome: clients in seen.packet.remembered)
            return
        negated = rest[0] == "!="
        if negated:
            rest.pop(0)
        test = self._operand(rule, rest, fields)

        def condition(seen: _Seen, outcome: Outcome) -> bool:
            key = _key(fields, seen)
            return key is not None and test(key) != negated

        rule.conditions.append(condition)

    def _operand(
        self, rule: _Rule, rest: list[str], fields: list[tuple[str, str]]
    ) -> Callable[[tuple[object, ...]], bool]:
        word = rest.pop(0)
        if word.startswith("@"):
            set_ = self.sets[word[1:]]
            _must(len(set_.types) == len(fields), f"{word} has another type")
            rule.uses.append(word[1:])
            return lambda key: set_.get(key) is not None
        values = [word]
        if word == "{":
            end = rest.index("}")
            values = [value for value in rest[:end] if value != ","]
            del rest[: end + 1]
        else:
            while rest and rest[0] == ",":
                values.append(rest[1])
                del rest[:2]
        (_, type_) = fields[0]
        tests = [_test(value, type_) for value in values]
        if len(tests) == 1:
            (only,) = tests
            return lambda key: only(key[0])
        return lambda key: any(test(key[0]) for test in tests)

    # --- packets

    def send(self, packet: Packet) -> Outcome:
        """What becomes of the packet on its path."""
        seen, outcome = _Seen(packet), Outcome()
        for hook in _HOOKS[packet.path]:
            for chain in sorted((c for c in self.chains.values() if c.hook == hook), key=lambda c: c.priority):
                if chain.priority > _DSTNAT:
                    seen.translate()
                if chain.nat and seen.state != "new":
                    continue
                if self._walk(chain, seen, outcome, 0) == "drop":
                    outcome.accepted = False
                    return outcome
            seen.translate()
        return outcome

    def _walk(self, chain: _Chain, seen: _Seen, outcome: Outcome, depth: int) -> str | None:
        """accept, drop, or None: the end of the chain."""
        _must(depth < _DEPTH, "too many jumps")
        for rule in chain.rules:
            if not all(condition(seen, outcome) for condition in rule.conditions) or rule.verdict is None:
                continue
            verdict = rule.verdict(seen)
            if verdict is None:
                continue
            word, _, target = verdict.partition(" ")
            if word == "drop":
                outcome.by = rule.text
            if word in ("accept", "drop"):
                return word
            if word == "return":
                return None
            inner = self._walk(self.chains[target], seen, outcome, depth + 1)
            if inner is not None or word == "goto":
                return inner
        return None


# --- nft's words


def _tokens(line: str) -> list[str]:
    return _TOKEN.findall(line)


def _must(condition: object, why: str) -> None:
    if not condition:
        raise Refused(why)


def _rows(words: list[str]) -> Iterator[list[str]]:
    _must(words[0] == "{" and words[-1] == "}", "no braces")
    row: list[str] = []
    for word in [*words[1:-1], ","]:
        if word == ",":
            _must(row, "an empty element")
            yield row
            row = []
        else:
            row.append(word)


def _set_of(words: list[str], kind: str) -> _Set:
    text = " ".join(words[1:-1])
    found = re.search(r"(type|typeof) ([^;]+?) ?;", text)
    assert found, text
    key, _, data = found[2].partition(" : ")
    if found[1] == "typeof":
        types = tuple(type_ for _, type_ in _fields(key.split()))
        _must(kind == "map" and data in ("ip daddr . th dport", "ip6 daddr . th dport"), "another value")
        return _Set(types, False)
    _must((data in ("verdict", "counter")) == (kind == "map"), "map and data")
    return _Set(tuple(key.split(" . ")), "flags interval" in text, "flags dynamic" in text)


def _chain_of(words: list[str]) -> _Chain:
    text = " ".join(words)
    found = re.search(r"type (\w+) hook (\w+) priority (-?\w+)(?: ([+-]) (\d+))? ?; policy accept", text)
    if found is None:
        _must("hook" not in text, "a hook that is not understood")
        return _Chain()
    base = _PRIORITIES[found[3]] if found[3] in _PRIORITIES else int(found[3])
    return _Chain(found[2], base + int(f"{found[4] or '+'}{found[5] or 0}"), nat=found[1] == "nat")


_FIELDS = {
    "iifgroup": "devgroup",
    "oifgroup": "devgroup",
    "iifname": "ifname",
    "oifname": "ifname",
    "meta nfproto": "nfproto",
    "meta l4proto": "inet_proto",
    "ip protocol": "inet_proto",
    "ip saddr": "ipv4_addr",
    "ip daddr": "ipv4_addr",
    "ip6 saddr": "ipv6_addr",
    "ip6 daddr": "ipv6_addr",
    "th sport": "inet_service",
    "th dport": "inet_service",
    "udp dport": "inet_service",
    "icmp type": "number",
    "icmp code": "number",
    "icmpv6 type": "number",
    "icmpv6 code": "number",
    "ct state": "state",
    "ct status": "state",
}


def _fields(rest: list[str]) -> list[tuple[str, str]]:
    fields = [_field(rest)]
    while rest and rest[0] == ".":
        rest.pop(0)
        fields.append(_field(rest))
    return fields


def _field(rest: list[str]) -> tuple[str, str]:
    """The name, with a mask where the field has one (`ip saddr & 255.0.0.0`), and the type."""
    name = rest.pop(0)
    if name == "numgen":
        _must(rest[:2] == ["random", "mod"], "another number")
        name = f"numgen {rest[2]} 0"
        del rest[:3]
        if rest[:1] == ["offset"]:
            name = f"{name[:-2]} {rest[1]}"
            del rest[:2]
        return name, "integer"
    if name == "fib":
        _must(rest[:2] == ["saddr", "type"], "another question")
        del rest[:2]
        return "fib saddr type", "address type"
    if name not in _FIELDS:
        name += " " + rest.pop(0)
    type_ = _FIELDS[name]
    if rest and rest[0] == "&" and type_ in ("ipv4_addr", "ipv6_addr"):
        _value(rest[1], type_)
        name += f" & {rest[1]}"
        del rest[:2]
    return name, type_


_READ: dict[str, Callable[[_Seen], object]] = {
    "iifgroup": lambda s: _group(s, "iifgroup"),
    "oifgroup": lambda s: _group(s, "oifgroup"),
    "iifname": lambda s: s.packet.in_link,
    "oifname": lambda s: s.packet.out_link,
    "meta nfproto": lambda s: s.family,
    "meta l4proto": lambda s: s.packet.protocol,
    "ip protocol": lambda s: s.packet.protocol if s.family == 4 else None,
    "ip saddr": lambda s: s.source if s.family == 4 else None,
    "ip daddr": lambda s: s.destination if s.family == 4 else None,
    "ip6 saddr": lambda s: s.source if s.family == 6 else None,
    "ip6 daddr": lambda s: s.destination if s.family == 6 else None,
    "th sport": lambda s: s.packet.source_port,
    "th dport": lambda s: s.port,
    "udp dport": lambda s: s.port if s.packet.protocol == 17 else None,
    "icmp type": lambda s: s.packet.icmp_type if (s.family, s.packet.protocol) == (4, 1) else None,
    "icmp code": lambda s: s.packet.icmp_code if (s.family, s.packet.protocol) == (4, 1) else None,
    "icmpv6 type": lambda s: s.packet.icmp_type if (s.family, s.packet.protocol) == (6, 58) else None,
    "icmpv6 code": lambda s: s.packet.icmp_code if (s.family, s.packet.protocol) == (6, 58) else None,
    "ct state": lambda s: s.state,
    "ct status": lambda s: s.status,
    "fib saddr type": lambda s: "local" if s.packet.own else "unicast",
}


def _group(seen: _Seen, field: str) -> int:
    link = seen.packet.in_link if field == "iifgroup" else seen.packet.out_link
    return first_choice(link) if link.startswith(LINK_PREFIX) and seen.packet.grouped else 0


def _key(fields: list[tuple[str, str]], seen: _Seen) -> tuple[object, ...] | None:
    """None: the packet has no such field, so the rule does not match, negated or not."""
    key = tuple(_read(name, seen) for name, _ in fields)
    return None if None in key else key


def _read(name: str, seen: _Seen) -> object:
    if name.startswith("numgen"):
        _, count, offset = name.split()
        return seen.packet.draw % int(count) + int(offset)
    field, _, mask = name.partition(" & ")
    value = _READ[field](seen)
    if mask and isinstance(value, IPv4Address | IPv6Address):
        return type(value)(int(value) & int(ip_address(mask)))
    return value


def _value(text: str, type_: str) -> object:
    match type_:
        case "ifname":
            return text.strip('"')
        case "ipv4_addr":
            return IPv4Address(text)
        case "ipv6_addr":
            return IPv6Address(text)
        case "nfproto":
            return {"ipv4": 4, "ipv6": 6}[text]
        case "state" | "address type":
            return text
        case _:
            return int(text)


def _range(text: str, type_: str) -> tuple[int, int]:
    if "/" in text:
        net = ip_network(text)
        return int(net.network_address), int(net.broadcast_address)
    first, _, last = text.partition("-")
    ends = int(_value(first, type_)), int(_value(last or first, type_))  # type: ignore[call-overload]
    _must(ends[0] <= ends[1], "an empty range")
    return ends


def _test(text: str, type_: str) -> Callable[[object], bool]:
    if type_ == "ifname" and text.endswith('*"'):
        prefix = text.strip('"')[:-1]
        return lambda value: str(value).startswith(prefix)
    if type_ in ("ipv4_addr", "ipv6_addr") and "/" in text:
        net = ip_network(text)
        return lambda value: isinstance(value, IPv4Address | IPv6Address) and value in net
    if type_ == "inet_service" and "-" in text:
        first, last = map(int, text.split("-"))
        _must(first < last, "an empty range")
        return lambda value: isinstance(value, int) and first <= value <= last
    wanted = _value(text, type_)
    return lambda value: value == wanted
