"""Builders for the world of the nftables table: one node's pods, and what the compiler says of them."""

from __future__ import annotations

from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_pton

from bus_schemas.ids import GroupId, NodeName, PodKey, RulesId
from bus_schemas.policy import Attachment, Direction, Group, Match, PortRange, Rule, Rules, TierRules
from bus_schemas.subjects import ATTACHMENT, GROUP, RULES, Fact
from services.node_dataplane.nft.table import Flush, PolicyTable
from tests.support.nft_evaluator import Nftables

NODE = NodeName("node1")
TCP, UDP, SCTP, ICMP, ICMPV6, IPIP = 6, 17, 132, 1, 58, 4


def pod(name: str) -> PodKey:
    return PodKey("default", name)


def link(name: str) -> str:
    return f"tor{name}"


def plug(
    table: PolicyTable,
    name: str,
    *addresses: str,
    container: str = "c1",
    floating: tuple[tuple[str, str], ...] = (),
    sources: tuple[str, ...] = (),
) -> None:
    table.set_endpoint(pod(name), link(name), addresses, container, floating=floating, sources=sources)


def group(id_: str, *members: str, segment: int = 0, segments: int = 1) -> Fact:
    """Members are addresses, or `address protocol port` for a ports group."""
    packed = sorted({_pack(member) for member in members})
    ports = id_.startswith("p:")
    message = Group(
        of="ports" if ports else "addresses",
        v4=b"".join(m for m in packed if len(m) < 12),
        v6=b"".join(m for m in packed if len(m) > 12),
        segments=segments,
        selector=f"all() /* {id_} */" if segment == 0 else "",
    )
    return Fact(GROUP, (id_, str(segment)), message)


def _pack(member: str) -> bytes:
    address, *port = member.split()
    packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    return packed + bytes((int(port[0]), 0)) + int(port[1]).to_bytes(2, "big") if port else packed


def no_group(id_: str, segment: int = 0) -> Fact:
    return Fact(GROUP, (id_, str(segment)), None)


def rules(id_: str, ingress: Iterable[Rule] = (), egress: Iterable[Rule] = ()) -> Fact:
    return Fact(
        RULES, (id_,), Rules(policy=f"NetworkPolicy/default/{id_}", ingress=tuple(ingress), egress=tuple(egress))
    )


def no_rules(id_: str) -> Fact:
    return Fact(RULES, (id_,), None)


def tier(*ids: str, name: str = "default", default: str = "deny") -> TierRules:
    return TierRules(tier=name, rules=tuple(map(RulesId, ids)), default=default)  # type: ignore[arg-type]


def direction(*tiers: TierRules, default: str = "allow") -> Direction:
    return Direction(tiers=tiers, default=default)  # type: ignore[arg-type]


OPEN = direction()


def attach(name: str, ingress: Direction = OPEN, egress: Direction = OPEN, container: str = "c1") -> Fact:
    key = pod(name)
    value = Attachment(
        node=NODE, namespace=key.namespace, name=key.name, container=container, ingress=ingress, egress=egress
    )
    return Fact(ATTACHMENT, (NODE, *key), value)


def detach(name: str) -> Fact:
    return Fact(ATTACHMENT, (NODE, *pod(name)), None)


def ports(*numbers: int | tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(
        PortRange(first=n, last=n) if isinstance(n, int) else PortRange(first=n[0], last=n[1]) for n in numbers
    )


def groups(*ids: str) -> tuple[GroupId, ...]:
    return tuple(map(GroupId, ids))


def allow(*, source: Match = Match(), destination: Match = Match(), protocol: int | None = None) -> Rule:  # noqa: B008
    return Rule(action="allow", source=source, destination=destination, protocol=protocol)


def tell(table: PolicyTable, *facts: Fact) -> None:
    for fact in facts:
        table.apply(fact)


def settle(table: PolicyTable, kernel: Nftables) -> Flush:
    """Flush and commit to the model of the kernel."""
    flush = table.flush()
    if flush.transaction is not None:
        kernel.run(str(flush.transaction))
        table.committed(flush.transaction)
    return flush
