"""Whose is what, on machines that this kernel cannot be: IP in IP, WireGuard, settings of the kernel, odd leftovers."""

from __future__ import annotations

import pytest

from tortie.machine import calico, iptables, ours
from tortie.machine.plan import Plan
from tortie.machine.state import Chains, Link, Machine, NftTable, Route, Rule

FORWARD = "ipv4/ip_forward"


def leave(machine: Machine, *, pods: bool = False) -> Plan:
    return ours.plan(machine, pods=pods, state_dir="/s", cni_socket="/c", bin_dir="/b", conf_dir="/n")


def done(plan: Plan) -> set[str]:
    return {step.object for step in plan.steps}


def stays(plan: Plan) -> dict[str, str]:
    return {kept.object: kept.reason for kept in plan.kept}


def commands(plan: Plan) -> list[str]:
    return [step.shown for step in plan.steps]


def test_tunl0_is_given_back_when_it_is_ours() -> None:
    plan = leave(Machine(links=(Link("tunl0", "ipip", up=True, alias="tortie", addresses=("10.244.0.1/32",)),)))
    assert commands(plan) == [
        "ip address del 10.244.0.1/32 dev tunl0",
        "ip link set tunl0 down mtu 1480 alias ''",
    ]
    assert leave(Machine(links=(Link("tunl0", "ipip", up=True, addresses=("10.9.0.1/32",)),))).steps == ()


def test_a_device_with_our_name_and_of_another_kind_stays() -> None:
    plan = leave(Machine(links=(Link("vxlan.tortie", "bridge"), Link("wg.tortie", "wireguard"), Link("tor0", "veth"))))
    assert done(plan) == {"wg.tortie"}
    assert "bridge" in stays(plan)["vxlan.tortie"]


def test_routes_are_ours_by_protocol_in_the_main_table_alone() -> None:
    plan = leave(
        Machine(
            routes=(
                Route(4, "10.244.1.0/26", "84", "eth0", "10.0.0.2"),
                Route(4, "10.244.2.0/26", "84", "eth0", "10.0.0.2", table="100"),
                Route(4, "10.244.3.0/26", "bird", "eth0", "10.0.0.2"),
                Route(6, "fd00::/64", "84", "lo", kind="blackhole", metric=1024),
            )
        )
    )
    assert commands(plan) == [
        "ip -4 route del 10.244.1.0/26 via 10.0.0.2 dev eth0 proto 84 table main",
        "ip -6 route del blackhole fd00::/64 proto 84 metric 1024 table main",
    ]


@pytest.mark.parametrize(
    ("links", "noted", "outcome"),
    [
        ((), (FORWARD, "0", "1", "1"), "put back"),
        ((Link("eth0", "veth", addresses=("10.0.0.1/24",)),), (FORWARD, "0", "1", "1"), "put back"),
        ((Link("docker0", "bridge"),), (FORWARD, "0", "1", "1"), "docker0 may need it"),
        ((), (FORWARD, "0", "1", "0"), "nothing"),
        ((), (FORWARD, "0", "1", "2"), "somebody set it to 2"),
        ((Link("tor0123456789a", "veth"),), (FORWARD, "0", "1", "1"), "the pods that run here need it"),
        ((Link("docker0", "bridge"),), ("ipv6/conf/eth0/accept_ra", "1", "2", "2"), "put back"),
    ],
)
def test_kernel_settings(links: tuple[Link, ...], noted: tuple[str, str, str, str], outcome: str) -> None:
    plan = leave(Machine(links=links, sysctl=(noted,)))
    name = f"net.{noted[0].replace('/', '.')}"
    if outcome == "put back":
        assert commands(plan) == [f"sysctl -q -w net/{noted[0]}={noted[1]}"]
    elif outcome == "nothing":
        assert (plan.steps, plan.kept) == ((), ())
    else:
        assert outcome in stays(plan)[name]


def test_a_configuration_with_plugins_of_others_stays() -> None:
    machine = Machine(
        networks=(
            ("/n/10-tortie.conflist", ("tortie", "portmap"), "net"),
            ("/n/20-mine.conflist", ("tortie", "istio-cni"), "net"),
            ("/n/30-other.conf", ("bridge",), "other"),
        )
    )
    plan = leave(machine)
    assert done(plan) == {"/n/10-tortie.conflist"}
    assert set(stays(plan)) == {"/n/20-mine.conflist"}


