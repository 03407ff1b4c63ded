from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.manifests import to_manifest
from bus_schemas.resources import KINDS
from tests.support.api import CALICO_POLICY, KUBERNETES_POLICY, NAMESPACE, NODE, POD, POOL, resource
from tortie.cli import tables


def shown(text: str, *, wide: bool = False, namespaces: bool = False) -> dict[str, str]:
    manifest: dict[str, Any] = to_manifest(resource(text))
    columns = tables.columns_of(tables.token(manifest), wide=wide, namespaces=namespaces)
    return {heading: read(manifest) for heading, read in columns}


def test_columns_line_up() -> None:
    assert tables.render(["A", "LONG"], [["xyz", "1"], ["", "2"]]) == "A     LONG\nxyz   1\n      2"


def test_every_kind_has_columns() -> None:
    assert set(tables.COLUMNS) == set(KINDS)


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        (POOL, "NAME CIDR SELECTOR"),
        (NODE, "NAME IPV4 IPV6"),
        (NAMESPACE, "NAME CREATED"),
        (POD, "NAME NODE IPS"),
        (CALICO_POLICY, "NAME TIER"),
        (KUBERNETES_POLICY, "NAME POD-SELECTOR"),
    ],
)
def test_headings(text: str, headings: str) -> None:
    assert list(shown(text)) == headings.split()
    assert list(shown(text, namespaces=True)) == ["NAMESPACE", *headings.split()]


def test_a_wide_pool_shows_its_modes() -> None:
    assert shown(POOL, wide=True) == {
        "NAME": "default-ipv4-ippool",
        "CIDR": "10.244.0.0/16",
        "NAT": "true",
        "IPIPMODE": "Never",
        "VXLANMODE": "Never",
        "DISABLED": "false",
        "DISABLEBGPEXPORT": "false",
        "SELECTOR": "all()",
        "ASSIGNMENTMODE": "Automatic",
    }


def test_a_wide_policy_shows_order_and_selector() -> None:
    wide = shown(CALICO_POLICY, wide=True)
    assert wide["TIER"] == "default"
    assert float(wide["ORDER"]) == 10
    assert wide["SELECTOR"] == "app == 'web'"


def test_a_node_of_kubernetes_shows_its_internal_address() -> None:
    status = "status: {addresses: [{type: InternalIP, address: 10.9.9.9}]}"
    text = f"apiVersion: v1\nkind: Node\nmetadata: {{name: node1}}\n{status}\n"
    assert shown(text)["IPV4"] == "10.9.9.9"


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ("{peerIP: '192.0.2.1:180', asNumber: 65001}", "peer 192.0.2.1:180 (global) 65001"),
        ("{node: a, peerIP: 192.0.2.1, asNumber: 65001}", "peer 192.0.2.1 a 65001"),
        ("{nodeSelector: has(a), peerSelector: has(b)}", "peer has(b) has(a)"),
    ],
)
def test_a_bgp_peer(spec: str, row: str) -> None:
    columns = shown(f"{{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {{name: peer}}, spec: {spec}}}")
    assert list(columns) == ["NAME", "PEERIP", "NODE", "ASN"]
    assert " ".join(filter(None, columns.values())) == row
