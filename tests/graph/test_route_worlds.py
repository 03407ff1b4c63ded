"""World states of route distribution, told in every way there is."""

from __future__ import annotations

import msgspec
import pytest

from bus_schemas.routes import Route, WireguardEnd
from bus_schemas.subjects import Fact
from tests.support.expanders import EXPANDERS, Expander, gone, world
from tests.support.routes import Outcome, block, direct, keys, node, pool, through_ipip, tunnelled

N1, N2 = node("node1", "10.0.0.15/24", "fd00::15/64"), node("node2", "10.0.1.16/24", "fd00::16/64")
POOL = pool("pool4", "10.244.0.0/16")
B1 = block("10.244.1.0/26", "node1", tunnels={"node1": 0})
B2 = block("10.244.2.0/26", "node2", tunnels={"node2": 5})

NEVER = world(N1, N2, POOL, B1, B2)
ALWAYS = world(NEVER, pool("pool4", "10.244.0.0/16", "Always"))
CROSS_SUBNET = world(NEVER, pool("pool4", "10.244.0.0/16", "CrossSubnet"))
IPIP = world(NEVER, pool("pool4", "10.244.0.0/16", ipip="Always"))
END = WireguardEnd(key="A" * 43 + "=", port=51820)
KEYS = world(NEVER, keys("node2", END), keys("node9", END))
NODE2_LEFT = world(ALWAYS, gone(N2))
NODE2_MOVED = world(ALWAYS, node("node2", "10.0.7.7/24"))
NODE2_UNADDRESSED = world(NEVER, node("node2"))
WITHDRAWN = world(NEVER, gone(B2))
NO_VTEP_YET = world(ALWAYS, block("10.244.2.0/26", "node2"))
ORPHAN_BLOCK = world(NEVER, block("10.244.2.0/26", None, lent={"node1": 3}))
LENT = world(ALWAYS, block("10.244.2.0/26", "node2", tunnels={"node2": 5}, lent={"node1": 9, "node9": 10}))
BORROWED_VTEP = world(ALWAYS, gone(B1), block("10.244.2.0/26", "node2", tunnels={"node2": 5, "node1": 6}))
LENT_BY_SINGLE = world(NEVER, block("10.244.3.3/32", "node2", lent={"node1": 0}))
POOL_GONE = world(ALWAYS, gone(POOL))
POOL_RENAMED = world(NEVER, gone(POOL), pool("other", "10.244.0.0/15", "Always"), pool("wide", "10.0.0.0/8"))
POOL_ELSEWHERE = world(NEVER, pool("pool4", "10.99.0.0/16", "Always"))
POD_CIDRS = world(
    N1, N2, block("10.8.1.0/26", "node1", pool="podcidr-node1"), block("10.8.2.0/26", None, pool="podcidr-node9")
)
POD_CIDRS_IN_A_POOL = world(POD_CIDRS, pool("around", "10.8.0.0/16", "Always"))
OVERLAP = world(NEVER, block("10.244.2.0/24", "node1", claimed=2.0))
OLDER_OVERLAP = world(NEVER, block("10.244.2.0/24", "node1", claimed=0.5))
OVERLAP_OF_A_STRANGER = world(NEVER, block("10.244.2.0/24", "node9", claimed=0.5))
CHAIN = world(
    NEVER,
    block("10.244.4.0/24", "node1", claimed=2.0),
    block("10.244.4.0/26", "node2", claimed=1.0),
    block("10.244.4.64/26", "node2", claimed=3.0),
)
V6 = world(
    N1,
    N2,
    pool("pool6", "fd10::/64", "Always"),
    block("fd10::/122", "node1", pool="pool6", tunnels={"node1": 1}),
    block("fd10::40/122", "node2", pool="pool6", tunnels={"node2": 0}, lent={"node1": 2}),
)
DUAL = world(ALWAYS, V6)
MALFORMED = world(NEVER, block("10.244.5.1/26", "node1"), block("nonsense", "node1"), pool("bad", "10.300.0.0/16"))