CALICO_WIREGUARD = Machine(
    links=(
        Link("wireguard.cali", "wireguard"),
        Link("tunl0", "ipip", up=True, addresses=("10.99.1.1/32",)),
    ),
    routes=(
        Route(4, "10.99.2.0/26", "80", "wireguard.cali", table="1"),
        Route(4, "10.99.0.0/16", "80", kind="throw", table="1"),
        Route(4, "10.77.0.0/16", "static", "eth0", table="2"),
        Route(4, "10.99.3.0/26", "bird", "tunl0", "10.0.0.3"),
    ),
    rules=(
        Rule(4, 99, "1", ("not", "from", "all", "fwmark", "0x100000/0x100000")),
        Rule(4, 100, "2", ("from", "all")),
    ),
)


def test_calicos_wireguard_goes_with_its_rule_and_its_table() -> None:
    plan = calico.plan(CALICO_WIREGUARD, pods=False)
    shown = commands(plan)
    assert "ip -4 rule del priority 99 not from all fwmark 0x100000/0x100000 table 1" in shown
    assert "ip -4 route del throw 10.99.0.0/16 proto 80 table 1" in shown
    assert "ip link del wireguard.cali" in shown
    assert "ip -4 route del 10.99.3.0/26 via 10.0.0.3 dev tunl0 proto bird table main" in shown
    assert not [line for line in shown if "table 2" in line or "10.77." in line]
    rule, device = (next(i for i, line in enumerate(shown) if word in line) for word in ("rule del", "link del"))
    assert rule < device


def test_tunl0_is_calicos_only_beside_other_things_of_calicos() -> None:
    assert "ip link set tunl0 down mtu 1480" in commands(calico.plan(CALICO_WIREGUARD, pods=False))
    alone = Machine(links=(Link("tunl0", "ipip", up=True, addresses=("10.99.1.1/32",)),))
    plan = calico.plan(alone, pods=False)
    assert plan.steps == ()
    assert "somebody else" in stays(plan)["tunl0"]
    mine = Machine(links=(Link("tunl0", "ipip", up=True, alias="tortie"),), nft_tables=(NftTable("ip", "calico"),))
    assert done(calico.plan(mine, pods=False)) == {"ip calico"}


def test_routes_of_a_routing_daemon_stay_and_so_do_those_of_our_bird() -> None:
    route = Route(4, "10.99.3.0/26", "bird", "eth0", "10.0.0.3")
    kept = stays(calico.plan(Machine(routes=(route,)), pods=False))
    assert "--pool" in kept["10.99.3.0/26"]
    pool = ("10.99.0.0/16",)
    assert done(calico.plan(Machine(routes=(route,)), pods=False, pools=pool)) == {"10.99.3.0/26"}
    assert calico.plan(Machine(routes=(route,), bird=True), pods=False, pools=pool).steps == ()


def test_one_commit_a_table_names_theirs_alone() -> None:
    table = Chains(
        "iptables-nft",
        "filter",
        ("INPUT", "KUBE-FORWARD", "cali-a", "cali-b"),
        (
            '-A INPUT -m comment --comment "cali:0123456789abcdef" -j ACCEPT',
            "-A INPUT -j cali-a",
            "-A INPUT -j KUBE-FORWARD",
            "-A KUBE-FORWARD -j cali-b",
            "-A cali-a -j cali-b",
            '-A INPUT -m comment --comment "about cali-a" -j ACCEPT',
        ),
    )
    [step] = iptables.removal(
        [table], chain=lambda name: name.startswith("cali-"), comment=lambda text: text.startswith("cali:")
    )
    assert step.command == ("iptables-nft-restore", "--noflush")
    assert step.input.splitlines() == [
        "*filter",
        '-D INPUT -m comment --comment "cali:0123456789abcdef" -j ACCEPT',
        "-D INPUT -j cali-a",
        "-D KUBE-FORWARD -j cali-b",
        "-F cali-a",
        "-F cali-b",
        "-X cali-a",
        "-X cali-b",
        "COMMIT",
    ]


def test_both_tables_of_an_agent_that_had_only_policy_go() -> None:
    tables = (NftTable("inet", "tortie"), NftTable("bridge", "tortie"), NftTable("bridge", "somebody"))
    plan = ours.plan(
        Machine(nft_tables=tables, links=(Link("veth1", "veth", up=True),)),
        pods=False,
        state_dir="/var/lib/tortie",
        cni_socket="/run/tortie/cni.sock",
        bin_dir="/opt/cni/bin",
        conf_dir="/etc/cni/net.d",
    )
    assert done(plan) == {"inet tortie", "bridge tortie"}
