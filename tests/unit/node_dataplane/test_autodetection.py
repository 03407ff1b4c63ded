"""The methods of finding the node's address: what each takes, passes over, and says of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from services.node_dataplane.autodetection import AUTO, Asked, Candidate, Reach, asked, detect, method
from services.node_dataplane.uplink import Interface

LO = Interface("lo", 65536, (ip_interface("127.0.0.1/8"), ip_interface("::1/128")))
MANAGEMENT = Interface("mgmt", 1500, (ip_interface("192.168.1.5/24"),), frozenset({4}))
DOCKER = Interface("docker0", 1500, (ip_interface("172.17.0.1/16"),))
FABRIC = Interface("eth1", 9000, (ip_interface("10.0.0.15/24"), ip_interface("fd00::15/64")))
DOWN = Interface("eth2", 1500, (ip_interface("10.2.0.15/24"),), up=False)
TUNNEL = Interface("vxlan.tortie", 1450, (ip_interface("10.244.0.1/32"),), own=True)
ALL = [LO, DOCKER, FABRIC, MANAGEMENT, DOWN, TUNNEL]


def by(text: str, family: int = 4, **fields: object) -> Asked:
    return replace(Asked(family, "the test", method(text)), **fields)  # type: ignore[arg-type]


def chosen(want: Asked, reach: Reach = Reach()) -> list[str]:  # noqa: B008
    return [f"{u.device} {u.network}" for u in detect(ALL, want, reach).possible]


def reasons(want: Asked, reach: Reach = Reach()) -> dict[str, str]:  # noqa: B008
    return {c.device: c.reason for c in detect(ALL, want, reach).candidates}


@pytest.mark.parametrize(
    ("want", "found"),
    [
        (by("first-found"), ["mgmt 192.168.1.5/24", "eth1 10.0.0.15/24"]),
        (by("auto"), ["mgmt 192.168.1.5/24", "eth1 10.0.0.15/24"]),
        (by("auto", 6), ["eth1 fd00::15/64"]),
        (by("auto", internal="10.0.0.15"), ["eth1 10.0.0.15/24"]),
        (by("kubernetes-internal-ip", internal="10.0.0.15"), ["eth1 10.0.0.15/24"]),
        (by("kubernetes-internal-ip"), []),
        (by("interface=eth.*"), ["eth1 10.0.0.15/24"]),
        (by("interface=docker0, eth1"), ["docker0 172.17.0.1/16", "eth1 10.0.0.15/24"]),
        (by("interface=bond0"), []),
        (by("skip-interface=mgmt"), ["eth1 10.0.0.15/24"]),
        (by("skip-interface=mgmt,eth1"), []),
        (by("cidr=10.0.0.0/8"), ["eth1 10.0.0.15/24"]),
        (by("cidr=172.16.0.0/12,192.168.0.0/16"), ["mgmt 192.168.1.5/24", "docker0 172.17.0.1/16"]),
        (by("cidr=10.0.0.0/8", 6), []),
        (by("first-found", device="eth1"), ["eth1 10.0.0.15/24"]),
        (by("first-found", address="10.0.0.15/25"), ["eth1 10.0.0.15/25"]),
        (by("first-found", address="10.0.0.15"), ["eth1 10.0.0.15/24"]),
        (by("first-found", address="10.9.9.9/24"), []),
    ],
    ids=lambda value: value.words if isinstance(value, Asked) else "",
)
def test_what_each_method_finds_in_order(want: Asked, found: list[str]) -> None:
    assert chosen(want) == found


def test_can_reach_takes_what_the_kernel_would_send_from() -> None:
    want = by("can-reach=8.8.8.8")
    assert chosen(want, Reach("10.0.0.15")) == ["eth1 10.0.0.15/24"]
    assert reasons(want, Reach("10.0.0.15"))["mgmt"] == "8.8.8.8: packets there leave from 10.0.0.15"
    assert chosen(want, Reach(trouble="there is no way there")) == []
    assert detect(ALL, want, Reach(trouble="there is no way there")).trouble == (
        "no IPv4 address by can-reach=8.8.8.8: there is no way there"
    )


def test_why_the_others_were_not_taken() -> None:
    assert reasons(by("first-found")) == {
        "lo": "is of a kind that is passed over (lo)",
        "mgmt": "fits first-found; the default route leaves by it",
        "docker0": "is of a kind that is passed over (docker.*)",
        "eth1": "fits first-found",
        "eth2": "is down",
        "vxlan.tortie": "is a tunnel of ours",
    }
    assert reasons(by("interface=eth.*"))["mgmt"] == "does not match interface=eth.*"
    assert reasons(by("skip-interface=mg.*,eth7"))["mgmt"] == "matches skip-interface=mg.*"
    assert reasons(by("cidr=10.0.0.0/8"))["mgmt"] == "is not in cidr=10.0.0.0/8"
    assert reasons(by("first-found", device="eth1"))["mgmt"] == "is not TORTIE_UPLINK, eth1"
    assert reasons(by("first-found", 6))["mgmt"] == "has no IPv6 address"


def test_the_device_of_the_default_route_counts_whatever_it_is_called() -> None:
    bridge = Interface("br-ex", 1500, (ip_interface("10.5.0.1/24"),), frozenset({4}))
    assert [u.device for u in detect([bridge], by("auto")).possible] == ["br-ex"]
    assert detect([bridge], by("first-found")).possible == []


def test_a_temporary_address_is_told_to_nobody_unless_asked_for() -> None:
    temporary, lasting = ip_interface("2001:db8::abcd/64"), ip_interface("2001:db8::1/64")
    eth0 = Interface("eth0", 1500, (temporary, lasting), unfit=((temporary, "is a temporary one (RFC 8981)"),))
    assert [u.network for u in detect([eth0], by("first-found", 6)).possible] == [lasting]
    assert [u.network for u in detect([eth0], by("first-found", 6, address="2001:db8::abcd")).possible] == [
        ip_interface("2001:db8::abcd/64")
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("first", "'first' is not one of auto, first-found"),
        ("interface=", "is not one of"),
        ("first-found=eth0", "is not one of"),
        ("interface=eth[", "is not a regular expression"),
        ("cidr=10.0.0.0/8,ten", "'ten' is not a CIDR"),
    ],
)
def test_a_method_that_is_none(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("[", r"\[")):
        method(text)


def test_what_the_settings_say() -> None:
    assert asked(4, "TORTIE_IP", "autodetect", "auto", "") == Asked(4, "TORTIE_IP_AUTODETECTION_METHOD", AUTO)
    assert asked(4, "TORTIE_IP", "none", "auto", "").none
    assert asked(4, "TORTIE_IP", "10.0.0.1", "auto", "").exact == "10.0.0.1"
    for value in ("fd00::1", "10.0.0", "yes"):
        with pytest.raises(ValueError, match="is not autodetect, none or an IPv4 address"):
            asked(4, "TORTIE_IP", value, "auto", "")


def test_a_candidate_is_told_of_each_address() -> None:
    two = Interface("eth0", 1500, (ip_interface("10.0.0.1/24"), ip_interface("10.0.1.1/24")))
    found = detect([two], by("cidr=10.0.1.0/24")).candidates
    assert [(str(c.network), c.uplink is not None) for c in found] == [("10.0.0.1/24", False), ("10.0.1.1/24", True)]
    assert all(isinstance(c, Candidate) for c in found)
