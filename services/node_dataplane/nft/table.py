"""The model of the table: fed with facts, asked for the transaction that brings the kernel to them.

    set_endpoint, ATTACHMENT      pod ----> rule group (structure of its attachment, one per way)   chain from_, to_
                                               |
    RULES                                      +----> policy (one per way)                          chain out_, in_
                                                         |
    GROUP                                                +----> group                               sets g4_ g6_ p4_ p6_

Each arrow is a `References`: a thing exists in the kernel while something above it uses it. A change marks what it
touches as stale, `_settle` writes that anew from the top of the drawing to the bottom, into journals; `flush` takes the
journals' differences as one transaction, in the order in which the kernel can accept them:

    sets, then their elements (the dispatch maps aside), chains, rules, dispatch; then what goes, the other way round

A change of members touches none of the above but the elements of its sets.

The protocol: `flush` (or `whole`), commit it, then `committed` or `failed`, and only then the next flush. After a
failure nobody knows what the kernel holds, so the next flush replaces the whole table; so does the very first one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from bus_schemas.ids import GroupId, PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, Rule, Rules
from bus_schemas.subjects import ATTACHMENT, GROUP, RULES, Fact
from services.node_dataplane.nft import frame
from services.node_dataplane.nft.chains import UNKNOWN_POLICY, Chain, endpoint_chains
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.groups import Delta, GroupState, MalformedGroup
from services.node_dataplane.nft.journal import Journal
from services.node_dataplane.nft.names import (
    TABLE,
    WAYS,
    Way,
    address_set,
    endpoint_chain,
    policy_chain,
    port_set,
)
from services.node_dataplane.nft.references import References
from services.node_dataplane.nft.render import Rendered, comment, groups_of, render_policy
from services.node_dataplane.nft.sets import (
    ADDRESSES4,
    ADDRESSES6,
    PORTS4,
    PORTS6,
    SetKind,
    SetSpec,
    address_key,
    link_key,
)
from services.node_dataplane.nft.transaction import Command, Elements, Statement, Transaction

__all__ = ["Expected", "Flush", "NodeRules", "PolicyTable", "Wanted"]

_RULES_CHAINS: dict[Way, str] = {"egress": frame.FROM, "ingress": frame.TO}


class Wanted(NamedTuple):
    """What to follow on the bus. Whatever is not in it has been forgotten here."""

    rules: frozenset[RulesId]
    groups: frozenset[GroupId]


class Flush(NamedTuple):
    transaction: Transaction | None
    """None: the kernel already has everything."""
    programmed: frozenset[PodKey]
    """Pods whose whole policy is in this transaction or an earlier one: true once it is committed."""
    blocked: Mapping[PodKey, str]
    """The other pods, which are dropped at least in part, and why."""


class Expected(NamedTuple):
    """What the kernel should hold, for the driver's self-check."""

    revision: int
    structure: tuple[Command, ...]
    """The whole table without the elements of hash sets."""
    elements: Mapping[str, Mapping[bytes, str]]
    """Set -> key -> verdict, for every hash set."""
    kinds: Mapping[str, SetKind]
    """Of the same sets: how their keys are written."""


@dataclass(frozen=True)
class _Endpoint:
    link: str
    addresses: tuple[str, ...]
    container: str


class _Structure(NamedTuple):
    """A rule group's identity, one way."""

    way: Way
    direction: Direction

    @property
    def policies(self) -> frozenset[tuple[Way, RulesId]]:
        return frozenset((self.way, rules) for tier in self.direction.tiers for rules in tier.rules)


_Policy = tuple[Way, RulesId]


