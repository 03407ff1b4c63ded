"""flannel's configuration as manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_schemas.manifests import Accepted, read
from tortie.cli.main import main
from tortie.flannel import FlannelFault, configuration, convert

NETWORK = {"Network": "10.244.0.0/16"}
DUAL = {**NETWORK, "EnableIPv6": True, "IPv6Network": "fd00:244::/48", "IPv6SubnetLen": 120}


def spec(kind: str, given: dict[str, Any], number: int = 0) -> dict[str, Any]:
    documents = convert(given).documents
    text = yaml.safe_dump_all(documents)
    assert all(isinstance(outcome, Accepted) for outcome in read(text, "converted"))
    found = [document["spec"] for document in documents if document["kind"] == kind]
    return found[number] if found else {}


@pytest.mark.parametrize(
    ("backend", "modes", "felix"),
    [
        ({"Type": "host-gw"}, ("Never", "Never"), {}),
        ({"Type": "vxlan"}, ("Always", "Never"), {"vxlanPort": 8472, "vxlanVNI": 1}),
        (
            {"Type": "vxlan", "Port": 4789, "VNI": 7, "MTU": 1400, "DirectRouting": True},
            ("CrossSubnet", "Never"),
            {"vxlanPort": 4789, "vxlanVNI": 7, "vxlanMTU": 1400},
        ),
        ({"Type": "ipip"}, ("Never", "Always"), {}),
        ({"Type": "ipip", "DirectRouting": True}, ("Never", "CrossSubnet"), {}),
        (
            {"Type": "wireguard", "PersistentKeepaliveInterval": 25},
            ("Never", "Never"),
            {"wireguardEnabled": True, "wireguardListeningPort": 51820, "wireguardKeepAlive": "25s"},
        ),
    ],
)
def test_every_backend(backend: dict[str, Any], modes: tuple[str, str], felix: dict[str, Any]) -> None:
    given = {**NETWORK, "Backend": backend}
    pool = spec("IPPool", given)
    assert (pool["vxlanMode"], pool["ipipMode"]) == modes
    assert (pool["cidr"], pool["blockSize"], pool["natOutgoing"]) == ("10.244.0.0/16", 24, True)
    assert spec("FelixConfiguration", given) == felix
    assert convert(given).warnings == ()


def test_both_families() -> None:
    given = {**DUAL, "Backend": {"Type": "wireguard"}}
    assert spec("IPPool", given, 1) == {
        "cidr": "fd00:244::/48",
        "blockSize": 120,
        "natOutgoing": True,
        "vxlanMode": "Never",
        "ipipMode": "Never",
    }
    felix = spec("FelixConfiguration", given)
    assert (felix["wireguardEnabledV6"], felix["wireguardListeningPortV6"]) == (True, 51821)


def test_ipv6_alone() -> None:
    documents = convert({**DUAL, "EnableIPv4": False, "Backend": {"Type": "host-gw"}}).documents
    assert [document["metadata"]["name"] for document in documents] == ["flannel-ipv6"]


def test_what_cannot_be_said_is_named() -> None:
    given = {**NETWORK, "SubnetLen": 19, "SubnetMin": "10.244.10.0", "Backend": {"Type": "vxlan", "GBP": True}}
    assert spec("IPPool", given)["blockSize"] == 20
    named = "\n".join(convert(given).warnings)
    assert "SubnetMin" in named
    assert "Backend.GBP" in named
    assert "SubnetLen: blocks have 20 to 32 bits, so it is 20" in named


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ([], "not flannel's net-conf.json"),
        ({"Backend": {"Type": "vxlan"}}, "Network is missing"),
        ({**NETWORK, "Backend": {"Type": "udp"}}, "Backend.Type: 'udp' is none of host-gw, vxlan, ipip, wireguard"),
        (NETWORK, "Backend.Type: '' is none of"),
        ({"Network": "10.244.0.1/16", "Backend": {"Type": "ipip"}}, "Network: .*host bits"),
        ({**NETWORK, "SubnetLen": 8, "Backend": {"Type": "ipip"}}, "SubnetLen: 8 is not"),
        ({**DUAL, "Backend": {"Type": "ipip"}}, "ipip carries IPv4 only"),
        ({**NETWORK, "Backend": {"Type": "vxlan", "VNI": "1"}}, "Backend.VNI: '1' is not a number"),
        ({**NETWORK, "Backend": {"Type": "wireguard", "PSK": "x"}}, "Backend.PSK"),
        ({**NETWORK, "EnableIPv4": False, "Backend": {"Type": "vxlan"}}, "there is no network"),
        ({"kind": "ConfigMap", "data": {"net-conf.json": "{"}}, "data.net-conf.json: "),
        ({"kind": "ConfigMap"}, "has no data.net-conf.json"),
    ],
)
def test_a_fault_says_where(given: Any, fault: str) -> None:
    with pytest.raises(FlannelFault, match=fault):
        convert(configuration(given))


def test_the_command_reads_flannels_own_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps({**NETWORK, "Backend": {"Type": "vxlan"}})
    manifest = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-flannel"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"cni-conf.json": "{}", "net-conf.json": text}},
    ]
    (tmp_path / "kube-flannel.yml").write_text(yaml.safe_dump_all(manifest))
    assert main(["convert", "flannel", str(tmp_path / "kube-flannel.yml")]) == 0
    felix, pool = yaml.safe_load_all(capsys.readouterr().out)
    assert (felix["spec"]["vxlanPort"], pool["spec"]["vxlanMode"]) == (8472, "Always")


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net-conf.json").write_text(json.dumps({**NETWORK, "Backend": {"Type": "udp"}}))
    assert main(["convert", "flannel", str(tmp_path / "net-conf.json")]) == 1
    said = capsys.readouterr()
    assert "net-conf.json: Backend.Type: 'udp'" in said.err
    assert said.out == ""
