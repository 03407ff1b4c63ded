"""Host endpoints: whom policies find, what each direction is made of, and the last word of profiles."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.policy import Direction, Match, Rule
from bus_schemas.resources import GlobalNetworkPolicy, HostEndpoint, NetworkPolicy, Profile, StagedGlobalNetworkPolicy
from bus_schemas.subjects import Fact
from services.policy_compiler.selection import identity
from tests.support.policy_changes import Compiler, absent, plugged, preview, stored, tiers
from tests.support.policy_worlds import account, namespace

ALLOW = [{"action": "Allow"}]


def hep(name: str = "h", node: str = "n1", /, labels: dict[str, str] | None = None, **spec: Any) -> Fact:
    return stored(
        HostEndpoint,
        name,
        {"node": node, "interfaceName": "eth0", "expectedIPs": ["192.0.2.1", "2001:db8::1"], **spec},
        labels={"role": "edge"} if labels is None else labels,
    )


def policy(name: str = "p", **spec: Any) -> Fact:
    return stored(GlobalNetworkPolicy, name, {"selector": "role == 'edge'", "ingress": ALLOW, **spec})


def run(*facts: Fact) -> Compiler:
    return Compiler(namespace("red"), *plugged("red/web", "10.0.0.1", role="edge"), *facts)


def directions(compiler: Compiler, host: str = "n1/h") -> dict[str, list[str]]:
    """The policies of each direction of a host endpoint that has some."""
    found = compiler.hosts[host]
    return {
        hook: [rule.rpartition("/")[2] for _, rules, _ in tiers(direction) for rule in rules]
        for hook in found.__struct_fields__
        if isinstance(direction := getattr(found, hook), Direction) and direction.tiers
    }


def test_without_anything_it_denies_but_what_it_forwards() -> None:
    compiler = run(hep())
    host = compiler.hosts["n1/h"]
    assert (host.node, host.name, host.interface) == ("n1", "h", "eth0")
    assert host.addresses == ("192.0.2.1", "2001:db8::1")
    assert host.ingress == host.egress == Direction(default="deny")
    assert host.forward_ingress == host.forward_egress == Direction(default="allow")
    assert host.pre_dnat_ingress == host.untracked_ingress == host.untracked_egress == Direction(default="allow")


def test_a_policy_governs_pods_and_hosts() -> None:
    compiler = run(hep(), policy(types=["Ingress", "Egress"]))
    assert directions(compiler) == {"ingress": ["p"], "egress": ["p"]}
    assert tiers(compiler.pods["red/web"].ingress) == [("default", ["globalnetworkpolicy/p"], "deny")]


@pytest.mark.parametrize(
    ("spec", "of_the_host", "of_the_pod"),
    [
        ({"applyOnForward": True}, {"ingress", "egress", "forward_ingress", "forward_egress"}, True),
        ({"applyOnForward": True, "types": ["Egress"]}, {"egress", "forward_egress"}, False),
        ({"applyOnForward": True, "doNotTrack": True}, {"untracked_ingress", "untracked_egress"}, False),
        ({"applyOnForward": True, "preDNAT": True}, {"pre_dnat_ingress"}, False),
        ({"applyOnForward": True, "preDNAT": True, "types": ["Egress"]}, set(), False),
        ({"doNotTrack": True, "types": ["Ingress"]}, {"untracked_ingress"}, False),
    ],
)
def test_where_a_policy_stands(spec: dict[str, Any], of_the_host: set[str], of_the_pod: bool) -> None:
    compiler = run(hep(), policy(**{"types": ["Ingress", "Egress"], **spec}))
    assert directions(compiler).keys() == of_the_host
    assert bool(compiler.pods["red/web"].ingress.tiers) == of_the_pod


def test_what_no_rule_decides() -> None:
    """Before and beside the normal directions no tier denies at its end; what is forwarded is denied as tiers say."""
    compiler = run(
        hep(),
        policy("f", applyOnForward=True),
        policy("d", preDNAT=True, applyOnForward=True),
        policy("u", doNotTrack=True, applyOnForward=True),
    )
    host = compiler.hosts["n1/h"]
    assert tiers(host.ingress) == tiers(host.forward_ingress) == [("default", ["globalnetworkpolicy/f"], "deny")]
    assert host.forward_ingress.default == "allow"
    assert host.forward_egress == Direction(default="allow")
    assert tiers(host.pre_dnat_ingress) == [("default", ["globalnetworkpolicy/d"], "pass")]
    assert tiers(host.untracked_ingress) == [("default", ["globalnetworkpolicy/u"], "pass")]


def test_a_namespaced_policy_governs_no_host() -> None:
    labels = {"role": "edge", "projectcalico.org/namespace": "red", "projectcalico.org/orchestrator": "k8s"}
    compiler = run(hep(labels=labels), stored(NetworkPolicy, "red/p", {"selector": "role == 'edge'"}))
    assert directions(compiler) == {}


@pytest.mark.parametrize(
    ("selector", "governs"), [("", {"h", "web"}), ("global()", {"h"}), ("all()", {"web"}), ("has(x)", set[str]())]
)
def test_namespace_selectors(selector: str, governs: set[str]) -> None:
    compiler = run(hep(), policy(namespaceSelector=selector))
    found = {"h"} if directions(compiler) else set()
    assert found | ({"web"} if compiler.pods["red/web"].ingress.tiers else set()) == governs


def test_hosts_are_members_by_their_addresses_and_ports() -> None:
    rule = {"action": "Allow", "source": {"selector": "role == 'edge'"}, "destination": {"ports": ["ssh"]}}
    compiler = run(hep(ports=[{"name": "ssh", "protocol": "TCP", "port": 22}]), policy(ingress=[rule]))
    assert compiler.members('role == "edge"') == {"10.0.0.1", "192.0.2.1", "2001:db8::1"}
    assert compiler.members('role == "edge" :ssh') == {"192.0.2.1 6:22", "2001:db8::1 6:22"}
    assert compiler.change(hep(ports=[{"name": "ssh", "protocol": 6, "port": 2222}])) == {'group role == "edge" :ssh'}
    assert compiler.change(hep(expectedIPs=["192.0.2.1"])) == {
        'group role == "edge"',
        'group role == "edge" :ssh',
        "host n1/h",
    }


def test_a_host_that_changes_costs_its_attachment() -> None:
    compiler = run(hep(), hep("other", "n2"), policy())
    assert compiler.change(hep()) == set()
    assert compiler.change(hep(interfaceName="*")) == {"host n1/h"}
    assert compiler.change(hep(labels={"role": "other"}, interfaceName="*")) == {"host n1/h"}
    assert directions(compiler) == {}
    assert compiler.change(hep(labels={"role": "other", "more": "x"}, interfaceName="*")) == set()
    assert compiler.change(absent(HostEndpoint, "h")) == {"-host n1/h"}
    assert compiler.change(hep()) == {"host n1/h"}


def test_a_host_that_moves_to_another_node() -> None:
    compiler = run(hep())
    assert compiler.change(hep("h", "n2")) == {"-host n1/h", "host n2/h"}


def test_what_a_host_endpoint_can_hold_that_means_nothing() -> None:
    compiler = run(hep("a", expectedIPs=["192.0.2.1", "x"], ports=[{"name": "p", "protocol": "ICMP", "port": 1}]))
    assert compiler.hosts["n1/a"].addresses == ("192.0.2.1",)
    assert len(compiler.statuses["hostendpoint/a"].faults) == 2
    assert compiler.change(hep("b", "")) == {"status hostendpoint/b"}, "of no node: no attachment"


# --- profiles


def profile(name: str, **spec: Any) -> Fact:
    return stored(Profile, name, spec)


def last_word(compiler: Compiler) -> tuple[list[str], str]:
    ingress = compiler.hosts["n1/h"].ingress
    assert ingress.profiles == compiler.hosts["n1/h"].egress.profiles
    return list(ingress.profiles), ingress.default


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ([], ([], "deny")),
        (["projectcalico-default-allow"], ([], "allow")),
        (["a"], (["profile/a"], "deny")),
        (["a", "b", "projectcalico-default-allow", "a"], (["profile/a", "profile/b"], "allow")),
        (["a", "unknown", "projectcalico-default-allow"], (["profile/a"], "deny")),
        (["kns.red"], ([], "allow")),
        (["kns.unknown"], ([], "deny")),
        (["ksa.red.robot", "a"], (["profile/a"], "deny")),
        (["ksa.red.unknown", "a"], ([], "deny")),
    ],
)
def test_the_last_word(profiles: list[str], expected: tuple[list[str], str]) -> None:
    compiler = run(hep(profiles=profiles), profile("a", ingress=ALLOW), profile("b"), account("red", "robot"))
    assert last_word(compiler) == expected


def test_what_is_forwarded_is_not_asked_of_profiles() -> None:
    host = run(hep(profiles=["a"]), profile("a")).hosts["n1/h"]
    assert host.forward_ingress.profiles == host.pre_dnat_ingress.profiles == host.untracked_egress.profiles == ()


def test_a_profile_comes_changes_and_goes() -> None:
    compiler = run(hep(profiles=["a"]), hep("other", "n2"))
    assert last_word(compiler) == ([], "deny")
    assert compiler.change(profile("a", ingress=ALLOW)) == {"rules profile/a", "host n1/h"}
    assert compiler.change(profile("a", egress=ALLOW)) == {"rules profile/a"}
    assert compiler.rules["profile/a"].egress == (Rule(action="allow"),)
    assert compiler.change(absent(Profile, "a")) == {"-rules profile/a", "host n1/h"}


def test_rules_of_profiles_name_groups() -> None:
    rule = {"action": "Allow", "protocol": "TCP", "source": {"selector": "a == 'b'"}, "destination": {"ports": ["x"]}}
    compiler = run(profile("a", ingress=[rule]))
    assert compiler.ingress("profile/a") == (
        Rule(
            action="allow",
            protocol=6,
            source=Match(groups=(identity('a == "b"'),)),
            destination=Match(named_ports=(identity("all() :x"),)),
        ),
    )


def test_labels_of_profiles() -> None:
    compiler = run(
        hep(labels={"own": "1"}, profiles=["a", "b", "kns.red"]),
        profile("a", labelsToApply={"own": "2", "role": "edge", "both": "a"}),
        profile("b", labelsToApply={"both": "b", "projectcalico.org/namespace": "red"}),
        policy(selector="role == 'edge' && own == '1' && both == 'a' && !has(projectcalico.org/namespace)"),
        policy("q", selector="pcns.projectcalico.org/name == 'red' && !has(projectcalico.org/namespace)"),
    )
    assert directions(compiler) == {"ingress": ["p", "q"]}
    assert compiler.change(profile("a", labelsToApply={"role": "edge"})) == {"host n1/h"}
    assert directions(compiler) == {"ingress": ["q"]}


@pytest.mark.parametrize("name", ["kns.red", "ksa.red.x"])
def test_what_is_made_of_other_things_is_no_resource(name: str) -> None:
    compiler = run(hep(profiles=[name]))
    before = last_word(compiler)
    assert compiler.change(profile(name)) == {f"status profile/{name}"}
    assert compiler.change(absent(Profile, name)) == {f"-status profile/{name}"}
    assert last_word(compiler) == before


def test_the_profile_that_always_exists_may_be_there_as_a_resource_too() -> None:
    """The api shows it to its users."""
    compiler = run(hep(profiles=["projectcalico-default-allow"]))
    before = last_word(compiler)
    assert compiler.change(profile("projectcalico-default-allow", ingress=ALLOW, egress=ALLOW)) == set()
    assert compiler.change(absent(Profile, "projectcalico-default-allow")) == set()
    assert last_word(compiler) == before


def test_previews_of_hosts() -> None:
    compiler = run(hep(), policy(applyOnForward=True))
    staged = stored(StagedGlobalNetworkPolicy, "p", {"selector": "role == 'edge'", "ingress": []})
    assert compiler.change(staged) == {"rules stagedglobalnetworkpolicy/p", "host n1/h", "pod red/web"}
    host = compiler.hosts["n1/h"]
    assert preview(host.ingress) == [("default", ["stagedglobalnetworkpolicy/p"], "deny")]
    assert preview(host.forward_ingress) == [], "staged without applyOnForward"
    assert preview(host.egress) is None
