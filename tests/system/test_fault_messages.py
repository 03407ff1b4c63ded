"""Messages that no writer of ours would write, on a subject of every family: kept out, named in /readyz, and gone when
their writer repairs them or a good value comes. Verdicts, routes and addresses stay as they were."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus_schemas.codec import encode
from bus_schemas.ids import NodeName
from bus_schemas.ipam import Block
from bus_schemas.policy import Attachment, Direction, Group, Rule, Rules
from bus_schemas.resources import KINDS
from bus_schemas.routes import Route
from bus_schemas.status import Lease
from bus_schemas.subjects import (
    AFFINITY,
    ASSIGN,
    ATTACHMENT,
    BLOCK,
    DESIRED,
    ENDPOINT,
    GROUP,
    HANDLE,
    LEASE,
    PREFIX,
    RELEASE,
    ROUTE,
    RULES,
    STATUS,
    Family,
    Key,
)
from tests.support.fault_streams import WEB
from tests.support.faults import World
from tests.support.waiting import within

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

GOOD = encode(Lease(service="nobody", holder="nobody", until=0.0))
MALFORMED = {
    "garbage": b"\xc1 not msgpack",
    "another message": GOOD,
    "truncated": GOOD[: len(GOOD) // 2],
    "unknown tag": msgspec.msgpack.encode({"type": "nonsense/9"}),
    "no map": msgspec.msgpack.encode([1, 2, 3]),
}

DERIVED = {
    GROUP: ("policy-compiler", "agent-node1"),
    RULES: ("policy-compiler", "agent-node1"),
    ATTACHMENT: ("policy-compiler", "agent-node1"),
    ROUTE: ("route-distribution", "agent-node2"),
    ENDPOINT: ("agent-node1", "policy-compiler"),
    BLOCK: ("ipam", "route-distribution"),
    AFFINITY: ("ipam", "ipam"),
    HANDLE: ("ipam", "api"),
}
"""Families whose writer knows what they must be: (writer, a reader)."""


async def key_of(world: World, family: Family[Any]) -> Key:
    """A key of the family that the traffic of the tests rests on."""
    found = (await world.snapshot(family))[family]
    address = world.cluster.pods[WEB].addresses[0]
    match family.name:
        case "attachment" | "endpoint":
            return ("node1", *WEB)
        case "rules":
            return next(key for key in found if "web-from-a" in key[0])
        case "group":
            return next(key for key, value in found.items() if '"a"' in value.selector)
        case "handle":
            return next(key for key, value in found.items() if address in value.addresses)
        case "block" | "route":
            return next(key for key, value in found.items() if value.node == "node1")
    return next(iter(sorted(found)))


async def settled(world: World, family: Family[Any], key: Key, good: Any) -> None:
    """The key holds the good value again, and nobody speaks of it any more."""

    async def repaired() -> bool:
        found = (await world.snapshot(family))[family].get(key)
        assert found == good, f"{family.name} {key} is {found}"
        subject = family.subject(*key)
        for process in world.processes:
            note = await world.note(process)
            assert subject not in note, f"{process}: {note}"
        return True

    await within(repaired, f"{family.name} {key} is repaired")


async def named(world: World, process: str, subject: str) -> None:
    async def is_named() -> bool:
        return subject in await world.note(process)

    await within(is_named, f"{process} names {subject}")


@pytest.mark.parametrize("family", DERIVED, ids=lambda family: family.name)
async def test_a_malformed_message_of_a_derived_family(world: World, family: Family[Any]) -> None:
    writer, reader = DERIVED[family]
    key = await key_of(world, family)
    good = await world.value(family, *key)
    subject = family.subject(*key)
    async with world.watched() as streams:
        if reader == writer:  # nobody else reads it, and the writer mends it before anybody has asked
            for payload in MALFORMED.values():
                await world.publish(subject, payload)
                await settled(world, family, key, good)
        else:
            async with world.paused(writer):
                for payload in MALFORMED.values():
                    await world.publish(subject, payload)
                    await named(world, reader, subject)
                await streams.more()
            await settled(world, family, key, good)
        await world.converged(f"malformed {family.name}")


@pytest.mark.parametrize("family", DERIVED, ids=lambda family: family.name)
async def test_a_malformed_message_while_its_writer_is_restarted(world: World, family: Family[Any]) -> None:
    """Nobody is left who remembers the last good value, but for those who are not told of the bad one."""
    writer, _ = DERIVED[family]
    key = await key_of(world, family)
    good = await world.value(family, *key)
    async with world.watched():
        await world.kill(writer)
        await world.publish(family.subject(*key), MALFORMED["garbage"])
        await world.start(writer)
        if family in (BLOCK, HANDLE):
            await like_before(world, family, key, good)
            await world.bus.put(family, key, good)  # what only the record itself knew
        else:
            await settled(world, family, key, good)
        await world.converged(f"malformed {family.name}, its writer restarted")


async def like_before(world: World, family: Family[Any], key: Key, good: Any) -> None:
    """Told from the other records: the same addresses of the same pods on the same node."""

    async def told() -> bool:
        now = (await world.snapshot(family))[family].get(key)
        assert now is not None
        if isinstance(good, Block):
            return (now.node, now.allocations) == (good.node, good.allocations)
        return (now.node, now.addresses, now.sequences) == (good.node, good.addresses, good.sequences)

    await within(told, f"{family.name} {key} is mended")


BROKEN_TOKENS = ("=zz", "=6", "a=2fb", "=C3=28")
"""What `escape` cannot have made."""


@pytest.mark.parametrize("family", DERIVED, ids=lambda family: family.name)
async def test_a_malformed_message_under_a_key_of_nobody(world: World, family: Family[Any]) -> None:
    """Its writer removes it where the key can be read. A subject that is no key is only named, until it is gone."""
    node = ("node1",) if "node" in family.key else ()
    key = (*node, *(f"nobody{i}" for i in range(len(family.key) - len(node))))
    subject = family.subject(*key)
    broken = [f"{subject.rpartition('.')[0]}.{token}" for token in BROKEN_TOKENS]
    _, reader = DERIVED[family]
    if family is ATTACHMENT:
        assert reader == "agent-node1"
    elif family in (GROUP, RULES):
        reader = "policy-compiler"  # agents read only what concerns them
    async with world.watched():
        for text in broken:
            await world.publish(text, GOOD)
            await named(world, reader, text)
        await world.publish(subject, MALFORMED["garbage"])
        await settled(world, family, key, None)
        for text in broken:
            await world.publish(text, b"")

        async def silent() -> bool:
            note = await world.note(reader)
            assert note == "", note
            return True

        await within(silent, f"{reader} has nothing to say any more")


async def test_malformed_resources(world: World) -> None:
    """Of every kind, on an existing object and under a broken name. The last good value stands until one comes."""
    kept = await world.snapshot(*map(DESIRED.__getitem__, KINDS.values()))
    subjects = []
    async with world.watched():
        for kind in KINDS.values():
            family = DESIRED[kind]
            key = next(iter(sorted(kept[family])), ("shop" if kind.NAMESPACED else "", "malformed"))
            subjects.append(family.subject(*key))
            await world.publish(subjects[-1], MALFORMED["truncated"])
            await world.publish(f"{PREFIX}desired.{kind.TOKEN}._.=zz", GOOD)
            await within_note_count(world, "api", 2 * len(subjects))
        for kind in KINDS.values():
            family = DESIRED[kind]
            for key, value in kept[family].items():
                await world.bus.put(family, key, value)
            await world.publish(f"{PREFIX}desired.{kind.TOKEN}._.=zz", b"")
        for subject in subjects:
            if subject.endswith(".malformed"):
                await world.publish(subject, b"")
        await within_note_count(world, "api", 0)
        await world.converged("malformed resources")


async def within_note_count(world: World, process: str, count: int) -> None:
    async def says() -> bool:
        note = await world.note(process)
        assert (note.partition(" ")[0] or "0") == str(count), f"{note}, not {count}"
        return True

    await within(says, f"{process} names {count} messages")


async def test_malformed_status_and_lease(world: World) -> None:
    """A heartbeat takes the place of the one; whoever is alive takes the other."""
    statuses = (await world.snapshot(STATUS))[STATUS]
    async with world.watched():
        key = next(key for key in statuses if key[0] == "ipam")
        async with world.paused("ipam"):
            await world.publish(STATUS.subject(*key), MALFORMED["garbage"])
            await named(world, "api", STATUS.subject(*key))
        for service in ("policy_compiler", "route_distribution"):
            for payload in MALFORMED.values():
                await world.publish(LEASE.subject(service), payload)
        await world.converged("malformed leases")

        async def silent() -> bool:
            note = await world.note("api")
            assert note == "", note
            return True

        await within(silent, "the heartbeat came")


async def test_a_malformed_event_and_a_malformed_request(world: World) -> None:
    """Nobody's correctness depends on an event; a request that cannot be read is answered with an error."""
    async with world.watched():
        for payload in MALFORMED.values():
            await world.publish(f"{PREFIX}event.node.repaired.node1", payload)
            session = await world.bus.session()
            for rpc in (ASSIGN, RELEASE):
                answer = await session.request(rpc.subject, payload, timeout_s=5.0)
                assert answer.headers["Nats-Service-Error-Code"] == "400", answer.headers
        await world.converged("malformed events and requests")


