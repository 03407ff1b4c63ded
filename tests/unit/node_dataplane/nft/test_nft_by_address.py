"""The table by address, the bridge's table, and that neither costs the table by link a byte."""

from __future__ import annotations

import re

from services.node_dataplane.nft import bridge, by_address, frame
from services.node_dataplane.nft.bridge import BridgeRules, Port
from services.node_dataplane.nft.by_address import ByAddress
from services.node_dataplane.nft.sets import device_key
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.nft_worlds import OPEN, attach, direction, plug, pod, rules, tell, tier

MAC = b"\2\0\0\0\0\1"


def test_the_table_by_link_has_nothing_of_it() -> None:
    plain, told = PolicyTable(), PolicyTable(NodeRules(pod_networks=("10.244.1.0/24",)))
    for table in (plain, told):
        plug(table, "a", "10.244.1.2")
        tell(table, attach("a"))
    script = str(plain.whole())
    assert script == str(told.whole())
    named = {*by_address.SETS} - {*frame.SETS}
    assert not [name for name in named if re.search(rf"\b{name}\b", script)]


def plugged(table: PolicyTable, name: str, *addresses: str, device: int = 9, bridged: bool = True) -> None:
    table.set_endpoint(pod(name), f"veth{name}", addresses, "c1", device=device, bridged=bridged)


def settle(table: PolicyTable) -> None:
    """As a kernel that takes everything; the real one has its turn in tests/kernel/test_found_pods.py."""
    flush = table.flush()
    if flush.transaction is not None:
        table.committed(flush.transaction)


def elements(table: PolicyTable) -> dict[str, set[bytes]]:
    expected = table.expected()
    assert expected is not None
    return {name: set(rows) for name, rows in expected.elements.items() if rows}


def test_what_stands_for_a_pod() -> None:
    table = PolicyTable(layout=ByAddress())
    plugged(table, "a", "10.0.0.2", "fd00::2")
    plugged(table, "b", "10.0.0.3", device=4, bridged=False)
    table.set_pod_devices({4, 9})
    settle(table)
    a, b = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 3))
    six = bytes((0xFD, *(0,) * 14, 2))
    assert elements(table) == {
        "pods4": {a, b},
        "pods6": {six},
        "pod_sources4": {device_key(9) + a, device_key(4) + b},
        "pod_sources6": {device_key(9) + six},
        "pod_links": {device_key(4)},
        "pod_devices": {device_key(4), device_key(9)},
    }
    tell(table, rules("web"), attach("a", direction(tier("web"))))
    settle(table)
    assert elements(table)["pods_to4"] == elements(table)["pods_from4"] == {a}
    table.remove_endpoint(pod("a"))
    table.remove_endpoint(pod("b"))
    table.set_pod_devices(set())
    settle(table)
    assert elements(table) == {}


def test_an_address_goes_over_in_one_transaction() -> None:
    table = PolicyTable(layout=ByAddress())
    plugged(table, "a", "10.0.0.2")
    tell(table, attach("a", OPEN))
    settle(table)
    table.remove_endpoint(pod("a"))
    plugged(table, "b", "10.0.0.2", device=5)
    settle(table)
    assert "pods_to4" not in elements(table), "it is closed until there is policy for it"
    assert elements(table)["pod_sources4"] == {device_key(5) + bytes((10, 0, 0, 2))}


def test_the_bridges_table_is_made_once_and_its_sets_change() -> None:
    ports = frozenset({Port(5, MAC, ("10.0.0.2", "fd00::2")), Port(6, MAC[:-1] + b"\2", ("10.0.0.3",))})
    whole = bridge.script(BridgeRules(ports, frozenset({"10.0.0.1"})), whole=True)
    changed = bridge.script(BridgeRules(ports, frozenset({"10.0.0.1"})), whole=False)
    assert whole == bridge.STRUCTURE + changed
    lines = changed.splitlines()
    assert (
        "add element bridge tortie sources4 { 5 . 02:00:00:00:00:01 . 10.0.0.2, 6 . 02:00:00:00:00:02 . 10.0.0.3 }"
        in lines
    )
    assert "add element bridge tortie taken4 { 10.0.0.1, 10.0.0.2, 10.0.0.3 }" in lines
    assert "add element bridge tortie targets6 { 5 . 02:00:00:00:00:01 . 0xfd000000000000000000000000000002 }" in lines
    assert "unseen" not in changed.replace("flush set bridge tortie unseen\n", "")
    closed = bridge.script(BridgeRules(ports, unfiltered=frozenset({"ip6", "ip"})), whole=False)
    assert "add element bridge tortie unseen { ip, ip6 }" in closed.splitlines()
    empty = bridge.script(BridgeRules(), whole=False)
    assert "add element" not in empty
