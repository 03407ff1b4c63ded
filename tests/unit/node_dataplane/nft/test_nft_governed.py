"""Which device a host endpoint governs."""

from __future__ import annotations

from itertools import permutations

import pytest

from bus_schemas.policy import HostAttachment
from services.node_dataplane.nft.governed import govern
from tests.support.host_worlds import host

DEVICES = {
    "lo": frozenset({"127.0.0.1", "::1"}),
    "eth0": frozenset({"10.0.0.1", "fd00::1", "fe80::1"}),
    "eth1": frozenset({"10.0.1.1"}),
    "eth2": frozenset[str](),
    "tora": frozenset({"169.254.1.1"}),
}

CASES: dict[str, tuple[list[HostAttachment], dict[str, str], str | None]] = {
    "by name": ([host("a", "eth0")], {"eth0": "a"}, None),
    "by name, before the device is there": ([host("a", "eth9")], {"eth9": "a"}, None),
    "by address": ([host("a", "", "10.0.1.1")], {"eth1": "a"}, None),
    "by another spelling of it": ([host("a", "", "fd00:0::0001")], {"eth0": "a"}, None),
    "by addresses of several devices": ([host("a", "", "10.0.0.1", "10.0.1.1")], {"eth0": "a", "eth1": "a"}, None),
    "a name is not overruled by addresses": ([host("a", "eth2", "10.0.0.1")], {"eth2": "a"}, None),
    "the first name wins": ([host("b", "eth0"), host("a", "", "10.0.0.1")], {"eth0": "a"}, None),
    "the second takes what is left": (
        [host("a", "eth0"), host("b", "", "10.0.0.1", "10.0.1.1")],
        {"eth0": "a", "eth1": "b"},
        None,
    ),
    "all": ([host("a", "*")], {}, "a"),
    "all but one": ([host("a", "*", "10.0.0.1"), host("b", "eth0")], {"eth0": "b"}, "a"),
    "two of all": ([host("b", "*"), host("a", "*")], {}, "a"),
    "no address": ([host("a", "", "10.9.9.9", "nonsense")], {}, None),
    "neither": ([host("a")], {}, None),
    "the loopback": ([host("a", "lo"), host("b", "", "127.0.0.1")], {}, None),
    "a pod's link": ([host("a", "tora"), host("b", "", "169.254.1.1")], {}, None),
    "no device's name": ([host("a", "a-name-of-sixteen")], {}, None),
    "no name at all": ([host("a", "eth*"), host("b", 'e"0'), host("c", "e 0"), host("d", "eth\n0")], {}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_devices(case: str) -> None:
    hosts, by_device, others = CASES[case]
    for order in permutations(hosts):
        governed = govern(order, DEVICES)
        assert governed.by_device == by_device
        assert governed.others == others
        assert governed.idle.keys() == {h.name for h in hosts} - {*by_device.values(), others}
        assert all(governed.idle.values())
