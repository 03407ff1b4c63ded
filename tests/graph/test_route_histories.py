"""Any history ends like its last world told to a fresh core, and that is what a slow, obvious computation says."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.ids import NodeName
from bus_schemas.ipam import Block, tunnel_handle
from bus_schemas.resources import IPPool, Node
from bus_schemas.routes import Encapsulation, Route, Tunnel, vtep_mac_of
from bus_schemas.subjects import BLOCK, DESIRED, Fact
from tests.support.expanders import by_key, gone
from tests.support.routes import Outcome, block, node, pool

NAMES = ("n1", "n2", "n3")
CIDRS = ("10.0.0.0/24", "10.0.0.0/26", "10.0.0.64/26", "10.0.0.64/28", "10.0.1.0/26", "10.0.1.0/32", "fd00::/122")


def oracle(world: list[Fact]) -> dict[str, Route]:
    """Every block against every block, everything searched for."""
    nodes = {f.key[1]: f.value for f in world if f.family == DESIRED[Node]}
    pools = [f.value for f in world if f.family == DESIRED[IPPool]]
    blocks: list[Block] = [f.value for f in world if f.family == BLOCK]

    def address(of: Block, ordinal: int) -> str:
        return str(ip_network(of.cidr)[ordinal])

    def users(of: Block) -> set[NodeName | None]:
        return ({of.node} | {a.borrower for a in of.allocations}) & set(nodes)

    def subnet(inner: str, outer: str) -> bool:
        a, b = ip_network(inner), ip_network(outer)
        return a.version == b.version and a.subnet_of(b)  # type: ignore[arg-type]

    def vtep(name: str, family: int) -> str:
        found = [
            address(b, a.ordinal)
            for b in blocks
            for a in b.allocations
            if a.handle == tunnel_handle(NodeName(name)) and ip_network(b.cidr).version == family
        ]
        return min(found, key=lambda text: int(ip_network(text).network_address), default="")

    kept: list[Block] = []
    for candidate in sorted(blocks, key=lambda b: (b.claimed, ip_network(b.cidr).version, ip_network(b.cidr))):
        overlaps = any(subnet(candidate.cidr, k.cidr) or subnet(k.cidr, candidate.cidr) for k in kept)
        if users(candidate) and not overlaps:
            kept.append(candidate)

    routes: dict[str, Route] = {}
    for b in kept:
        around = [p for p in pools if subnet(b.cidr, p.spec.cidr)]
        around.sort(key=lambda p: (p.metadata.name != b.pool, -ip_network(p.spec.cidr).prefixlen, p.metadata.name))
        spec = around[0].spec if around else None
        family = ip_network(b.cidr).version
        tunnel, mode = Tunnel.NONE, Encapsulation.NEVER
        if spec is not None and spec.vxlan_mode != "Never":
            tunnel, mode = Tunnel.VXLAN, Encapsulation(spec.vxlan_mode)
        elif spec is not None and spec.ipip_mode != "Never" and family == 4:
            tunnel, mode = Tunnel.IPIP, Encapsulation(spec.ipip_mode)
        wanted: list[tuple[str, NodeName | None, bool]] = [(b.cidr, b.node, False)]
        wanted += [
            (f"{address(b, a.ordinal)}/{32 if family == 4 else 128}", a.borrower, True)
            for a in b.allocations
            if a.borrower not in (None, b.node)
        ]
        for cidr, name, borrowed in wanted:
            if name is not None and name in nodes:
                routes[cidr] = Route(
                    cidr=cidr,
                    node=name,
                    pool=around[0].metadata.name if around else "",
                    address=nodes[name].address(family),
                    tunnel=tunnel,
                    encapsulation=mode,
                    vtep=vtep(name, family) if tunnel is Tunnel.VXLAN else "",
                    vtep_mac=vtep_mac_of(name) if tunnel is Tunnel.VXLAN else "",
                    borrowed=borrowed,
                )
    return routes


names = st.sampled_from(NAMES)
ordinals = st.dictionaries(names, st.integers(0, 3), max_size=2)


@st.composite
def _blocks(draw: st.DrawFn) -> Fact:
    cidr = draw(st.sampled_from(CIDRS))
    single = cidr.endswith("/32")
    tunnels = draw(ordinals)
    lent = {name: ordinal + 4 for name, ordinal in draw(ordinals).items()}
    return block(
        cidr,
        draw(st.none() | names),
        pool=draw(st.sampled_from(("p", "q", "r"))),
        tunnels={} if single else tunnels,
        lent=dict.fromkeys(list(lent)[:1], 0) if single else lent,
        claimed=draw(st.sampled_from((1.0, 2.0, 3.0))),
    )


addresses = st.sampled_from(("", "10.9.0.1/24", "10.9.1.1/24"))
modes = st.sampled_from(("Never", "CrossSubnet", "Always"))
ipips = st.sampled_from(("Never", "Never", "Always"))
pool_cidrs = st.sampled_from(("10.0.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "fd00::/64"))
facts = st.one_of(
    _blocks(),
    st.builds(node, names, addresses, st.sampled_from(("", "fd09::1/64"))),
    st.builds(pool, st.sampled_from(("p", "q")), pool_cidrs, modes, ipips),
)
steps = st.lists(st.tuples(facts, st.booleans()).map(lambda pair: gone(pair[0]) if pair[1] else pair[0]), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=12))
def test_incremental_equals_obvious(history: list[list[Fact]]) -> None:
    told = Outcome(history)
    last = [f for f in by_key(f for step in history for f in step).values() if f.value is not None]
    assert told.routes == oracle(last)
    fresh = Outcome([last])
    assert (told.routes, told.withheld) == (fresh.routes, fresh.withheld)
