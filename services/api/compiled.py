"""Reads, on demand, what the compiler says of some endpoints: attachments, then the shared
directions, rules and groups that they name.

Nothing is followed for this: an explanation is asked for by a person, now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus_schemas.ids import DirectionId, GroupId, RulesId
from bus_schemas.policy import Attachment, Group, HostAttachment
from bus_schemas.policy_snapshot import groups_of
from bus_schemas.shared_directions import directions_of, rules_named, shared_by, unfold
from bus_schemas.subjects import ATTACHMENT, DIRECTION, GROUP, HOST_ATTACHMENT, RULES, Fact, Family, Key
from chassis.bus import Bus
from services.api.explain import Compiled, EndpointKey, HostKey


async def read(bus: Bus, pods: Sequence[EndpointKey], hosts: Sequence[HostKey]) -> Compiled:
    """What cannot be read counts as absent, as it does for the nodes. Raises Unavailable."""
    compiled = Compiled()
    compiled.attachments |= dict.fromkeys(pods)
    attachments = await _values(bus, [(ATTACHMENT, key) for key in pods] + [(HOST_ATTACHMENT, key) for key in hosts])
    shared = sorted({id for _, value in attachments for id in shared_by(value)})
    found = await _values(bus, [(DIRECTION, (id,)) for id in shared])
    known = {DirectionId(key[0]): direction.direction for key, direction in found}
    named: set[RulesId] = set()
    for key, value in attachments:
        whole = unfold(value, known)
        if isinstance(whole, Attachment):
            compiled.attachments[key[0], key[1], key[2]] = whole
        elif isinstance(whole, HostAttachment):
            compiled.hosts[key[0], key[1]] = whole
        named.update(id for direction in directions_of(whole) for id in rules_named(direction))
    groups: set[GroupId] = set()
    for key, rules in await _values(bus, [(RULES, (id,)) for id in sorted(named)]):
        compiled.world.set_rules(RulesId(key[0]), rules)
        groups.update(groups_of((*rules.ingress, *rules.egress)))
    first = await _values(bus, [(GROUP, (id, "0")) for id in sorted(groups)])
    more = [(GROUP, (key[0], str(at))) for key, group in first for at in range(1, group.segments)]
    for key, group in (*first, *await _values(bus, more)):
        assert isinstance(group, Group)
        compiled.world.set_group(GroupId(key[0]), int(key[1]), group)
    return compiled


async def _values(bus: Bus, keys: Sequence[tuple[Family[Any], Key]]) -> list[tuple[Key, Any]]:
    """The keys that have a value, with it."""
    if not keys:
        return []
    found = await bus.get_many(keys)
    return [(fact.key, fact.value) for fact in found if isinstance(fact, Fact) and fact.value is not None]