class PolicyTable:
    def __init__(self, node: NodeRules | None = None) -> None:
        # Facts
        self._node = node or NodeRules()
        self._endpoints: dict[PodKey, _Endpoint] = {}
        self._attachments: dict[PodKey, Attachment] = {}
        self._rules: dict[RulesId, Rules] = {}
        self._groups: dict[GroupId, GroupState] = {}
        # Who uses what
        self._structures: dict[str, _Structure] = {}
        self._tiers: dict[str, frozenset[str]] = {}
        """All chains that a rule group consists of."""
        self._pod_uses: References[PodKey, str] = References()
        self._structure_uses: References[str, _Policy] = References()
        self._policy_uses: References[_Policy, GroupId] = References()
        self._rendered: dict[_Policy, Rendered] = {}
        self._lacking: dict[_Policy, str] = {}
        """Policies of which something is not known yet, and what."""
        self._faulty: set[_Policy] = set()
        """Policies with rules that were closed."""
        self._unattached: dict[PodKey, str] = {}
        """Plugged pods that no attachment governs, and why."""
        # What is to be settled
        self._stale_pods: set[PodKey] = set()
        self._stale_structures: set[str] = set()
        self._stale_policies: set[_Policy] = set()
        self._stale_groups: set[GroupId] = set()
        # What the kernel shall hold
        self._sets: Journal[str, SetSpec] = Journal()
        self._elements: dict[str, Journal[bytes, str]] = {}
        self._chains: Journal[str, Chain] = Journal()
        self._touched: set[str] = set()
        """Sets with a journal to look into."""
        # What was told, and the flush under way
        self._malformed: dict[GroupId, str] = {}
        self._wanted: Wanted | None = None
        self._unasked: set[RulesId | GroupId] = set()
        """Told of, though not wanted at that time."""
        self._programmed: frozenset[PodKey] = frozenset()
        self._blocked: dict[PodKey, str] = {}
        self._reported = False
        self._revision = 0
        self._pending: Transaction | None = None
        self._in_kernel = False

        for name, spec in frame.SETS.items():
            self._sets.put(name, spec)
            self._elements[name] = Journal()
        self._frame()

    # --- facts

    def set_endpoint(self, pod: PodKey, link: str, addresses: tuple[str, ...], container: str) -> None:
        """The pod is plugged in: its addresses may be sent from, and its policy is wanted."""
        endpoint = _Endpoint(link, addresses, container)
        before = self._endpoints.get(pod)
        if endpoint == before:
            return
        if before is not None:
            self._withdraw(before)
        self._endpoints[pod] = endpoint
        for name, key in _sources(endpoint):
            self._put(name, key, "")
        self._stale_pods.add(pod)

    def remove_endpoint(self, pod: PodKey) -> None:
        endpoint = self._endpoints.pop(pod, None)
        if endpoint is not None:
            self._withdraw(endpoint)
            self._stale_pods.add(pod)

    def set_node(self, node: NodeRules) -> None:
        if node == self._node:
            return
        if node.log_prefix != self._node.log_prefix:
            self._stale_policies.update(self._structure_uses.used)
        self._node = node
        self._frame()

    def apply(self, fact: Fact) -> None:
        """ATTACHMENT (of this node), RULES and GROUP facts; all others are none of its business."""
        if fact.family == GROUP:
            self._apply_group(GroupId(fact.key[0]), fact.key[1], fact.value)
        elif fact.family == RULES:
            self._apply_rules(RulesId(fact.key[0]), fact.value)
        elif fact.family == ATTACHMENT:
            pod = PodKey(fact.key[1], fact.key[2])
            if fact.value is None:
                self._attachments.pop(pod, None)
            else:
                self._attachments[pod] = fact.value
            self._stale_pods.add(pod)

    def _apply_rules(self, id_: RulesId, rules: Rules | None) -> None:
        if rules is None:
            self._rules.pop(id_, None)
        else:
            self._rules[id_] = rules
        used = [(way, id_) for way in WAYS if self._structure_uses.users((way, id_))]
        self._stale_policies.update(used)
        if not used:
            self._unasked.add(id_)

    def _apply_group(self, id_: GroupId, segment: str, value: object) -> None:
        if not segment.isdecimal():
            self._malformed[id_] = f"there is no segment {segment!r}"
            return
        state = self._groups.get(id_)
        if state is None:
            state = self._groups[id_] = GroupState()
        was_known = state.known
        try:
            delta = state.put(int(segment), value)  # type: ignore[arg-type]
        except MalformedGroup as error:
            self._malformed[id_] = f"segment {segment}: {error}"
            return
        self._malformed.pop(id_, None)
        names = _set_names(id_, state)
        if was_known and state.known and names[0] in self._sets.now:
            self._move(names, delta)
        elif was_known != state.known:
            self._stale_groups.add(id_)
        if state.empty:
            del self._groups[id_]
        if not self._policy_uses.users(id_):
            self._unasked.add(id_)

    # --- questions

    def wanted(self) -> Wanted:
        """What to follow now. Facts about anything else are forgotten: their keys are read anew when wanted again."""
        self._settle()
        if self._wanted is None:
            wanted = frozenset(rules for _, rules in self._structure_uses.used)
            self._wanted = Wanted(wanted, frozenset(self._policy_uses.used))
            self._unasked |= self._rules.keys() | self._groups.keys()
        for id_ in self._unasked - self._wanted.rules - self._wanted.groups:
            self._rules.pop(RulesId(id_), None)
            self._groups.pop(GroupId(id_), None)
            self._malformed.pop(GroupId(id_), None)
        self._unasked.clear()
        return self._wanted

    def faults(self) -> tuple[str, ...]:
        """What is dropped because it could not be understood, one sentence each, for people."""
        self._settle()
        policies = [
            f"{self._rules[policy[1]].policy} {policy[0]}, {fault}"
            for policy in self._faulty
            for fault in self._rendered[policy].faults
        ]
        return (*sorted(policies), *(f"group {id_}, {why}" for id_, why in sorted(self._malformed.items())))

    def expected(self) -> Expected | None:
        """What the kernel holds if nobody else touched it; None while a transaction is pending or due."""
        self._settle()
        due = self._touched or self._sets.touched or self._chains.touched
        if due or self._pending is not None or not self._in_kernel:
            return None
        kinds = {name: spec.kind for name, spec in self._sets.now.items() if not spec.kind.interval}
        elements = {name: dict(self._elements[name].now) for name in kinds}
        return Expected(self._revision, tuple(self._script(with_elements=False)), elements, kinds)

    # --- flushing

    def flush(self) -> Flush:
        """The differences since the last flush."""
        if not self._in_kernel:
            transaction: Transaction | None = self.whole()
        else:
            assert self._pending is None, "a transaction is neither committed nor failed"
            self._settle()
            commands = tuple(self._differences())
            transaction = self._begin(commands) if commands else None
        self._report()
        return Flush(transaction, self._programmed, self._blocked)

    def whole(self) -> Transaction:
        """The complete table, in place of whatever is there."""
        assert self._pending is None, "a transaction is neither committed nor failed"
        self._settle()
        self._sets.settle()
        self._chains.settle()
        for elements in self._elements.values():
            elements.settle()
        for name in self._elements.keys() - self._sets.now.keys():
            del self._elements[name]
        self._touched.clear()
        return self._begin(tuple(self._script(with_elements=True)), whole=True)

    def committed(self, transaction: Transaction) -> None:
        assert transaction is self._pending, "not the transaction under way"
        self._pending = None
        self._in_kernel = True

    def failed(self, transaction: Transaction) -> None:
        """The kernel refused it, or nobody knows: the next flush is the whole table."""
        assert transaction is self._pending, "not the transaction under way"
        self._pending = None
        self._in_kernel = False

    def _begin(self, commands: tuple[Command, ...], *, whole: bool = False) -> Transaction:
        self._revision += 1
        self._pending = Transaction(self._revision, commands, whole)
        return self._pending

    # --- settling: from the top of the drawing to its bottom

    def _settle(self) -> None:
        if not (self._stale_pods or self._stale_structures or self._stale_policies or self._stale_groups):
            return
        self._reported = False
        self._wanted = None
        while self._stale_pods:
            self._settle_pod(self._stale_pods.pop())
        for name in self._stale_structures:
            self._link_structure(name)
        for policy in list(self._stale_policies):
            self._link_policy(policy)
        # Now it is certain what exists. Groups first: how a rule is written depends on whether its groups are known.
        for group in self._stale_groups:
            self._settle_group(group)
            self._stale_policies.update(self._policy_uses.users(group))
        self._stale_groups.clear()
        for policy in self._stale_policies:
            self._write_policy(policy)
        self._stale_policies.clear()
        for name in self._stale_structures:
            self._write_structure(name)
        self._stale_structures.clear()

    def _settle_pod(self, pod: PodKey) -> None:
        endpoint = self._endpoints.get(pod)
        attachment = self._attachments.get(pod)
        names: dict[Way, str] = {}
        self._unattached.pop(pod, None)
        if endpoint is None:
            pass
        elif attachment is None:
            self._unattached[pod] = "no attachment yet"
        elif attachment.container != endpoint.container:
            self._unattached[pod] = "its attachment is for another container"
        else:
            for way in WAYS:
                direction = attachment.egress if way == "egress" else attachment.ingress
                names[way] = name = endpoint_chain(way, direction)
                if name not in self._structures:
                    self._structures[name] = _Structure(way, direction)
        shift = self._pod_uses.set(pod, frozenset(names.values()))
        self._stale_structures |= shift.gained
        for name in shift.lost:
            self._stale_structures.add(name)
        if endpoint is not None:
            key = link_key(endpoint.link)
            for way, map_ in _RULES_CHAINS.items():
                if way in names:
                    self._put(map_, key, f"goto {names[way]}")
                else:
                    self._discard(map_, key)

    def _link_structure(self, name: str) -> None:
        used = bool(self._pod_uses.users(name))
        shift = self._structure_uses.set(name, self._structures[name].policies if used else frozenset())
        self._stale_policies |= shift.gained | shift.lost

    def _link_policy(self, policy: _Policy) -> None:
        groups: frozenset[GroupId] = frozenset()
        if self._structure_uses.users(policy):
            groups = frozenset(group for rule in self._rules_of(policy) or () for group in groups_of(rule))
        shift = self._policy_uses.set(policy, groups)
        self._stale_groups |= shift.gained | shift.lost

    def _settle_group(self, id_: GroupId) -> None:
        state = self._groups.get(id_)
        used = bool(self._policy_uses.users(id_))
        if used and state is not None and state.known:
            self._open(id_, state)
        else:
            for name in (*(address_set(id_, f) for f in (4, 6)), *(port_set(id_, f) for f in (4, 6))):
                self._close(name)

    def _write_policy(self, policy: _Policy) -> None:
        way, id_ = policy
        chain = policy_chain(way, id_)
        before = self._rendered.get(policy)
        self._lacking.pop(policy, None)
        self._faulty.discard(policy)
        if not self._structure_uses.users(policy):
            self._rendered.pop(policy, None)
            self._chains.discard(chain)
            return
        rules = self._rules_of(policy)
        rendered = UNKNOWN_POLICY if rules is None else render_policy(rules, self._known, self._node.log_prefix)
        self._rendered[policy] = rendered
        if rules is None:
            self._lacking[policy] = f"policy not known yet: {id_}"
        elif rendered.missing:
            self._lacking[policy] = f"members not known yet: {', '.join(sorted(rendered.missing))} of {id_}"
        if rendered.faults:
            self._faulty.add(policy)
        if rendered.passes:
            self._chains.discard(chain)
        else:
            self._chains.put(chain, Chain(rendered.lines, comment=f"{id_} {way}"))
        if rendered.passes or (before is not None and before.passes):
            self._stale_structures |= self._structure_uses.users(policy)

    def _write_structure(self, name: str) -> None:
        structure = self._structures[name]
        before = self._tiers.pop(name, frozenset())
        if not self._pod_uses.users(name):
            del self._structures[name]
            for chain in before:
                self._chains.discard(chain)
            return
        way, direction = structure
        chains = endpoint_chains(name, way, direction, lambda rules: self._rendered[way, rules])
        for chain in before - chains.keys():
            self._chains.discard(chain)
        for chain, content in chains.items():
            self._chains.put(chain, content)
        self._tiers[name] = frozenset(chains)

    def _rules_of(self, policy: _Policy) -> tuple[Rule, ...] | None:
        way, id_ = policy
        rules = self._rules.get(id_)
        if rules is None:
            return None
        return rules.egress if way == "egress" else rules.ingress

    def _known(self, group: GroupId) -> bool:
        state = self._groups.get(group)
        return state is not None and state.known

    # --- elements

    def _put(self, name: str, key: bytes, verdict: str) -> None:
        self._elements[name].put(key, verdict)
        self._touched.add(name)

    def _discard(self, name: str, key: bytes) -> None:
        self._elements[name].discard(key)
        self._touched.add(name)

    def _withdraw(self, endpoint: _Endpoint) -> None:
        for name, key in _sources(endpoint):
            self._discard(name, key)
        for map_ in _RULES_CHAINS.values():
            self._discard(map_, link_key(endpoint.link))

    def _move(self, names: tuple[str, str], delta: Delta) -> None:
        for name, added, removed in (
            (names[0], delta.added4, delta.removed4),
            (names[1], delta.added6, delta.removed6),
        ):
            if added or removed:
                elements = self._elements[name]
                for key in added:
                    elements.put(key, "")
                for key in removed:
                    elements.discard(key)
                self._touched.add(name)

    def _open(self, id_: GroupId, state: GroupState) -> None:
        kinds = (PORTS4, PORTS6) if state.of == "ports" else (ADDRESSES4, ADDRESSES6)
        for name, kind, keys in zip(_set_names(id_, state), kinds, (state.keys4, state.keys6), strict=True):
            self._sets.put(name, SetSpec(kind, state.selector))
            self._fill(name, keys.keys())

    def _fill(self, name: str, keys: Set[bytes]) -> None:
        elements = self._elements.setdefault(name, Journal())
        for key in elements.now.keys() - keys:
            elements.discard(key)
        for key in keys:
            elements.put(key, "")
        self._touched.add(name)

    def _close(self, name: str) -> None:
        if name in self._sets.now:
            self._sets.discard(name)
            self._elements[name].clear()
            self._touched.add(name)

    def _frame(self) -> None:
        for name, chain in frame.chains(self._node).items():
            self._chains.put(name, chain)
        for name, keys in frame.members(self._node).items():
            self._fill(name, keys)

    # --- the script

    def _differences(self) -> Iterator[Command]:
        sets = self._sets.settle()
        chains = self._chains.settle()
        changed, dispatch = self._element_changes({name for name, _, new in sets if new is None})

        for name, old, new in sets:
            if new is not None:
                assert old is None or old.kind is new.kind
                if old is None:
                    yield _add_set(name, new)
        yield from changed
        for name, before, after in chains:
            if before is None and after is not None:
                yield _add_chain(name, after)
        for name, before, after in chains:
            if after is not None and (before is None or before.lines != after.lines):
                if before is not None:
                    yield Statement(f"flush chain inet {TABLE} {name}")
                yield from _add_rules(name, after)
        yield from dispatch
        gone = [name for name, _, after in chains if after is None]
        for verb in ("flush", "delete"):
            for name in gone:
                yield Statement(f"{verb} chain inet {TABLE} {name}")
        for name, _, new in sets:
            if new is None:
                yield Statement(f"delete set inet {TABLE} {name}")

    def _element_changes(self, gone: set[str]) -> tuple[list[Command], list[Command]]:
        """(elements of sets, elements of the dispatch maps)."""
        changed: list[Command] = []
        dispatch: list[Command] = []
        for name in sorted(self._touched):
            if name in gone:
                del self._elements[name]
                continue
            elements = self._elements.get(name)
            changes = elements.settle() if elements is not None else []
            if elements is None or not changes or name not in self._sets.now:
                continue
            kind = self._sets.now[name].kind
            commands = dispatch if kind.verdicts else changed
            if kind.interval:
                commands.append(Statement(f"flush set inet {TABLE} {name}"))
                rows: tuple[tuple[bytes, str], ...] = tuple(sorted(elements.now.items()))
                if rows:
                    commands.append(Elements("add", name, kind, rows))
                continue
            deleted = tuple((key, old) for key, old, _ in changes if old is not None)
            added = tuple((key, new) for key, _, new in changes if new is not None)
            if deleted:
                commands.append(Elements("delete", name, kind, deleted))
            if added:
                commands.append(Elements("add", name, kind, added))
        self._touched.clear()
        return changed, dispatch

    def _script(self, *, with_elements: bool) -> Iterator[Command]:
        yield Statement(f"add table inet {TABLE}")
        yield Statement(f"delete table inet {TABLE}")
        yield Statement(f"add table inet {TABLE}")
        for counter in frame.COUNTERS:
            yield Statement(f"add counter inet {TABLE} {counter}")
        for name, spec in self._sets.now.items():
            yield _add_set(name, spec)
        for name, chain in self._chains.now.items():
            yield _add_chain(name, chain)
        for name, chain in self._chains.now.items():
            yield from _add_rules(name, chain)
        for name, spec in self._sets.now.items():
            if with_elements or spec.kind.interval:
                rows = tuple(sorted(self._elements[name].now.items()))
                if rows:
                    yield Elements("add", name, spec.kind, rows)

    # --- the report

    def _report(self) -> None:
        if self._reported:
            return
        blocked = dict(self._unattached)
        for policy, reason in self._lacking.items():
            for structure in self._structure_uses.users(policy):
                for pod in self._pod_uses.users(structure):
                    blocked.setdefault(pod, reason)
        self._blocked = blocked
        self._programmed = frozenset(self._endpoints.keys() - blocked.keys())
        self._reported = True


def _sources(endpoint: _Endpoint) -> Iterator[tuple[str, bytes]]:
    link = link_key(endpoint.link)
    for address in endpoint.addresses:
        key = address_key(address)
        yield (frame.POD_SOURCES4 if len(key) == 4 else frame.POD_SOURCES6), link + key


def _set_names(id_: GroupId, state: GroupState) -> tuple[str, str]:
    name = port_set if state.of == "ports" else address_set
    return name(id_, 4), name(id_, 6)


def _add_set(name: str, spec: SetSpec) -> Statement:
    note = f" {comment(spec.comment)};" if spec.comment else ""
    return Statement(f"add {spec.kind.word} inet {TABLE} {name} {{ {spec.kind.declaration}{note} }}")


def _add_chain(name: str, chain: Chain) -> Statement:
    inner = " ".join(filter(None, (chain.hook, f"{comment(chain.comment)};" if chain.comment else "")))
    return Statement(f"add chain inet {TABLE} {name}" + (f" {{ {inner} }}" if inner else ""))


def _add_rules(name: str, chain: Chain) -> Iterator[Statement]:
    for line in chain.lines:
        yield Statement(f"add rule inet {TABLE} {name} {line}")