A1, A2 = "10.0.0.15/24", "10.0.1.16/24"
V1, V2 = "10.244.1.0", "10.244.2.5"
DIRECT1, DIRECT2 = direct("10.244.1.0/26", "node1", A1), direct("10.244.2.0/26", "node2", A2)
IPIP1, IPIP2 = through_ipip(DIRECT1, "Always"), through_ipip(DIRECT2, "Always")
TUNNEL1 = tunnelled("10.244.1.0/26", "node1", A1, V1, "Always")
TUNNEL2 = tunnelled("10.244.2.0/26", "node2", A2, V2, "Always")
V6_ROUTES = (
    tunnelled("fd10::/122", "node1", "fd00::15/64", "fd10::1", "Always", "pool6"),
    tunnelled("fd10::40/122", "node2", "fd00::16/64", "fd10::40", "Always", "pool6"),
    tunnelled("fd10::42/128", "node1", "fd00::15/64", "fd10::1", "Always", "pool6", borrowed=True),
)

STATES: dict[str, tuple[list[Fact], tuple[Route, ...], set[tuple[str, str]]]] = {
    "empty": ([], (), set()),
    "never": (NEVER, (DIRECT1, DIRECT2), set()),
    "always": (ALWAYS, (TUNNEL1, TUNNEL2), set()),
    "cross subnet": (
        CROSS_SUBNET,
        (
            tunnelled("10.244.1.0/26", "node1", A1, V1, "CrossSubnet"),
            tunnelled("10.244.2.0/26", "node2", A2, V2, "CrossSubnet"),
        ),
        set(),
    ),
    "ipip": (IPIP, (IPIP1, IPIP2), set()),
    "keys": (KEYS, (DIRECT1, msgspec.structs.replace(DIRECT2, wireguard=END)), set()),
    "node left": (NODE2_LEFT, (TUNNEL1,), set()),
    "node moved": (
        NODE2_MOVED,
        (TUNNEL1, tunnelled("10.244.2.0/26", "node2", "10.0.7.7/24", V2, "Always")),
        set(),
    ),
    "node without address": (NODE2_UNADDRESSED, (DIRECT1, direct("10.244.2.0/26", "node2", "")), set()),
    "withdrawn": (WITHDRAWN, (DIRECT1,), set()),
    "no vtep yet": (NO_VTEP_YET, (TUNNEL1, tunnelled("10.244.2.0/26", "node2", A2, "", "Always")), set()),
    "nobody's block": (ORPHAN_BLOCK, (DIRECT1, direct("10.244.2.3/32", "node1", A1, borrowed=True)), set()),
    "lent": (
        LENT,
        (TUNNEL1, TUNNEL2, tunnelled("10.244.2.9/32", "node1", A1, V1, "Always", borrowed=True)),
        set(),
    ),
    "borrowed vtep": (
        BORROWED_VTEP,
        (TUNNEL2, tunnelled("10.244.2.6/32", "node1", A1, "10.244.2.6", "Always", borrowed=True)),
        set(),
    ),
    "a lent block of one address": (
        LENT_BY_SINGLE,
        (DIRECT1, DIRECT2, direct("10.244.3.3/32", "node1", A1, borrowed=True)),
        set(),
    ),
    "pool gone": (
        POOL_GONE,
        (direct("10.244.1.0/26", "node1", A1, ""), direct("10.244.2.0/26", "node2", A2, "")),
        {("orphaned", "pool4")},
    ),
    "pool renamed": (
        POOL_RENAMED,
        (
            tunnelled("10.244.1.0/26", "node1", A1, V1, "Always", "other"),
            tunnelled("10.244.2.0/26", "node2", A2, V2, "Always", "other"),
        ),
        set(),
    ),
    "pool elsewhere": (
        POOL_ELSEWHERE,
        (direct("10.244.1.0/26", "node1", A1, ""), direct("10.244.2.0/26", "node2", A2, "")),
        {("orphaned", "pool4")},
    ),
    "pod CIDRs": (POD_CIDRS, (direct("10.8.1.0/26", "node1", A1, ""),), set()),
    "pod CIDRs in a pool": (
        POD_CIDRS_IN_A_POOL,
        (tunnelled("10.8.1.0/26", "node1", A1, "", "Always", "around"),),
        set(),
    ),
    "younger overlap": (OVERLAP, (DIRECT1, DIRECT2), {("contested", "10.244.2.0/24")}),
    "older overlap": (
        OLDER_OVERLAP,
        (DIRECT1, direct("10.244.2.0/24", "node1", A1)),
        {("contested", "10.244.2.0/26")},
    ),
    "overlap of an unknown node": (OVERLAP_OF_A_STRANGER, (DIRECT1, DIRECT2), set()),
    "chain of overlaps": (
        CHAIN,
        (DIRECT1, DIRECT2, direct("10.244.4.0/26", "node2", A2), direct("10.244.4.64/26", "node2", A2)),
        {("contested", "10.244.4.0/24")},
    ),
    "v6": (V6, V6_ROUTES, set()),
    "dual": (DUAL, (TUNNEL1, TUNNEL2, *V6_ROUTES), set()),
    "malformed": (
        MALFORMED,
        (DIRECT1, DIRECT2),
        {("malformed", "10.244.5.1/26"), ("malformed", "nonsense"), ("malformed", "bad")},
    ),
}