# --- well-formed, and wrong


async def foreign_writes(world: World) -> dict[str, tuple[Family[Any], Key, Any]]:
    """By what is wrong: family, key and value (None: deleted)."""
    web = ("node1", *WEB)
    attachment: Attachment = await world.value(ATTACHMENT, *web)
    route_key = await key_of(world, ROUTE)
    route: Route = await world.value(ROUTE, *route_key)
    rules, group = await key_of(world, RULES), await key_of(world, GROUP)
    open_ = Attachment(
        node=NodeName("node1"),
        namespace=WEB.namespace,
        name=WEB.name,
        container=attachment.container,
        ingress=Direction(default="allow"),
        egress=Direction(default="allow"),
    )
    return {
        "an attachment that opens": (ATTACHMENT, web, open_),
        "no attachment": (ATTACHMENT, web, None),
        "rules that open": (RULES, rules, Rules(policy="nobody", ingress=(Rule(action="allow"),))),
        "no rules": (RULES, rules, None),
        "an empty group": (GROUP, group, Group()),
        "no group": (GROUP, group, None),
        "a route to another node": (ROUTE, route_key, msgspec.structs.replace(route, node=NodeName("node2"))),
        "no route": (ROUTE, route_key, None),
        "a strange route": (ROUTE, ("10.99.0.0/16",), msgspec.structs.replace(route, cidr="10.99.0.0/16")),
        "an attachment of nobody": (ATTACHMENT, ("node1", "shop", "nobody"), open_),
    }


async def test_foreign_writes_are_repaired(world: World) -> None:
    """Their writer sees them and writes what is right. What was wrong for a moment is over."""
    for wrong, (family, key, value) in (await foreign_writes(world)).items():
        good = await world.value(family, *key)
        async with world.measured() as streams:
            if value is None:
                await world.bus.delete(family, key)
            else:
                await world.bus.put(family, key, value)
            await settled(world, family, key, good)
        world.figures.append(f"{wrong}: answered to denied pods for {streams.open_s * 1000:.0f} ms, {streams.lost}")
        assert streams.open_s < 1.0
    async with world.watched():
        await world.converged("foreign writes")
