"""Network sets: who finds them, what they are as members, and what a change of one costs."""

from __future__ import annotations

from bus_schemas.policy import Group
from bus_schemas.resources import GlobalNetworkPolicy, GlobalNetworkSet, NetworkPolicy, NetworkSet
from bus_schemas.subjects import Fact
from services.policy_compiler.groups import segments_for
from services.policy_compiler.selection import identity
from tests.support.policy_changes import Compiler, absent, plugged, stored
from tests.support.policy_worlds import namespace

PARTNERS = 'kind == "partner"'


def policy(name: str, source: dict[str, str], where: str = "") -> Fact:
    spec = {"ingress": [{"action": "Allow", "source": source}]}
    return stored(NetworkPolicy, f"{where}/{name}", spec) if where else stored(GlobalNetworkPolicy, name, spec)


def everywhere(name: str, *nets: str, **labels: str) -> Fact:
    return stored(GlobalNetworkSet, name, {"nets": list(nets)}, labels=labels)


def within(where: str, *nets: str, **labels: str) -> Fact:
    return stored(NetworkSet, where, {"nets": list(nets)}, labels=labels)


def run(*facts: Fact) -> Compiler:
    return Compiler(namespace("red", team="x"), *plugged("red/web", "10.0.0.1", kind="partner"), *facts)


def test_pods_and_sets_are_members_of_one_group() -> None:
    compiler = run(
        policy("p", {"selector": PARTNERS}),
        everywhere(
            "s", "192.0.2.0/24", "192.0.2.9/32", "192.0.2.7", "2001:db8::/32", "2001:db8::1/128", kind="partner"
        ),
        everywhere("other", "198.51.100.0/24", kind="x"),
    )
    assert compiler.members(PARTNERS) == {
        "10.0.0.1",
        "192.0.2.0/24",
        "192.0.2.9",
        "192.0.2.7",
        "2001:db8::/32",
        "2001:db8::1",
    }


def test_host_bits_are_cleared_and_repetition_is_nothing() -> None:
    compiler = run(policy("p", {"selector": PARTNERS}), everywhere("s", "192.0.2.1/24", "192.0.2.0/24", kind="partner"))
    assert compiler.members(PARTNERS) == {"10.0.0.1", "192.0.2.0/24"}
    assert compiler.change(everywhere("s", "192.0.2.0/24", kind="partner")) == set()


def test_two_sets_with_one_network() -> None:
    compiler = run(
        policy("p", {"selector": PARTNERS}),
        everywhere("a", "192.0.2.0/24", kind="partner"),
        everywhere("b", "192.0.2.0/24", kind="partner"),
    )
    assert compiler.change(absent(GlobalNetworkSet, "a")) == set()
    assert compiler.change(absent(GlobalNetworkSet, "b")) == {f"group {PARTNERS}"}
    assert compiler.members(PARTNERS) == {"10.0.0.1"}


def test_a_set_in_a_namespace_is_found_there() -> None:
    red = f'(projectcalico.org/namespace == "red" && {PARTNERS})'
    of_x = f'({PARTNERS} && pcns.team == "x")'
    nowhere = f"({PARTNERS} && !has(projectcalico.org/namespace))"
    compiler = run(
        policy("p", {"selector": PARTNERS}, "red"),
        policy("q", {"selector": PARTNERS, "namespaceSelector": "team == 'x'"}),
        policy("r", {"selector": PARTNERS, "namespaceSelector": "global()"}),
        within("red/s", "192.0.2.0/24", kind="partner"),
        within("blue/s", "198.51.100.0/24", kind="partner"),
        everywhere("s", "203.0.113.0/24", kind="partner"),
    )
    assert compiler.members(red) == compiler.members(of_x) == {"10.0.0.1", "192.0.2.0/24"}
    assert compiler.members(nowhere) == {"203.0.113.0/24"}
    assert compiler.change(namespace("blue", team="x")) == {f"group {of_x}"}
    assert compiler.members(of_x) == {"10.0.0.1", "192.0.2.0/24", "198.51.100.0/24"}


def test_a_set_claims_no_namespace() -> None:
    labels = {"projectcalico.org/namespace": "red", "pcns.team": "x", "projectcalico.org/orchestrator": "k8s"}
    compiler = run(
        policy("p", {"selector": "all()"}, "red"),
        policy("q", {"namespaceSelector": "team == 'x'"}),
        policy("r", {"selector": "projectcalico.org/orchestrator == 'k8s'"}),
        stored(GlobalNetworkSet, "s", {"nets": ["192.0.2.0/24"]}, labels=labels),
    )
    for selector in (
        'projectcalico.org/namespace == "red"',
        'pcns.team == "x"',
        'projectcalico.org/orchestrator == "k8s"',
    ):
        assert compiler.members(selector) == {"10.0.0.1"}


def test_a_set_is_no_endpoint() -> None:
    compiler = run(everywhere("s", "192.0.2.0/24", kind="partner"))
    changed = compiler.change(stored(GlobalNetworkPolicy, "p", {"selector": PARTNERS, "ingress": []}))
    assert changed == {"rules globalnetworkpolicy/p", "pod red/web"}
    assert compiler.change(everywhere("s", "192.0.2.0/25", kind="partner")) == set(), "no rule asks for its members"


def test_a_change_of_a_set_costs_the_groups_that_have_it() -> None:
    compiler = run(
        policy("p", {"selector": PARTNERS}),
        policy("q", {"selector": "kind == 'x'"}),
        everywhere("s", "192.0.2.0/24", kind="partner"),
    )
    assert compiler.change(everywhere("s", "192.0.2.0/25", kind="partner")) == {f"group {PARTNERS}"}
    assert compiler.change(everywhere("s", "192.0.2.0/25", kind="partner", more="label")) == set()
    assert compiler.change(everywhere("s", "192.0.2.0/25", kind="x")) == {f"group {PARTNERS}", 'group kind == "x"'}
    assert compiler.change(absent(GlobalNetworkSet, "s"), everywhere("s", "192.0.2.0/25", kind="x")) == set()


def test_networks_count_as_members_of_segments() -> None:
    nets = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(1000)]
    compiler = run(policy("p", {"selector": PARTNERS}), everywhere("s", *nets, kind="partner"))
    segments: list[Group] = [group for (uid, _), group in compiler.groups.items() if uid == identity(PARTNERS)]
    assert len(segments) == segments_for(1001) == 4
    assert all(segment.nets4 for segment in segments)
    assert compiler.members(PARTNERS) == {"10.0.0.1", *nets}
    changed = compiler.change(everywhere("s", *nets[1:], kind="partner"))
    assert len(changed) == 1, "one segment of four"


def test_what_is_no_network_is_a_fault() -> None:
    compiler = run(
        policy("p", {"selector": PARTNERS}), everywhere("s", "192.0.2.0/24", "10.0.0.0/40", "x", kind="partner")
    )
    assert compiler.members(PARTNERS) == {"10.0.0.1", "192.0.2.0/24"}
    assert compiler.statuses["globalnetworkset/s"].faults == (
        "spec.nets[1]: '10.0.0.0/40' is not a CIDR",
        "spec.nets[2]: 'x' is not a CIDR",
    )
    assert compiler.change(everywhere("s", "192.0.2.0/24", kind="partner")) == {"-status globalnetworkset/s"}