HISTORIES = {
    "live switches": ("always", "cross subnet", "never"),
    "back again": ("never", "always", "never"),
    "node leaves and returns": ("always", "node left", "always"),
    "node moves": ("always", "node moved"),
    "keys at last": ("never", "keys"),
    "tunnel address arrives": ("no vtep yet", "always"),
    "lending ends": ("lent", "nobody's block", "always"),
    "ipip is given up": ("ipip", "cross subnet"),
    "a key is taken back": ("keys", "never"),
    "ipip is wanted": ("always", "ipip"),
    "overlap ends": ("older overlap", "never"),
    "overlap turns": ("younger overlap", "older overlap"),
    "overlap is joined": ("overlap of an unknown node", "older overlap"),
    "chain resolves": ("chain of overlaps", "never"),
    "pool comes back": ("pool gone", "always"),
    "pool leaves": ("dual", "pool gone"),
    "all goes": ("dual", "lent", "v6", "empty"),
    "repair": ("malformed", "lent"),
}


@pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
@pytest.mark.parametrize("state", STATES)
def test_a_world_gives_its_routes(state: str, tell: Expander) -> None:
    facts, routes, troubles = STATES[state]
    outcome = Outcome(tell([facts]))
    assert outcome.routes == {route.cidr: route for route in routes}
    assert outcome.troubles == troubles


@pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
@pytest.mark.parametrize("history", HISTORIES)
def test_only_the_last_world_counts(history: str, tell: Expander) -> None:
    outcome = Outcome(tell([STATES[state][0] for state in HISTORIES[history]]))
    _, routes, troubles = STATES[HISTORIES[history][-1]]
    assert outcome.routes == {route.cidr: route for route in routes}
    assert outcome.troubles == troubles


def test_a_change_names_what_it_changes_and_nothing_else() -> None:
    outcome = Outcome([ALWAYS])
    assert outcome.tell(node("node2", A2, "fd00::16/64", labels={"rack": "b"})) == set()
    assert outcome.tell(node("node2", "10.0.7.7/24")) == {"10.244.2.0/26"}
    assert outcome.tell(block("10.244.1.0/26", "node1", tunnels={"node1": 0}, lent={"node2": 4})) == {"10.244.1.4/32"}
    assert outcome.tell(pool("unrelated", "10.99.0.0/16", "Always")) == set()
    assert outcome.tell(pool("pool4", "10.244.0.0/16", "CrossSubnet")) == {
        "10.244.1.0/26",
        "10.244.2.0/26",
        "10.244.1.4/32",
    }


def test_all_routes_of_a_node_follow_its_tunnel_address() -> None:
    outcome = Outcome([ALWAYS, [block("10.244.8.0/26", "node2")]])
    assert outcome.tell(block("10.244.2.0/26", "node2", tunnels={"node2": 6})) == {"10.244.2.0/26", "10.244.8.0/26"}
    assert outcome.routes["10.244.8.0/26"].vtep == "10.244.2.6"
